package node

import (
	"context"
	"errors"
	"slices"

	"tweedle/api"
	"tweedle/p2p"
	"tweedle/store"
	"tweedle/txpool"
	"tweedle/types"
	"tweedle/vm"
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
	return n.db.DropTransactions(evicted)
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
			_, _ = n.pool.Add(tx.Raw) // what cannot wait any more is passed over
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
