package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tweedle/edges/front"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// Limits of a conversation with a node.
const (
	callTimeout  = 15 * time.Second
	pollInterval = 500 * time.Millisecond
	historyPage  = 1000
	// maxHistory bounds what is read of an account's history.
	maxHistory = 1_000_000
	// statesPerCall bounds the ids of one TransactionsState call.
	statesPerCall = 100
)

// nodeClient talks to the public API of a node (reference/protocol.md C).
type nodeClient struct {
	node  string
	conn  *grpc.ClientConn
	txs   pb.TransactionServiceClient
	state pb.GlobalStateServiceClient
	mesh  pb.MeshServiceClient
}

func dialNode(node string) (*nodeClient, error) {
	conn, err := front.Dial(node)
	if err != nil {
		return nil, usageError{fmt.Errorf("--node %s: %w", node, err)}
	}
	return &nodeClient{
		node: node, conn: conn, txs: pb.NewTransactionServiceClient(conn),
		state: pb.NewGlobalStateServiceClient(conn), mesh: pb.NewMeshServiceClient(conn),
	}, nil
}

func (n *nodeClient) close() { n.conn.Close() }

// call does one request under its deadline and makes its error one line.
func call[Req, Resp any](
	ctx context.Context, n *nodeClient, f func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req,
) (Resp, error) {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := f(limited, req)
	switch s := status.Convert(err); s.Code() {
	case codes.OK:
		return resp, nil
	case codes.DeadlineExceeded:
		// The node knows our deadline and may answer with it before our clock does:
		// whose waiting is over must not depend on who is first.
		whole, bounded := ctx.Deadline()
		if one, _ := limited.Deadline(); bounded && !whole.After(one) {
			<-ctx.Done()
			return resp, fmt.Errorf("node %s did not answer within --timeout", n.node)
		}
		return resp, fmt.Errorf("node %s did not answer within %v, is it busy?", n.node, callTimeout)
	case codes.Unavailable:
		return resp, fmt.Errorf("node %s cannot be reached, is it running? (%s)", n.node, s.Message())
	case codes.Unimplemented:
		return resp, fmt.Errorf("node %s has no such service: is it the gRPC address of a node?", n.node)
	default:
		return resp, fmt.Errorf("node %s: %s", n.node, s.Message())
	}
}

// network returns the id that transactions must be signed for.
func (n *nodeClient) network(ctx context.Context) (types.GenesisID, error) {
	resp, err := call(ctx, n, n.mesh.GenesisID, &pb.GenesisIDRequest{})
	if err != nil {
		return types.GenesisID{}, err
	}
	if len(resp.GenesisId) != len(types.GenesisID{}) {
		return types.GenesisID{}, fmt.Errorf("node %s has a genesis id of %d bytes", n.node, len(resp.GenesisId))
	}
	return types.GenesisID(resp.GenesisId), nil
}

// accountState is what "wallet balance" reports.
type accountState struct {
	Address        string `json:"address"`
	Balance        uint64 `json:"balance_smidges"`
	Nonce          uint64 `json:"nonce"`                   // the next one
	PendingBalance uint64 `json:"pending_balance_smidges"` // after what waits for a block
	PendingNonce   uint64 `json:"pending_nonce"`
}

func (a accountState) String() string {
	s := formatAmount(a.Balance)
	if a.PendingBalance != a.Balance {
		s += ", " + formatAmount(a.PendingBalance) + " after what waits for a block"
	}
	return s
}

func (n *nodeClient) account(ctx context.Context, address string) (accountState, error) {
	resp, err := call(ctx, n, n.state.Account, &pb.AccountRequest{AccountId: &pb.AccountId{Address: address}})
	if err != nil {
		return accountState{}, err
	}
	now := resp.GetAccountWrapper().GetStateCurrent()
	next := resp.GetAccountWrapper().GetStateProjected()
	if next == nil {
		next = now
	}
	return accountState{
		Address: address, Balance: now.GetBalance().GetValue(), Nonce: now.GetCounter(),
		PendingBalance: next.GetBalance().GetValue(), PendingNonce: next.GetCounter(),
	}, nil
}

func (n *nodeClient) submit(ctx context.Context, raw types.Transaction) error {
	resp, err := call(ctx, n, n.txs.SubmitTransaction, &pb.SubmitTransactionRequest{Transaction: raw})
	if err != nil {
		return err
	}
	switch s := resp.GetTxstate().GetState(); s {
	case pb.TransactionState_TRANSACTION_STATE_REJECTED,
		pb.TransactionState_TRANSACTION_STATE_INSUFFICIENT_FUNDS,
		pb.TransactionState_TRANSACTION_STATE_CONFLICTING,
		pb.TransactionState_TRANSACTION_STATE_INEFFECTUAL:
		return fmt.Errorf("node %s refused the transaction: %s %s", n.node, s, resp.GetStatus().GetMessage())
	}
	return nil
}

