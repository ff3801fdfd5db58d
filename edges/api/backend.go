package api

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tweedle/edges/front"
	"tweedle/edges/store"
	"tweedle/protocol/txpool"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// backend is what all services share.
type backend struct {
	Config
	guard      *front.Guard
	publishing chan struct{} // holds a token for each PoET proof that is being checked
	publishers *front.Rates[netip.Prefix]
}

// reasons maps errors of the packages below to the status that a user gets.
func reasons() []front.Reason {
	return []front.Reason{
		{Err: vm.ErrMalformed, Code: codes.InvalidArgument},
		{Err: vm.ErrSignature, Code: codes.InvalidArgument},
		{Err: vm.ErrGasPrice, Code: codes.InvalidArgument},
		{Err: vm.ErrBlockGas, Code: codes.InvalidArgument},
		{Err: vm.ErrNotSpawned, Code: codes.FailedPrecondition},
		{Err: vm.ErrSpawned, Code: codes.FailedPrecondition},
		{Err: vm.ErrNonce, Code: codes.FailedPrecondition},
		{Err: vm.ErrBalance, Code: codes.FailedPrecondition},
		{Err: txpool.ErrPending, Code: codes.FailedPrecondition},
		{Err: txpool.ErrUnderpriced, Code: codes.FailedPrecondition},
		{Err: txpool.ErrAccountFull, Code: codes.ResourceExhausted},
		{Err: txpool.ErrPoolFull, Code: codes.ResourceExhausted},
		{Err: txpool.ErrKnown, Code: codes.AlreadyExists},
		{Err: ErrInvalidProof, Code: codes.InvalidArgument},
		{Err: ErrNotReady, Code: codes.FailedPrecondition},
		{Err: store.ErrClosed, Code: codes.Unavailable},
		{Err: store.ErrLate, Code: codes.ResourceExhausted},
		{Err: context.Canceled, Code: codes.Canceled},
		{Err: context.DeadlineExceeded, Code: codes.DeadlineExceeded},
	}
}

// fail turns an error into the status that a user gets.
func (b *backend) fail(err error) error { return front.Status(b.Log, reasons(), err) }

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// account reads an address of our network.
func (b *backend) account(id *spacemesh.AccountId) (types.Address, error) {
	if id.GetAddress() == "" {
		return types.Address{}, invalid("account_id.address is missing")
	}
	a, err := types.ParseAddress(id.Address, b.VM.HRP)
	if err != nil {
		return a, invalid("%v", err)
	}
	return a, nil
}

func (b *backend) accountID(a types.Address) *spacemesh.AccountId {
	return &spacemesh.AccountId{Address: a.Bech32(b.VM.HRP)}
}

// bytes32 reads an id of exactly 32 bytes.
func bytes32[T ~[32]byte](name string, b []byte) (T, error) {
	if len(b) != 32 {
		return T{}, invalid("%s has %d bytes, not 32", name, len(b))
	}
	return T(b), nil
}

func layerNumber(l types.Layer) *spacemesh.LayerNumber {
	return &spacemesh.LayerNumber{Number: uint32(l)}
}

func amount(v uint64) *spacemesh.Amount { return &spacemesh.Amount{Value: v} }

// lastApplied is the newest layer of the store, which has at least genesis
// once the node runs.
func (b *backend) lastApplied() (store.Layer, error) {
	last, err := b.Store.LastApplied()
	if errors.Is(err, store.ErrNotFound) {
		return last, fmt.Errorf("%w: it has no state yet", ErrNotReady)
	}
	return last, err
}

// tip returns an account as it is now; one that nobody has heard of is empty.
func (b *backend) tip(a types.Address) (vm.Account, error) {
	account, err := b.Store.Account(a)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return vm.Account{}, err
	}
	return account.Account, nil
}

// transaction describes raw bytes. Bytes that are no transaction keep their id.
// Gas is known once it has been executed or validated.
func (b *backend) transaction(raw types.Transaction, gas uint64) *spacemesh.Transaction {
	tx, err := vm.Parse(raw)
	if err != nil {
		id := raw.ID()
		return &spacemesh.Transaction{Id: id[:], Raw: raw}
	}
	return b.parsed(tx, gas)
}

func (b *backend) parsed(tx vm.Tx, gas uint64) *spacemesh.Transaction {
	out := &spacemesh.Transaction{
		Id: tx.ID[:], Principal: b.accountID(tx.Principal), Method: uint32(tx.Method), Nonce: &spacemesh.Nonce{Counter: tx.Nonce},
		GasPrice: tx.GasPrice, MaxGas: gas, MaxSpend: tx.Amount, Raw: tx.Raw,
	}
	if tx.Method == vm.MethodSpawn {
		out.Template = b.accountID(tx.Template)
	}
	return out
}

func (b *backend) stored(tx store.Tx) *spacemesh.Transaction {
	return b.transaction(tx.Raw, tx.Result.Gas)
}

func (b *backend) activation(a store.ATXRecord) *spacemesh.Activation {
	return &spacemesh.Activation{
		Id: &spacemesh.ActivationId{Id: a.ID[:]}, Layer: layerNumber(b.Schedule.First(a.PublishEpoch)),
		SmesherId: &spacemesh.SmesherId{Id: a.Smesher[:]}, Coinbase: b.accountID(a.Coinbase), NumUnits: a.Units,
	}
}

func (b *backend) reward(w vm.Reward, l types.Layer, smesher types.NodeID) *spacemesh.Reward {
	return &spacemesh.Reward{
		Layer: layerNumber(l), Total: amount(w.Total), LayerReward: amount(w.Subsidy), LayerComputed: layerNumber(l),
		Coinbase: b.accountID(w.Coinbase), Smesher: &spacemesh.SmesherId{Id: smesher[:]},
	}
}

func receipt(r vm.Result) *spacemesh.TransactionReceipt {
	result := spacemesh.TransactionReceipt_TRANSACTION_RESULT_EXECUTED
	if r.Status == vm.Failure {
		result = spacemesh.TransactionReceipt_TRANSACTION_RESULT_RUNTIME_EXCEPTION
	}
	return &spacemesh.TransactionReceipt{
		Id: &spacemesh.TransactionId{Id: r.ID[:]}, Result: result, GasUsed: r.Gas, Fee: amount(r.Fee), Layer: layerNumber(r.Layer),
	}
}

// section is one kind of things in a paged list that has several kinds.
type section struct {
	count func() (int, error)
	read  func(offset, limit int) error
}

// paged reads one page across sections, and returns how much there is in all.
// A limit of zero is the largest page.
func paged(sections []section, offset, limit uint32) (total uint32, err error) {
	left := int(min(limit, store.MaxPage))
	if limit == 0 {
		left = store.MaxPage
	}
	skip := int(min(offset, 1<<31-1))
	for _, s := range sections {
		n, err := s.count()
		if err != nil {
			return 0, err
		}
		total += uint32(n)
		if skip >= n {
			skip -= n
			continue
		}
		take := min(left, n-skip)
		if take > 0 {
			if err := s.read(skip, take); err != nil {
				return 0, err
			}
		}
		left -= take
		skip = 0
	}
	return total, nil
}
