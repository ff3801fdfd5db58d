package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// sent is what "wallet send" reports.
type sent struct {
	ID      string   `json:"id"`
	SpawnID string   `json:"spawn_id,omitempty"` // when the account had to be spawned first
	Status  string   `json:"status"`             // "waiting", "success" or "failure"
	Result  *receipt `json:"result,omitempty"`   // with --wait
}

func walletSend(o *walletOptions) *cobra.Command {
	var wait bool
	var gasPrice uint64
	cmd := &cobra.Command{
		Use:   "send ADDRESS AMOUNT",
		Short: "Send coins",
		Long: "Sends coins from the account of the key. An account that never sent anything\n" +
			"is spawned first; that is a transaction of its own, which is waited for.",
		Example: "  tweedle wallet send stest1qqqqqqxg90ffxv9c2608938ng6drpl37e2j9njsqq6g9g 1.5SMH --wait\n" +
			"  tweedle wallet send -k D/wallets/faucet.key stest1qqqqqqxg90ffxv9c2608938ng6drpl37e2j9njsqq6g9g 10SMH   # coins of \"testnet up --dir D\"\n" +
			"  tweedle wallet send stest1qqqqqqxg90ffxv9c2608938ng6drpl37e2j9njsqq6g9g 1000smidge --node 127.0.0.1:9092 --json",
		Args: exactArgs(2, "an address and an amount"),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := types.ParseAddress(args[0], o.hrp)
			if err != nil {
				return usageError{err}
			}
			amount, err := parseAmount(args[1])
			if err != nil {
				return usageError{err}
			}
			if gasPrice == 0 {
				return usageError{errors.New("--gas-price 0: it must be at least 1")}
			}
			n, err := dialNode(o.node)
			if err != nil {
				return err
			}
			defer n.close()
			ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
			defer cancel()
			progress := func(format string, args ...any) {
				if !o.json {
					fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...)
				}
			}
			s, err := o.send(ctx, n, to, amount, gasPrice, wait, progress)
			if err != nil {
				return err
			}
			return o.report(cmd, s)
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the transaction is applied, and fail if it fails")
	cmd.Flags().Uint64Var(&gasPrice, "gas-price", 1, "smidges per unit of gas; more is served earlier")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 10*time.Minute, "how long to wait in all")
	o.nodeFlags(cmd)
	return cmd
}

// report prints what was sent; the failure of a transaction is an error.
func (o *walletOptions) report(cmd *cobra.Command, s sent) error {
	line := "transaction " + s.ID + " waits for a block"
	if s.Result != nil {
		line = fmt.Sprintf("transaction %s: %s", s.ID, s.Result)
	}
	if err := o.print(cmd, s, "%s", line); err != nil {
		return err
	}
	if s.Result != nil && !s.Result.Success {
		return fmt.Errorf("transaction %s failed: %s", s.ID, s.Result.Reason)
	}
	return nil
}

func (o *walletOptions) send(
	ctx context.Context, n *nodeClient, to types.Address, amount, gasPrice uint64, wait bool, progress func(string, ...any),
) (sent, error) {
	network, err := n.network(ctx)
	if err != nil {
		return sent{}, err
	}
	signer, err := o.signer(network)
	if err != nil {
		return sent{}, err
	}
	from := walletAddressOf(signer).Bech32(o.hrp)
	s := sent{Status: "waiting"}
	if s.SpawnID, err = spawnIfNeeded(ctx, n, signer, from, gasPrice, progress); err != nil {
		return s, err
	}
	account, err := n.account(ctx, from)
	if err != nil {
		return s, err
	}
	raw := vm.Spend(signer, to, amount, account.PendingNonce, gasPrice)
	s.ID = raw.ID().String()
	if err := n.submit(ctx, raw); err != nil {
		return s, err
	}
	if !wait {
		return s, nil
	}
	progress("transaction %s waits for a block", s.ID)
	result, err := n.result(ctx, raw.ID(), from)
	if err != nil {
		return s, err
	}
	s.Result, s.Status = &result, "failure"
	if result.Success {
		s.Status = "success"
	}
	return s, nil
}

