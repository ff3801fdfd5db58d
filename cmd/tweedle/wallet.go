package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tweedle/base/durable"
	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// walletOptions are the flags that the wallet's commands share.
type walletOptions struct {
	keyFile string
	hrp     string
	node    string
	json    bool
	timeout time.Duration
}

func walletCommand() *cobra.Command {
	o := &walletOptions{}
	wallet := &cobra.Command{
		Use:   "wallet",
		Short: "Hold a key, send coins, look at balances",
		Long: "A wallet is one key in one file. Its address is the same on every network\n" +
			"but for the prefix: \"sm\" on mainnet, \"stest\" on test networks.",
		Example: "  tweedle wallet new --key alice.key\n  tweedle wallet send stest1qqqqqqxg90ffxv9c2608938ng6drpl37e2j9njsqq6g9g 1.5SMH --key alice.key",
		Args:    noArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if err := types.CheckHRP(o.hrp); err != nil {
				return usageError{fmt.Errorf("--hrp: %w", err)}
			}
			return nil
		},
	}
	flags := wallet.PersistentFlags()
	pathVar(flags, &o.keyFile, "key", "k", "wallet.key", "file of the secret key")
	flags.StringVar(&o.hrp, "hrp", "stest", "prefix of the network's addresses")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	wallet.AddCommand(walletNew(o), walletAddress(o), walletBalance(o), walletSend(o), walletHistory(o))
	return wallet
}

// noArgs and exactArgs are cobra's, but a mistake exits with exitUsage.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return usageError{err}
	}
	return nil
}

func exactArgs(n int, names string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("give %s: got %d arguments", names, len(args))}
		}
		return nil
	}
}

func (o *walletOptions) nodeFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.node, "node", "127.0.0.1:9092", "a node's gRPC API: host:port, https://host:port if it has a certificate, or unix:PATH")
}

// print writes v as JSON, or the line for people.
func (o *walletOptions) print(cmd *cobra.Command, v any, format string, args ...any) error {
	out := cmd.OutOrStdout()
	if o.json {
		return json.NewEncoder(out).Encode(v)
	}
	_, err := fmt.Fprintf(out, format+"\n", args...)
	return err
}

func walletNew(o *walletOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "new",
		Short:   "Make a key and keep it in a file",
		Example: "  tweedle wallet new --key alice.key",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := newKey(o.keyFile); err != nil {
				return err
			}
			return o.showAddress(cmd)
		},
	}
}

func walletAddress(o *walletOptions) *cobra.Command {
	return &cobra.Command{
		Use:     "address",
		Short:   "Print the address of the key",
		Example: "  tweedle wallet address --key alice.key",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.showAddress(cmd) },
	}
}

func (o *walletOptions) showAddress(cmd *cobra.Command) error {
	s, err := o.signer(types.GenesisID{})
	if err != nil {
		return err
	}
	address := walletAddressOf(s).Bech32(o.hrp)
	return o.print(cmd, keyShown{address, o.keyFile}, "%s", address)
}

// keyShown is what "wallet new" and "wallet address" report.
type keyShown struct {
	Address string `json:"address"`
	KeyFile string `json:"key_file"`
}

func walletAddressOf(s *signing.Signer) types.Address { return vm.WalletAddress(s.NodeID()) }

// maxKeyFile is in bytes: a key in hexadecimal with room for line ends.
const maxKeyFile = 256

// newKey makes a key and keeps it in a new file that only its owner can read. If
// we stop before it is durable, nobody was told its address.
func newKey(path string) error {
	key, err := durable.RandomHex()
	if err != nil {
		return err
	}
	err = durable.NewSecret(durable.OS{}, path, key)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists: choose another file with --key, a key is never overwritten", path)
	}
	return err
}

// signer reads the key file.
func (o *walletOptions) signer(network types.GenesisID) (*signing.Signer, error) {
	err := durable.Private(o.keyFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no key in %s: make one with \"tweedle wallet new --key %s\"", o.keyFile, o.keyFile)
	} else if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	f, err := os.Open(o.keyFile)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	seed, err := signing.ReadSeed(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.keyFile, err)
	}
	return signing.NewSigner(seed, network)
}

func walletBalance(o *walletOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "balance [ADDRESS]",
		Short:   "Print what an account has: the key's, or another one",
		Example: "  tweedle wallet balance --node 127.0.0.1:9092\n  tweedle wallet balance stest1qqqqqqxg90ffxv9c2608938ng6drpl37e2j9njsqq6g9g",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.MaximumNArgs(1)(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			address, err := o.account(args)
			if err != nil {
				return err
			}
			n, err := dialNode(o.node)
			if err != nil {
				return err
			}
			defer n.close()
			a, err := n.account(cmd.Context(), address.Bech32(o.hrp))
			if err != nil {
				return err
			}
			return o.print(cmd, a, "%s", a)
		},
	}
	o.nodeFlags(cmd)
	return cmd
}

// account returns the address in args, or the key's.
func (o *walletOptions) account(args []string) (types.Address, error) {
	if len(args) == 1 {
		a, err := types.ParseAddress(args[0], o.hrp)
		if err != nil {
			return a, usageError{err}
		}
		return a, nil
	}
	s, err := o.signer(types.GenesisID{})
	if err != nil {
		return types.Address{}, err
	}
	return walletAddressOf(s), nil
}

// Units of amounts on the command line and in output.
const (
	unitCoin   = "SMH"
	unitSmidge = "smidge"
)

// parseAmount reads "1.5SMH" or "1500000000smidge", upper or lower case.
func parseAmount(s string) (uint64, error) {
	lower := strings.ToLower(strings.ReplaceAll(s, " ", ""))
	if digits, ok := strings.CutSuffix(lower, unitSmidge); ok {
		v, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("amount %q is not a whole number of smidge that fits 64 bits", s)
		}
		return v, nil
	}
	digits, ok := strings.CutSuffix(lower, strings.ToLower(unitCoin))
	if !ok {
		return 0, fmt.Errorf("amount %q has no unit: write it like 1.5%s or 1500000000%s", s, unitCoin, unitSmidge)
	}
	whole, part, _ := strings.Cut(digits, ".")
	const places = 9 // of vm.Smidges
	if len(part) > places {
		return 0, fmt.Errorf("amount %q has more than %d decimals", s, places)
	}
	coins, err := strconv.ParseUint(whole, 10, 64)
	rest, err2 := strconv.ParseUint(part+strings.Repeat("0", places-len(part)), 10, 64)
	if err != nil || err2 != nil {
		return 0, fmt.Errorf("amount %q is not a number", s)
	}
	high, low := bits.Mul64(coins, vm.Smidges)
	sum, over := bits.Add64(low, rest, 0)
	if high != 0 || over != 0 {
		return 0, fmt.Errorf("amount %q is more than there can be", s)
	}
	return sum, nil
}

// formatAmount writes smidges so that parseAmount reads them back.
func formatAmount(v uint64) string {
	s := strconv.FormatUint(v/vm.Smidges, 10)
	if part := v % vm.Smidges; part != 0 {
		s += "." + strings.TrimRight(fmt.Sprintf("%09d", part), "0")
	}
	return s + unitCoin
}
