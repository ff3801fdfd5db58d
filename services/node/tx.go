package node

import (
	"context"
	"errors"
	"slices"

	"tweedle/edges/api"
	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/protocol/txpool"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// errTxSize is what a peer gets that sends too large a transaction.
var errTxSize = errors.New("transaction is too large")

// storeTx keeps a transaction that a proposal offers, valid or not: executing
// the block says what becomes of it.
func (n *Node) storeTx(raw types.Transaction) error {
	var addresses []types.Address
	if tx, err := vm.Parse(raw); err == nil {
		addresses = tx.Addresses()
	}
	_, err := n.db.AddTransaction(raw, addresses, n.now())
	return err
}

// SubmitTransaction takes a transaction from a user, lets it wait for a block,
// and gossips it. The error says why it is refused, and wraps a reason of
// package vm or txpool.
func (n *Node) SubmitTransaction(ctx context.Context, raw types.Transaction) error {
	reply := make(chan error, 1)
	if err := n.ask(ctx, inputTx{raw, reply}, reply); err != nil {
		return err
	}
	n.send(topicTx, raw)
	return nil
}

// onTx judges a gossiped transaction. Only what is wrong in every state costs
// its sender.
func (n *Node) onTx(ctx context.Context, _ p2p.PeerID, msg []byte) p2p.Verdict {
	raw := slices.Clone(msg)
	if _, err := vm.Parse(raw); err != nil {
		return p2p.Reject(err.Error())
	}
	reply := make(chan error, 1)
	err := n.ask(ctx, inputTx{raw, reply}, reply)
	switch {
	case err == nil:
		return p2p.Accept()
	case errors.Is(err, vm.ErrSignature):
		return p2p.Reject(err.Error())
	}
	return p2p.Ignore(err.Error())
}

// addTx lets a transaction wait.
func (n *Node) addTx(raw types.Transaction) error {
	evicted, err := n.pool.Add(raw)
	if err != nil {
		return err
	}
	if err := n.storeTx(raw); err != nil {
		return err
	}
	n.waiting.Store(int64(n.pool.Len()))
	n.events.Publish(api.Accepted{Raw: raw})
	n.drop(evicted...)
	return n.forgetDropped()
}

// reloadTxs lets the transactions that waited when we stopped wait again.
func (n *Node) reloadTxs() error {
	limits := txpool.DefaultLimits()
	for offset := 0; offset < limits.Transactions; offset += store.MaxPage {
		txs, err := n.db.PendingTransactions(offset, store.MaxPage)
		if err != nil {
			return err
		}
		for _, tx := range txs {
			if _, err := n.pool.Add(tx.Raw); err != nil {
				n.drop(tx.ID)
			}
		}
		if len(txs) < store.MaxPage {
			break
		}
	}
	n.waiting.Store(int64(n.pool.Len()))
	return nil
}

// projected is an account as it will be when its waiting transactions are
// executed; the balance is in smidges.
type projected struct{ nonce, balance uint64 }

// Projected implements api.Node.
func (n *Node) Projected(ctx context.Context, a types.Address) (nextNonce, balance uint64, err error) {
	reply := make(chan projected, 1)
	if !n.input(ctx, inputProjected{a, reply}) {
		return 0, 0, ctx.Err()
	}
	select {
	case p := <-reply:
		return p.nonce, p.balance, nil
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
}

// keepDropped is for how many layers a transaction stays in the store after it
// left the pool: until then a proposal or a block that names it may come.
const keepDropped = 4

// maxDropped bounds the transactions that are kept so; of more, the oldest are
// forgotten early.
const maxDropped = 100_000

// droppedTx is a transaction that left the pool, or never was there.
type droppedTx struct {
	layer types.Layer // in which it did
	id    types.TransactionID
}

// drop has transactions forgotten when no block can need them any more. If we
// stop before, the next start finds that they cannot wait.
func (n *Node) drop(ids ...types.TransactionID) {
	for _, id := range ids {
		n.dropped = append(n.dropped, droppedTx{n.layer, id})
	}
}

// forgetDropped forgets the transactions whose time has come, but for those
// that wait again or are named by an open proposal. Those that were applied
// stay too: the store sees to that.
func (n *Node) forgetDropped() error {
	due := func(d droppedTx) bool { return d.layer+keepDropped < n.layer || len(n.dropped) > maxDropped }
	if len(n.dropped) == 0 || !due(n.dropped[0]) {
		return nil
	}
	named := make(map[types.TransactionID]bool)
	for _, proposals := range n.proposals {
		for _, p := range proposals {
			for _, id := range p.txs {
				named[id] = true
			}
		}
	}
	var ids []types.TransactionID
	for range len(n.dropped) {
		d := n.dropped[0]
		if !due(d) {
			break
		}
		n.dropped = n.dropped[1:]
		_, waits := n.pool.Get(d.id)
		switch {
		case waits:
		case named[d.id]:
			n.drop(d.id)
		default:
			ids = append(ids, d.id)
		}
	}
	return n.db.DropTransactions(ids)
}
