package door

import (
	"net"
	"net/netip"
	"sync"
)

// limitConns bounds the open connections of a listener, and of each client on
// it. More wait in the kernel's queue; a client's surplus is hung up on.
func limitConns(l net.Listener, limit int) net.Listener {
	return &limitedListener{
		Listener: l, slots: make(chan struct{}, limit), closed: make(chan struct{}), perClient: map[netip.Prefix]int{},
	}
}

// maxConnsPerClient bounds the connections of one IPv4 address or IPv6 /64.
const maxConnsPerClient = 64

type limitedListener struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}

	mu        sync.Mutex
	perClient map[netip.Prefix]int // open connections; no entry for none
}

// Accept waits for a connection and for room for it.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			<-l.slots
			return nil, err
		}
		key, limited := client(c.RemoteAddr())
		if limited && !l.enter(key) {
			_ = c.Close() // it has enough others
			continue
		}
		return &limitedConn{Conn: c, release: sync.OnceFunc(func() {
			if limited {
				l.leave(key)
			}
			<-l.slots
		})}, nil
	}
}

func (l *limitedListener) enter(key netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.perClient[key] >= maxConnsPerClient {
		return false
	}
	l.perClient[key]++
	return true
}

func (l *limitedListener) leave(key netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.perClient[key]--; l.perClient[key] == 0 {
		delete(l.perClient, key)
	}
}

// Close ends a waiting Accept too.
func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	release func()
}

// Close makes room for another connection.
func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