// receipt is what became of a transaction.
type receipt struct {
	Success bool   `json:"success"`
	Reason  string `json:"reason,omitempty"`
	Layer   uint32 `json:"layer"` // in which it was applied
	Gas     uint64 `json:"gas"`
	Fee     uint64 `json:"fee_smidges"`
}

func (r receipt) String() string {
	if !r.Success {
		return fmt.Sprintf("failed in layer %d, fee %s: %s", r.Layer, formatAmount(r.Fee), r.Reason)
	}
	return fmt.Sprintf("applied in layer %d, fee %s", r.Layer, formatAmount(r.Fee))
}

func newReceipt(r *pb.TransactionReceipt) receipt {
	out := receipt{Layer: r.GetLayer().GetNumber(), Gas: r.GetGasUsed(), Fee: r.GetFee().GetValue()}
	switch r.GetResult() {
	case pb.TransactionReceipt_TRANSACTION_RESULT_EXECUTED:
		out.Success = true
	case pb.TransactionReceipt_TRANSACTION_RESULT_INSUFFICIENT_FUNDS:
		out.Reason = "the balance was too low"
	case pb.TransactionReceipt_TRANSACTION_RESULT_INSUFFICIENT_GAS:
		out.Reason = "the balance did not cover the gas"
	case pb.TransactionReceipt_TRANSACTION_RESULT_BAD_COUNTER:
		out.Reason = "the nonce was used already"
	default:
		out.Reason = "it could not be executed"
	}
	return out
}

// errWait explains a deadline: the transaction is out, whatever we do.
func errWait(ctx context.Context, what string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s within --timeout: it may be later, see \"tweedle wallet history\"", what)
	}
	return fmt.Errorf("stopped waiting: %s yet", what)
}

// poll calls f every pollInterval until it is done, fails, or ctx ends.
func poll(ctx context.Context, what string, f func() (done bool, err error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		done, err := f()
		if ctx.Err() != nil {
			return errWait(ctx, what)
		}
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errWait(ctx, what)
		case <-ticker.C:
		}
	}
}

// result waits until a transaction of principal is applied or dropped.
func (n *nodeClient) result(ctx context.Context, id types.TransactionID, principal string) (receipt, error) {
	var r receipt
	err := poll(ctx, fmt.Sprintf("transaction %s was not applied", id), func() (bool, error) {
		resp, err := call(ctx, n, n.txs.TransactionsState, &pb.TransactionsStateRequest{
			TransactionId: []*pb.TransactionId{{Id: id[:]}},
		})
		if err != nil {
			return false, err
		}
		for _, s := range resp.GetTransactionsState() {
			switch s.GetState() {
			case pb.TransactionState_TRANSACTION_STATE_PROCESSED:
				found, err := n.receipt(ctx, id, principal)
				if found != nil {
					r = newReceipt(found)
				}
				return found != nil, err
			case pb.TransactionState_TRANSACTION_STATE_REJECTED,
				pb.TransactionState_TRANSACTION_STATE_INSUFFICIENT_FUNDS,
				pb.TransactionState_TRANSACTION_STATE_CONFLICTING,
				pb.TransactionState_TRANSACTION_STATE_INEFFECTUAL:
				return false, fmt.Errorf("transaction %s was dropped without effect (%s): send it again", id, s.GetState())
			}
		}
		return false, nil
	})
	return r, err
}

// untilNonce waits until the account has used the nonces below next.
func (n *nodeClient) untilNonce(ctx context.Context, address string, next uint64) error {
	return poll(ctx, fmt.Sprintf("account %s did not advance", address), func() (bool, error) {
		a, err := n.account(ctx, address)
		return a.Nonce >= next, err
	})
}

// receipt looks a transaction up among those of an account.
func (n *nodeClient) receipt(ctx context.Context, id types.TransactionID, address string) (*pb.TransactionReceipt, error) {
	var found *pb.TransactionReceipt
	flags := uint32(pb.AccountDataFlag_ACCOUNT_DATA_FLAG_TRANSACTION_RECEIPT)
	err := n.accountData(ctx, address, flags, func(d *pb.AccountData) bool {
		if r := d.GetReceipt(); string(r.GetId().GetId()) == string(id[:]) {
			found = r
		}
		return found == nil
	})
	return found, err
}

// accountData yields what a node keeps of an account, page by page.
func (n *nodeClient) accountData(ctx context.Context, address string, flags uint32, yield func(*pb.AccountData) bool) error {
	for offset := uint32(0); offset < maxHistory; {
		resp, err := call(ctx, n, n.state.AccountDataQuery, &pb.AccountDataQueryRequest{
			Filter:     &pb.AccountDataFilter{AccountId: &pb.AccountId{Address: address}, AccountDataFlags: flags},
			MaxResults: historyPage, Offset: offset,
		})
		if err != nil {
			return err
		}
		for _, item := range resp.GetAccountItem() {
			if !yield(item) {
				return nil
			}
		}
		offset += uint32(len(resp.GetAccountItem()))
		if len(resp.GetAccountItem()) == 0 || offset >= resp.GetTotalResults() {
			return nil
		}
	}
	return nil
}

