package sim

import (
	"fmt"

	"tweedle/protocol/core"
	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// client is somebody at the API of nodes. Its account has money from genesis on.
//
//	junk       sends what cannot be read, is signed by others, or cannot be paid
//	conflicts  sends two transactions with one nonce, to two nodes
//	replays    sends what was applied once more, to another node
type client struct {
	w     *world
	name  string
	kind  string
	key   *signing.Signer
	turn  uint64
	sent  []types.Transaction
	pairs [][2]types.TransactionID
}

func clientKinds() []string { return []string{"junk", "conflicts", "replays"} }

func clientSeed(i int) string { return fmt.Sprint("client ", i) }

// layer is what the client does in a layer.
func (c *client) layer() {
	up := c.w.honest()
	a, b := up[c.w.rng.IntN(len(up))], up[c.w.rng.IntN(len(up))]
	if !a.up || !b.up {
		return
	}
	c.turn++
	account := a.m.Snapshot().State.Account(vm.WalletAddress(c.key.NodeID()))
	if !account.Spawned() {
		c.call(a, vm.Spawn(c.key, 0, 1))
		return
	}
	to, nonce := types.Address{22: 1, 23: byte(c.turn)}, account.NextNonce
	switch c.kind {
	case "junk":
		c.call(a, []byte{1, 2, 3})
		forged := vm.Spend(c.key, to, 1, nonce, 1)
		forged[len(forged)-1]++
		c.call(a, forged)
		c.call(a, vm.Spend(c.key, to, 1<<62, nonce, 1)) // it can pay the fee
		poor, err := signing.NewSigner(signing.SeedFrom(fmt.Sprint(c.name, c.turn)), c.w.cfg.Activation.Network)
		if err != nil {
			panic(err)
		}
		c.call(a, vm.Spawn(poor, 0, 1))
	case "conflicts":
		x, y := vm.Spend(c.key, to, 1+c.turn, nonce, 1), vm.Spend(c.key, to, 1000+c.turn, nonce, 1)
		c.pairs = append(c.pairs, [2]types.TransactionID{x.ID(), y.ID()})
		c.call(a, x)
		c.call(b, y)
	case "replays":
		tx := vm.Spend(c.key, to, 1+c.turn, nonce, 1)
		c.call(a, tx)
		for _, old := range c.sent[max(0, len(c.sent)-3):] {
			c.call(b, old)
		}
		c.sent = append(c.sent, tx)
	}
}

// call gives a node a transaction, as its API does.
func (c *client) call(n *node, raw types.Transaction) {
	m, err := c.w.message(core.TopicTx, raw).check(n.crypto)
	if err != nil {
		c.w.logf(n, "tells %s: %v", c.name, err)
		return
	}
	n.token++
	n.tokens[n.token] = heardMessage{c.w.message(core.TopicTx, raw), nil, c}
	n.step(core.Heard{From: core.Self, Token: n.token, Message: m})
}

// spent fails if both of two conflicting transactions were applied. That one is
// applied twice, every store refuses.
func (w *world) spent() {
	for _, c := range w.clients {
		for _, p := range c.pairs {
			for _, n := range w.honest() {
				if n.store.txs[p[0]] != nil && n.store.txs[p[1]] != nil {
					w.violated(n, "applied both %s and %s, which have one nonce", p[0].Short(), p[1].Short())
				}
			}
		}
	}
}
