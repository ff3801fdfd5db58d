package api

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Limits bound what clients can take of the node.
type Limits struct {
	Connections        int     // of each listener
	AddressConnections int     // of each listener from one address
	Rate               float64 // requests a second from one address
	Burst              int     // requests at once from one address
	Addresses          int     // whose rates are remembered; the oldest is forgotten
	Streams            uint32  // requests at the same time on one gRPC connection
	Message            int     // bytes of a gRPC request
	Header             uint32  // bytes of all headers of a request
	Body               int64   // bytes of a JSON request
	Transactions       int     // in an answer of several layers

	Handshake time.Duration // for a connection to become usable
	Read      time.Duration // of a JSON request
	Request   time.Duration // for an answer that is not a stream
	Idle      time.Duration // of a connection without requests
	Ping      time.Duration // least time between a client's keepalives
}

// DefaultLimits suit a node with one user or a few hundred.
func DefaultLimits() Limits {
	return Limits{
		Connections: 1024, AddressConnections: 256, Rate: 500, Burst: 1000, Addresses: 4096,
		Streams: 100, Message: 512 << 10, Header: 16 << 10, Body: 256 << 10, Transactions: 10_000,
		Handshake: 5 * time.Second, Read: 10 * time.Second, Request: 10 * time.Second,
		Idle: 15 * time.Minute, Ping: 10 * time.Second,
	}
}

// network returns what is limited as one address: an IPv4 address, or the part
// of an IPv6 address that its owner got.
func network(a net.Addr) string {
	var text string
	if a != nil {
		text = a.String()
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		return text
	}
	ip := ap.Addr().Unmap()
	if ip.Is6() {
		p, _ := ip.WithZone("").Prefix(64)
		return p.String()
	}
	return ip.String()
}

// limitListener closes connections over the limit at once, so that those who
// hold the others cannot make new clients wait.
func limitListener(l net.Listener, limits Limits) net.Listener {
	return &limitedListener{Listener: l, limits: limits, perAddress: make(map[string]int)}
}

type limitedListener struct {
	net.Listener
	limits Limits

	mu         sync.Mutex // guards what follows
	open       int
	perAddress map[string]int // only addresses with open connections
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := network(c.RemoteAddr())
		if l.take(from) {
			return &limitedConn{Conn: c, release: func() { l.release(from) }}, nil
		}
		_ = c.Close()
	}
}

func (l *limitedListener) take(from string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.limits.Connections || l.perAddress[from] >= l.limits.AddressConnections {
		return false
	}
	l.open++
	l.perAddress[from]++
	return true
}

func (l *limitedListener) release(from string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.perAddress[from]--; l.perAddress[from] == 0 {
		delete(l.perAddress, from)
	}
}

type limitedConn struct {
	net.Conn
	closed  atomic.Bool
	release func()
}

func (c *limitedConn) Close() error {
	if !c.closed.Swap(true) {
		c.release()
	}
	return c.Conn.Close()
}

// guard limits requests, whichever way they come.
type guard struct {
	limits Limits

	mu       sync.Mutex // guards what follows
	limiters map[string]*limiter
}

type limiter struct {
	*rate.Limiter
	used time.Time
}

func newGuard(l Limits) *guard { return &guard{limits: l, limiters: make(map[string]*limiter)} }

// allow takes one request of an address.
func (g *guard) allow(from string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.limiters[from]
	if l == nil {
		if len(g.limiters) >= g.limits.Addresses {
			g.forgetOldest()
		}
		l = &limiter{Limiter: rate.NewLimiter(rate.Limit(g.limits.Rate), g.limits.Burst)}
		g.limiters[from] = l
	}
	l.used = now
	return l.AllowN(now, 1)
}

func (g *guard) forgetOldest() {
	var oldest string
	for from, l := range g.limiters {
		if oldest == "" || l.used.Before(g.limiters[oldest].used) {
			oldest = from
		}
	}
	delete(g.limiters, oldest)
}

const tooMany = "too many requests from this address: send fewer a second"

func (g *guard) check(ctx context.Context) error {
	from := ""
	if p, ok := peer.FromContext(ctx); ok {
		from = network(p.Addr)
	}
	if !g.allow(from, time.Now()) {
		return status.Error(codes.ResourceExhausted, tooMany)
	}
	return nil
}

func (g *guard) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := g.check(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, g.limits.Request)
	defer cancel()
	return handle(ctx, req)
}

func (g *guard) stream(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := g.check(s.Context()); err != nil {
		return err
	}
	return handle(srv, s)
}
