package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tweedle/edges/store"
	"tweedle/protocol/core"
	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// MaxTransactionIDs is how many transactions one request may ask for.
const MaxTransactionIDs = 1000

// txService is spacemesh.v1.TransactionService.
type txService struct {
	spacemesh.UnimplementedTransactionServiceServer
	*backend
}

// raw takes the bytes of a transaction, which must outlive the request.
func raw(b []byte) (types.Transaction, error) {
	switch {
	case len(b) == 0:
		return nil, invalid("transaction is empty")
	case len(b) > types.MaxTransactionSize:
		return nil, invalid("transaction has %d bytes, more than %d", len(b), types.MaxTransactionSize)
	}
	return append(types.Transaction{}, b...), nil
}

// SubmitTransaction hands a signed transaction to the network.
func (s txService) SubmitTransaction(ctx context.Context, req *spacemesh.SubmitTransactionRequest) (*spacemesh.SubmitTransactionResponse, error) {
	tx, err := raw(req.Transaction)
	if err != nil {
		return nil, err
	}
	id := tx.ID()
	known, err := s.Store.Transaction(id)
	if err == nil {
		return nil, status.Errorf(codes.AlreadyExists, "transaction was applied in layer %v", known.Result.Layer)
	}
	if err := ignoreNotFound(err); err != nil {
		return nil, s.fail(err)
	}
	if err := s.Node.SubmitTransaction(ctx, tx); err != nil {
		return nil, s.fail(err)
	}
	return &spacemesh.SubmitTransactionResponse{
		Status:  &statuspb.Status{Code: int32(codes.OK)},
		Txstate: txState(id, spacemesh.TransactionState_TRANSACTION_STATE_MEMPOOL),
	}, nil
}

func ignoreNotFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// ParseTransaction reads a transaction, and with verify tells whether it would
// be executed now.
func (s txService) ParseTransaction(_ context.Context, req *spacemesh.ParseTransactionRequest) (*spacemesh.ParseTransactionResponse, error) {
	bytes, err := raw(req.Transaction)
	if err != nil {
		return nil, err
	}
	tx, err := vm.Parse(bytes)
	if err != nil {
		return nil, s.fail(err)
	}
	var gas uint64
	if req.Verify {
		valid, err := s.validate(tx)
		if err != nil {
			return nil, s.fail(err)
		}
		gas = valid.Gas.Max
	}
	return &spacemesh.ParseTransactionResponse{Tx: s.transaction(bytes, gas)}, nil
}

// validate judges a transaction by the account that sends it.
func (s txService) validate(tx vm.Tx) (vm.Valid, error) {
	account, err := s.tip(tx.Principal)
	if err != nil {
		return vm.Valid{}, err
	}
	state, err := vm.Restore([]vm.Entry{{Address: tx.Principal, Account: account}})
	if err != nil {
		return vm.Valid{}, err
	}
	return vm.Validate(tx, state, s.VM)
}

// spendGas is what a plain transfer costs, found by asking the ledger.
func spendGas(p vm.Params) (uint64, error) {
	signer, err := signing.NewSigner(make([]byte, signing.SeedSize), p.Network)
	if err != nil {
		return 0, err
	}
	key := signer.NodeID()
	account := vm.Account{Balance: 1 << 62, Template: vm.WalletTemplate(), State: key[:]}
	state, err := vm.Restore([]vm.Entry{{Address: vm.WalletAddress(key), Account: account}})
	if err != nil {
		return 0, err
	}
	tx, err := vm.Parse(vm.Spend(signer, vm.WalletAddress(key), 1, 0, 1))
	if err != nil {
		return 0, err
	}
	valid, err := vm.Validate(tx, state, p)
	return valid.Gas.Max, err
}

func txState(id types.TransactionID, st spacemesh.TransactionState_TransactionState) *spacemesh.TransactionState {
	return &spacemesh.TransactionState{Id: &spacemesh.TransactionId{Id: id[:]}, State: st}
}

