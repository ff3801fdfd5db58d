package node

import (
	"context"
	"runtime"
	"sync"

	"tweedle/protocol/core"
)

// pool bounds the checks of signatures and proofs that run at the same time, in
// all and for each peer: who sends much waits for itself.
type pool struct {
	slots chan struct{}
	share int

	mu    sync.Mutex
	peers map[core.Peer]*line // those who run or wait
}

// line is the checks of one peer.
type line struct {
	slots chan struct{}
	users int
}

func newPool() *pool {
	size := max(2, runtime.GOMAXPROCS(0))
	return &pool{slots: make(chan struct{}, size), share: size / 2, peers: make(map[core.Peer]*line)}
}

// enter waits for a turn; false if ctx ended first.
func (p *pool) enter(ctx context.Context, peer core.Peer) (leave func(), ok bool) {
	p.mu.Lock()
	l := p.peers[peer]
	if l == nil {
		l = &line{slots: make(chan struct{}, p.share)}
		p.peers[peer] = l
	}
	l.users++
	p.mu.Unlock()
	done := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(p.peers, peer)
		}
	}
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		done()
		return nil, false
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		<-l.slots
		done()
		return nil, false
	}
	return func() {
		<-p.slots
		<-l.slots
		done()
	}, true
}
