package node

import (
	"bytes"
	"context"
	"errors"
	"time"

	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/protocol/core"
	"tweedle/protocol/hare"
	"tweedle/protocol/syncer"
	"tweedle/values/types"
)

// Protocols of requests.
const (
	protocolAsk  = "/tweedle/ask/3"  // what package core asks
	protocolPoet = "/tweedle/poet/1" // hands over a PoET proof, for an acknowledgement
)

// requestsPerPeer is how many requests of a peer are served a second.
const requestsPerPeer = 50

// Places of a topic. A message holds one while it is checked and while its
// verdict is waited for, which is a moment; those that miss something leave it
// when patience ends and go on in the machine, which has its own limits for each
// peer. All are worked on at once: who waits in vain is in nobody's way.
const (
	topicWorkers = 512
	topicQueue   = 1
	topicShare   = 32 // of one peer
)

// patience is how long a gossip message that was checked holds its place for a
// verdict. An ATX is waited for longer: checking its proofs of space takes long.
// A busy machine's check takes what it takes, within p2p.DefaultTopicTimeout:
// gossip brings a message once, so who gives it up has lost it.
func (n *Node) patience(t core.Topic) time.Duration {
	if t == core.TopicATX {
		return min(n.params.LayerDuration, p2p.DefaultTopicTimeout)
	}
	return min(n.params.LayerDuration/8, time.Second)
}

// register tells the host which topics and requests we serve.
func (n *Node) register() {
	for _, t := range core.Topics() {
		n.host.Register(p2p.Topic{
			Name: t.Name(), MaxSize: t.MaxSize(), Workers: topicWorkers, Queue: topicQueue, Share: topicShare, Timeout: p2p.DefaultTopicTimeout, OwnTurn: true,
		}, n.onGossip(t))
	}
	limits := func(request, response int) p2p.Limits {
		return p2p.Limits{
			MaxRequest: request, MaxResponse: response, Timeout: n.askTimeout(), Rate: requestsPerPeer, Burst: 4 * requestsPerPeer,
		}
	}
	n.host.Handle(protocolAsk, limits(core.MaxRequest, core.MaxAnswer), n.serveAsk)
	n.host.Handle(protocolPoet, limits(core.MaxPoetSize, 16), n.servePoet)
}

// onGossip checks and judges the messages of a topic.
func (n *Node) onGossip(t core.Topic) p2p.Handler {
	return func(ctx context.Context, from p2p.PeerID, raw []byte) p2p.Verdict {
		m, err := n.check(ctx, core.Peer(from), t, raw)
		if err != nil {
			var refused *core.RefusedError
			if errors.As(err, &refused) {
				return p2p.Reject(err.Error())
			}
			return p2p.Unseen("busy")
		}
		v, ok := n.driver.heard(ctx, n.patience(t), core.Peer(from), t, m)
		switch {
		case !ok:
			return p2p.Ignore("it waits for what it refers to")
		case v.Class == core.Accept:
			n.counted(t, core.Peer(from))
			return p2p.Accept()
		case v.Class == core.Reject:
			n.log.Warn("refused "+t.String(), "from", from, "err", v.Reason)
			return p2p.Reject(v.Reason)
		case errors.Is(v.Err, hare.ErrKnown): // somebody's answer brought it first
			n.counted(t, core.Peer(from))
		}
		return p2p.Ignore(v.Reason)
	}
}

// counted says that a message of a peer is accepted, at once or when what it waited for was there.
func (n *Node) counted(t core.Topic, from core.Peer) {
	n.log.Debug("counted", "topic", t, "from", p2p.PeerID(from))
}

var errTurn = errors.New("it is checked for another peer that brought it")

// check runs core.Check in the pool.
func (n *Node) check(ctx context.Context, from core.Peer, t core.Topic, raw []byte) (core.Message, error) {
	leave, ok := n.driver.checks.enter(ctx, from)
	if !ok {
		return nil, ctx.Err()
	}
	defer leave()
	if !p2p.Begin(ctx) {
		return nil, errTurn
	}
	return core.Check(n.crypto, t, bytes.Clone(raw))
}

// library is what we serve to peers.
type library struct {
	store.Core
	n *Node
}

// Open implements core.Library.
func (l library) Open() []types.Certificate { return look(l.n.driver, (*core.Machine).Open) }

// Now implements core.Library.
func (l library) Now() time.Time { return l.n.now() }

// Object implements core.Library. Transactions are stored when they are applied.
func (l library) Object(name syncer.Name) ([]byte, error) {
	if name.Kind == syncer.Transaction {
		raw := look(l.n.driver, func(m *core.Machine) types.Transaction { return m.Transaction(name.ID) })
		if raw != nil {
			return raw, nil
		}
	}
	return l.Core.Object(name)
}

// serveAsk answers a peer's request.
func (n *Node) serveAsk(_ context.Context, _ p2p.PeerID, req []byte) ([]byte, error) {
	raw, err := core.Serve(library{store.Core{Reader: n.db.Reader}, n}, req)
	if err != nil && !errors.Is(err, core.ErrMalformed) {
		if !store.Fatal(err) { // else it ends the node, which says so
			n.log.Error("store", "err", err)
		}
		return nil, errors.New("cannot read it now")
	}
	return raw, err
}
