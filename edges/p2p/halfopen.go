package p2p

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/quic-go/quic-go"
)

const (
	// MaxHalfOpen bounds the inbound connections that have not passed the hello, those in QUIC's handshake
	// included.
	MaxHalfOpen = 2 * MaxHellos
	// MaxHalfOpenPerBlock bounds those of one IPv4 /24 or IPv6 /48. Of one address there are no more than
	// Config.MaxConnsPerIP connections of any kind.
	MaxHalfOpenPerBlock = MaxHellos / 4
)

// halfOpen counts inbound connections from the packet that proved their address to the end of the hello.
type halfOpen struct {
	mu     sync.Mutex
	all    int
	blocks map[netip.Prefix]int
}

// enter takes a place, which ends with ctx or with leave, whichever comes first.
func (o *halfOpen) enter(ctx context.Context, block netip.Prefix) (leave func(), err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.all >= MaxHalfOpen:
		return nil, fmt.Errorf("%d connections are in their handshake", o.all)
	case block.IsValid() && o.blocks[block] >= MaxHalfOpenPerBlock:
		return nil, fmt.Errorf("%d connections of block %s are in their handshake", o.blocks[block], block)
	}
	o.all++
	if block.IsValid() {
		o.blocks[block]++
	}
	leave = sync.OnceFunc(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.all--
		if block.IsValid() {
			if o.blocks[block]--; o.blocks[block] == 0 {
				delete(o.blocks, block)
			}
		}
	})
	context.AfterFunc(ctx, leave)
	return leave, nil
}

func (o *halfOpen) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all
}

type halfOpenKey struct{}

// passed gives back the place of a connection that has passed the hello.
func passed(c transport.CapableConn) {
	var q *quic.Conn
	if !c.As(&q) {
		return
	}
	if leave, ok := q.Context().Value(halfOpenKey{}).(func()); ok {
		leave()
	}
}