// lookup tells where a transaction is; one that nobody has heard of is in no
// state. What waits is looked at first: it goes from there when it is stored.
func (b *backend) lookup(id types.TransactionID) (*spacemesh.TransactionState, *spacemesh.Transaction, error) {
	if tx, waits := b.Events.waiting.get(id); waits {
		return txState(id, spacemesh.TransactionState_TRANSACTION_STATE_MEMPOOL), b.parsed(tx, 0), nil
	}
	tx, err := b.Store.Transaction(id)
	switch {
	case err == nil:
		return txState(id, spacemesh.TransactionState_TRANSACTION_STATE_PROCESSED), b.stored(tx), nil
	case !errors.Is(err, store.ErrNotFound):
		return nil, nil, err
	}
	left, ok := b.Events.waiting.gone(id)
	if !ok {
		return txState(id, spacemesh.TransactionState_TRANSACTION_STATE_UNSPECIFIED), nil, nil
	}
	principal, err := b.tip(left.Principal)
	if err != nil {
		return nil, nil, err
	}
	return txState(id, left.state(principal)), b.parsed(left.Tx, 0), nil
}

// state of a transaction that left. One that was replaced may still be applied by
// others until one of its nonce is.
func (l Left) state(principal vm.Account) spacemesh.TransactionState_TransactionState {
	switch {
	case principal.NextNonce > l.Nonce:
		return spacemesh.TransactionState_TRANSACTION_STATE_CONFLICTING
	case l.Cause == core.Replaced:
		return spacemesh.TransactionState_TRANSACTION_STATE_MEMPOOL
	case l.Cause == core.Unfunded:
		return spacemesh.TransactionState_TRANSACTION_STATE_INSUFFICIENT_FUNDS
	}
	return spacemesh.TransactionState_TRANSACTION_STATE_REJECTED
}

// txIDs reads a list of ids.
func txIDs(list []*spacemesh.TransactionId) ([]types.TransactionID, error) {
	if len(list) == 0 || len(list) > MaxTransactionIDs {
		return nil, invalid("transaction_id has %d ids, not 1 to %d", len(list), MaxTransactionIDs)
	}
	var ids []types.TransactionID
	for _, id := range list {
		parsed, err := bytes32[types.TransactionID]("transaction_id", id.GetId())
		if err != nil {
			return nil, err
		}
		ids = append(ids, parsed)
	}
	return ids, nil
}

// TransactionsState tells where transactions are.
func (s txService) TransactionsState(_ context.Context, req *spacemesh.TransactionsStateRequest) (*spacemesh.TransactionsStateResponse, error) {
	ids, err := txIDs(req.TransactionId)
	if err != nil {
		return nil, err
	}
	var out spacemesh.TransactionsStateResponse
	for _, id := range ids {
		state, tx, err := s.lookup(id)
		if err != nil {
			return nil, s.fail(err)
		}
		out.TransactionsState = append(out.TransactionsState, state)
		if req.IncludeTransactions && tx != nil {
			out.Transactions = append(out.Transactions, tx)
		}
	}
	return &out, nil
}

// TransactionsStateStream sends where transactions are, and again when that
// changes.
func (s txService) TransactionsStateStream(req *spacemesh.TransactionsStateStreamRequest, out grpc.ServerStreamingServer[spacemesh.TransactionsStateStreamResponse]) error {
	ids, err := txIDs(req.TransactionId)
	if err != nil {
		return err
	}
	sent := make(map[types.TransactionID]spacemesh.TransactionState_TransactionState)
	send := func(id types.TransactionID) error {
		state, tx, err := s.lookup(id)
		if err != nil {
			return s.fail(err)
		}
		if before, ok := sent[id]; ok && before == state.State {
			return nil
		}
		sent[id] = state.State
		if !req.IncludeTransactions {
			tx = nil
		}
		return out.Send(&spacemesh.TransactionsStateStreamResponse{TransactionState: state, Transaction: tx})
	}
	sendAll := func() error {
		for _, id := range ids {
			if err := send(id); err != nil {
				return err
			}
		}
		return nil
	}
	return s.Events.follow(out.Context(), sendAll, func(ev Event) error {
		switch ev := ev.(type) {
		case Applied:
			return sendAll()
		case Accepted:
			if isIn(sent, ev.ID) {
				return send(ev.ID)
			}
		case Left:
			if isIn(sent, ev.ID) {
				return send(ev.ID)
			}
		}
		return nil
	})
}

func isIn[K comparable, V any](m map[K]V, k K) bool { _, ok := m[k]; return ok }

// resultFilter selects results of transactions.
type resultFilter struct {
	id       *types.TransactionID
	address  *types.Address
	from, to types.Layer
}

func (f resultFilter) wants(r vm.Result, tx types.Transaction) bool {
	return r.Layer >= f.from && r.Layer <= f.to && (f.id == nil || *f.id == r.ID) && (f.address == nil || touches(tx, *f.address))
}