// spawnIfNeeded returns the id of the spawn that it sent, if any. The API does
// not tell whether an account is spawned, but only a spawned one has ever
// used a nonce.
func spawnIfNeeded(
	ctx context.Context, n *nodeClient, signer *signing.Signer, from string, gasPrice uint64, progress func(string, ...any),
) (string, error) {
	account, err := n.account(ctx, from)
	if err != nil || account.Nonce > 0 {
		return "", err
	}
	if account.PendingNonce > 0 {
		progress("waiting until account %s is spawned", from)
		return "", n.untilNonce(ctx, from, 1)
	}
	raw := vm.Spawn(signer, 0, gasPrice)
	if err := n.submit(ctx, raw); err != nil {
		return "", fmt.Errorf("account %s must be spawned first: %w", from, err)
	}
	id := raw.ID().String()
	progress("account %s is spawned first by transaction %s", from, id)
	result, err := n.result(ctx, raw.ID(), from)
	switch {
	case err != nil:
		return id, err
	case !result.Success:
		return id, fmt.Errorf("account %s could not be spawned: %s", from, result.Reason)
	}
	return id, nil
}

func walletHistory(o *walletOptions) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:     "history [ADDRESS]",
		Short:   "List the transactions and rewards of an account, the latest last",
		Example: "  tweedle wallet history --limit 10\n  tweedle wallet history --json   # one JSON object a line",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.MaximumNArgs(1)(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 {
				return usageError{fmt.Errorf("--limit %d: it must be at least 1", limit)}
			}
			address, err := o.account(args)
			if err != nil {
				return err
			}
			n, err := dialNode(o.node)
			if err != nil {
				return err
			}
			defer n.close()
			events, rewards, err := n.history(cmd.Context(), address, o.hrp, limit)
			if err != nil {
				return err
			}
			for _, e := range events {
				if err := o.print(cmd, e, "%s", e); err != nil {
					return err
				}
			}
			if rewards.Count == 0 || o.json {
				return nil
			}
			return o.print(cmd, nil, "%s", rewards)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "how many of the latest to list")
	o.nodeFlags(cmd)
	return cmd
}

// earned is what all rewards of an account come to, those too that are not listed.
type earned struct {
	Count       int
	Total       uint64 // smidges
	First, Last uint32 // layers
}

func (e *earned) add(layer uint32, amount uint64) {
	if e.Count == 0 || layer < e.First {
		e.First = layer
	}
	e.Last = max(e.Last, layer)
	e.Count++
	e.Total += amount
}

func (e earned) String() string {
	return fmt.Sprintf("%s in all, layers %d-%d: %s", count(e.Count, "reward"), e.First, e.Last, formatAmount(e.Total))
}

// event is one line of an account's history.
type event struct {
	Layer   uint32 `json:"layer"`
	Epoch   uint32 `json:"epoch"`
	Time    string `json:"time,omitempty"` // when the layer began, in UTC; absent where layers are shorter than a second
	Kind    string `json:"kind"`           // "sent", "received", "spawn", "transaction" (its content is not known) or "reward"
	Amount  uint64 `json:"amount_smidges,omitempty"`
	Other   string `json:"other,omitempty"`       // the account at the other end
	Fee     uint64 `json:"fee_smidges,omitempty"` // if this account paid it
	ID      string `json:"id,omitempty"`
	Failure string `json:"failure,omitempty"`
}

func (e event) String() string {
	s := fmt.Sprintf("layer %-7d epoch %-5d %-20s %-11s %18s", e.Layer, e.Epoch, e.Time, e.Kind, formatAmount(e.Amount))
	if e.Other != "" {
		s += "  " + e.Other
	}
	if e.Fee != 0 {
		s += "  fee " + formatAmount(e.Fee)
	}
	if e.ID != "" {
		s += "  " + e.ID
	}
	if e.Failure != "" {
		s += "  failed: " + e.Failure
	}
	return s
}

// latest sorts events by layer and keeps the last ones.
func latest(events []event, limit int) []event {
	slices.SortStableFunc(events, func(a, b event) int { return int(int64(a.Layer) - int64(b.Layer)) })
	return events[max(0, len(events)-limit):]
}
