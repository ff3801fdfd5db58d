package p2p

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/quic-go/quic-go"
)

// halfOpen counts inbound connections from the packet that proved their address to the end of the hello.
// An eighth of the limit may be of one block.
type halfOpen struct {
	limit  int
	mu     sync.Mutex
	all    int
	blocks map[netip.Prefix]int
}

// enter takes a place, which ends with ctx or with leave, whichever comes first. The error is the limit's.
func (o *halfOpen) enter(ctx context.Context, block netip.Prefix) (leave func(), err *errNoRoom) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.all >= o.limit:
		return nil, &errNoRoom{RefusedOpening, fmt.Sprintf("%d connections are in their handshake: raise --max-handshakes if they are honest", o.all)}
	case block.IsValid() && o.blocks[block] >= o.limit/8:
		return nil, &errNoRoom{RefusedBlock, fmt.Sprintf("%d connections of block %s are in their handshake: raise --max-handshakes if they are all yours", o.blocks[block], block)}
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