func (b *backend) resultFilter(req *spacemesh.TransactionResultsRequest) (resultFilter, error) {
	f := resultFilter{from: types.Layer(req.Start), to: types.Layer(req.End)}
	if req.End == 0 {
		f.to = ^types.Layer(0)
	}
	if f.from > f.to {
		return f, invalid("start %d is after end %d", req.Start, req.End)
	}
	if len(req.Id) > 0 {
		id, err := bytes32[types.TransactionID]("id", req.Id)
		if err != nil {
			return f, err
		}
		f.id = &id
	}
	if req.Address != "" {
		a, err := b.account(&spacemesh.AccountId{Address: req.Address})
		if err != nil {
			return f, err
		}
		f.address = &a
	}
	return f, nil
}

// StreamResults sends the results of the layers from start to end (or the
// newest) in their order, and with watch those to come.
func (s txService) StreamResults(req *spacemesh.TransactionResultsRequest, out grpc.ServerStreamingServer[spacemesh.TransactionResult]) error {
	f, err := s.resultFilter(req)
	if err != nil {
		return err
	}
	var done types.Layer
	past := func() error {
		last, err := s.lastApplied()
		if err != nil {
			return s.fail(err)
		}
		done = last.Layer
		return s.fail(s.pastResults(f, last.Layer, out))
	}
	if !req.Watch {
		return past()
	}
	return s.Events.follow(out.Context(), past, func(ev Event) error {
		// What was applied while the past was read has been sent, unless it
		// replaces something.
		if applied, ok := ev.(Applied); ok && (applied.Layer > done || applied.Base < applied.Layer-1) {
			return s.fail(s.layerResults(f, applied.Layer, out))
		}
		return nil
	})
}

func (s txService) pastResults(f resultFilter, last types.Layer, out grpc.ServerStreamingServer[spacemesh.TransactionResult]) error {
	end := time.Now().Add(s.Limits.Past)
	if f.id != nil { // its layer is known, the others need not be read
		tx, err := s.Store.Transaction(*f.id)
		if err != nil {
			return ignoreNotFound(err)
		}
		f.from, last = max(f.from, tx.Result.Layer), min(last, tx.Result.Layer)
	}
	for from := f.from; from <= min(f.to, last); {
		layers, err := s.Store.BlockLayers(from, store.MaxPage)
		if err != nil || len(layers) == 0 {
			return err
		}
		for _, l := range layers {
			if l.Layer > min(f.to, last) {
				return nil
			}
			if err := out.Context().Err(); err != nil {
				return err
			}
			if time.Now().After(end) {
				return status.Errorf(codes.DeadlineExceeded, "the past took more than %v: ask again, from layer %d on", s.Limits.Past, l.Layer)
			}
			if err := s.layerResults(f, l.Layer, out); err != nil {
				return err
			}
		}
		from = layers[len(layers)-1].Layer + 1
	}
	return nil
}

func (s txService) layerResults(f resultFilter, l types.Layer, out grpc.ServerStreamingServer[spacemesh.TransactionResult]) error {
	if l < f.from || l > f.to {
		return nil
	}
	layer, err := s.Store.Layer(l)
	if err != nil {
		return ignoreNotFound(err) // reverted since
	}
	txs, err := s.Store.LayerTransactions(l)
	if err != nil {
		return err
	}
	for _, tx := range txs {
		if !f.wants(tx.Result, tx.Raw) {
			continue
		}
		if err := out.Send(s.result(tx, layer.Block)); err != nil {
			return err
		}
	}
	return nil
}

func (b *backend) result(tx store.Tx, block types.BlockID) *spacemesh.TransactionResult {
	r := &spacemesh.TransactionResult{
		Tx: b.stored(tx), Status: spacemesh.TransactionResult_SUCCESS, Message: tx.Result.Reason,
		GasConsumed: tx.Result.Gas, Fee: tx.Result.Fee, Block: block[:], Layer: uint32(tx.Result.Layer),
	}
	if tx.Result.Status == vm.Failure {
		r.Status = spacemesh.TransactionResult_FAILURE
	}
	parsed, err := vm.Parse(tx.Raw)
	if err != nil {
		panic(fmt.Sprintf("api: an executed transaction cannot be read: %v", err))
	}
	for _, a := range parsed.Addresses() {
		r.TouchedAddresses = append(r.TouchedAddresses, a.Bech32(b.VM.HRP))
	}
	return r
}