// schedule returns when the network's layers are, as far as its API tells: in whole
// seconds. Where layers are shorter their duration is zero.
func (n *nodeClient) schedule(ctx context.Context) (s types.Schedule, err error) {
	genesis, err := call(ctx, n, n.mesh.GenesisTime, &pb.GenesisTimeRequest{})
	if err != nil {
		return s, err
	}
	layers, err := call(ctx, n, n.mesh.EpochNumLayers, &pb.EpochNumLayersRequest{})
	if err != nil {
		return s, err
	}
	duration, err := call(ctx, n, n.mesh.LayerDuration, &pb.LayerDurationRequest{})
	if err != nil {
		return s, err
	}
	s.Genesis = time.Unix(int64(genesis.GetUnixtime().GetValue()), 0).UTC()
	s.LayerDuration = time.Duration(duration.GetDuration().GetValue()) * time.Second
	if s.LayersPerEpoch = layers.GetNumlayers().GetNumber(); s.LayersPerEpoch == 0 {
		return s, fmt.Errorf("node %s has epochs without layers", n.node)
	}
	return s, nil
}

// history returns the latest events of an account, and what its rewards come to in all.
func (n *nodeClient) history(ctx context.Context, account types.Address, hrp string, limit int) ([]event, earned, error) {
	var events []event
	var rewards earned
	schedule, err := n.schedule(ctx)
	if err != nil {
		return nil, rewards, err
	}
	flags := uint32(pb.AccountDataFlag_ACCOUNT_DATA_FLAG_TRANSACTION_RECEIPT | pb.AccountDataFlag_ACCOUNT_DATA_FLAG_REWARD)
	err = n.accountData(ctx, account.Bech32(hrp), flags, func(d *pb.AccountData) bool {
		if reward := d.GetReward(); reward != nil {
			e := event{Layer: reward.GetLayer().GetNumber(), Kind: "reward", Amount: reward.GetTotal().GetValue()}
			rewards.add(e.Layer, e.Amount)
			events = append(events, e)
		} else if pbReceipt := d.GetReceipt(); pbReceipt != nil {
			r := newReceipt(pbReceipt)
			events = append(events, event{
				Layer: r.Layer, Kind: "transaction", Fee: r.Fee, Failure: r.Reason,
				ID: fmt.Sprintf("%x", pbReceipt.GetId().GetId()),
			})
		}
		return true
	})
	if err != nil {
		return nil, rewards, err
	}
	events = latest(events, limit)
	for i := range events {
		e := &events[i]
		e.Epoch = uint32(schedule.EpochOf(types.Layer(e.Layer)))
		if schedule.LayerDuration > 0 {
			e.Time = schedule.LayerStart(types.Layer(e.Layer)).Format(time.RFC3339)
		}
	}
	return events, rewards, n.describe(ctx, events, account, hrp)
}

// describe fills in what the transactions of the events did.
func (n *nodeClient) describe(ctx context.Context, events []event, account types.Address, hrp string) error {
	byID := map[string]*event{}
	var ids []*pb.TransactionId
	for i := range events {
		if events[i].ID != "" {
			id, err := types.ParseHex32(events[i].ID)
			if err != nil {
				return fmt.Errorf("node %s sent a transaction id that is none: %w", n.node, err)
			}
			byID[events[i].ID] = &events[i]
			ids = append(ids, &pb.TransactionId{Id: id[:]})
		}
	}
	for len(ids) > 0 {
		some := ids[:min(len(ids), statesPerCall)]
		ids = ids[len(some):]
		resp, err := call(ctx, n, n.txs.TransactionsState, &pb.TransactionsStateRequest{
			TransactionId: some, IncludeTransactions: true,
		})
		if err != nil {
			return err
		}
		for _, t := range resp.GetTransactions() {
			tx, err := vm.Parse(t.GetRaw())
			if e := byID[tx.ID.String()]; err == nil && e != nil {
				e.describe(tx, account, hrp)
			}
		}
	}
	return nil
}

func (e *event) describe(tx vm.Tx, account types.Address, hrp string) {
	e.Kind, e.Other = "sent", tx.To.Bech32(hrp)
	if tx.Principal != account { // the other one paid
		e.Kind, e.Other, e.Fee = "received", tx.Principal.Bech32(hrp), 0
	}
	if tx.Method == vm.MethodSpawn {
		e.Kind = "spawn"
		if tx.To == tx.Principal {
			e.Other = ""
		}
	}
	e.Amount = tx.Amount
}
