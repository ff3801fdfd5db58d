package front

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// UnixPrefix marks the path of a unix socket.
const UnixPrefix = "unix:"

// Loopback returns an address whose host is this machine's own if it has none.
func Loopback(address string) string {
	if host, port, err := net.SplitHostPort(address); err == nil && host == "" {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

// Address tells where a listener is reached, as clients dial it; "" for none.
func Address(l net.Listener) string {
	switch {
	case l == nil:
		return ""
	case l.Addr().Network() == "unix":
		return UnixPrefix + l.Addr().String()
	}
	return l.Addr().String()
}

// Listen opens a TCP listener; an address without host means every interface.
// The error is one line that says what to do.
func Listen(address string) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("address %q is not host:port: %w", address, err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, listenError(address, err)
	}
	return l, nil
}

func listenError(address string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("address %s is in use by another process: stop it, or choose another port", address)
	}
	var cause *os.SyscallError
	if errors.As(err, &cause) {
		err = cause.Err
	}
	return fmt.Errorf("cannot listen on %s: %w", address, err)
}

// ListenPublic is Listen for a door that may stand behind a proxy on this machine:
// address may be unix:PATH too, whose socket the owner and the group can use.
func ListenPublic(address string) (net.Listener, error) {
	if path, unix := strings.CutPrefix(address, UnixPrefix); unix {
		return listenUnix(path, 0o660, dialUnix)
	}
	return Listen(address)
}

// ListenLocal opens a listener that only this machine can reach: host:port of
// it, or unix:PATH, whose socket only the owner can use.
func ListenLocal(address string) (net.Listener, error) {
	if path, unix := strings.CutPrefix(address, UnixPrefix); unix {
		return listenUnix(path, 0o600, dialUnix)
	}
	at, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("address %q is not host:port: %w", address, err)
	}
	if !at.IP.IsLoopback() {
		return nil, fmt.Errorf("%s could be reached from outside: use 127.0.0.1 or %sPATH, and a tunnel", address, UnixPrefix)
	}
	l, err := net.ListenTCP("tcp", at)
	if err != nil {
		return nil, listenError(address, err)
	}
	return l, nil
}

// dialUnix tells whether somebody listens on a socket.
func dialUnix(path string) error {
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close() // it only asked
	}
	return err
}

// maxSocketPath is what the kernel takes, in bytes.
const maxSocketPath = 107

// listenUnix takes the place of a socket that a killed process left, and of
// nothing else: a socket that refuses has nobody behind it; a file, or a
// socket that we may not ask, is somebody's. ask tries to connect.
func listenUnix(path string, mode fs.FileMode, ask func(path string) error) (net.Listener, error) {
	if path == "" || len(path) > maxSocketPath {
		return nil, fmt.Errorf("the path of a socket has 1 to %d bytes, and that of %s%s has %d: choose another", maxSocketPath, UnixPrefix, path, len(path))
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is not a socket, and is left as it is: choose another path", path)
	default:
		err := ask(path)
		if err == nil {
			return nil, fmt.Errorf("another process listens on %s", path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("the socket %s may be another process's, and is left as it is: %w", path, err)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, listenError(UnixPrefix+path, err)
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = l.Close() // it was never used
		return nil, err
	}
	return l, nil
}

// limited returns a listener that closes connections over the limits at once:
// if they waited, those who hold the others could make every new client wait.
// A connection of gRPC has a time for each single write; REST sets its own.
func (g *Guard) limited(l net.Listener, grpc bool) net.Listener {
	out := &listener{Listener: l, guard: g, grpc: grpc}
	if c := g.options.Certificate; c != nil && l.Addr().Network() != "unix" {
		out.tls = c.over("http/1.1")
		if grpc {
			out.tls = c.over("h2")
		}
	}
	return out
}

type listener struct {
	net.Listener
	guard *Guard
	grpc  bool
	tls   *tls.Config // nil: plain text
}

// Accept returns the next connection for which there is room.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: nc, guard: l.guard, grpc: l.grpc, in: wire{skip: preface}, replies: make(map[*reply]struct{})}
		if at, err := netip.ParseAddrPort(nc.RemoteAddr().String()); err == nil {
			c.ip = at.Addr()
		}
		if l.admit(c) {
			return c, nil
		}
		_ = nc.Close() // the client is told by that
	}
}

// admit takes a connection if there is room.
func (l *listener) admit(c *conn) bool {
	g := l.guard
	who := g.who(c.ip, nil)
	// A proxy's connections are those of all its clients.
	who.free = who.free || within(g.options.Proxies, c.ip)
	switch g.connections.take(who, 1) {
	case tooManyOfAddress:
		g.Refuse(limitAddressConnections, who.String())
		return false
	case tooMany:
		g.Refuse(limitConnections, who.String())
		return false
	}
	c.release = sync.OnceFunc(func() { g.connections.give(who, 1) })
	if l.tls != nil {
		// Its handshake is the dearest thing that a client can ask for without
		// a request, so it counts as one.
		if !g.allow(who) {
			c.release()
			return false
		}
		c.Conn = tls.Server(c.Conn, l.tls) // shakes hands with the first Read or Write
	}
	return true
}

// conn is a connection that was let in. Its remote address leads back to it,
// so that a call finds the connection on which its reply goes.
type conn struct {
	net.Conn
	guard   *Guard
	grpc    bool
	ip      netip.Addr // invalid for a unix socket
	release func()

	in, out wire         // of gRPC
	block   int          // bytes of the headers that come over gRPC
	late    atomic.Bool  // what was last waited for did not come in time
	waits   atomic.Int32 // times that REST set for reading since its last answer

	mu      sync.Mutex // guards what follows
	told    int        // headers that were counted when they came, and are not refused yet
	replies map[*reply]struct{}
	closed  bool
}

// refuse counts a limit that the connection met.
func (c *conn) refuse(limit string) { c.guard.Refuse(limit, c.guard.who(c.ip, nil).String()) }

type remote struct {
	net.Addr
	conn *conn
}

// RemoteAddr tells who is at the other end.
func (c *conn) RemoteAddr() net.Addr { return remote{c.Conn.RemoteAddr(), c} }

// Read counts a client that does not say in time what it wants.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.late.Store(errors.Is(err, os.ErrDeadlineExceeded))
	if c.grpc {
		if c.late.Load() { // grpc has a deadline until the first frame has come, and none after it
			c.refuse(limitHandshake)
		}
		c.in.pass(b[:n], c.heard)
	}
	return n, err
}

// forHeaders is how many times for reading net/http sets until it waits for the headers
// of a request: one until the request begins, one from there. A new connection is told as
// one that has begun.
const forHeaders = 2

// SetReadDeadline sets the time until which something must have come.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.waits.Add(1)
	return c.Conn.SetReadDeadline(t)
}

// reached tells that a request came to a handler: it has its headers.
func (c *conn) reached() { c.waits.Store(math.MinInt32) }

// state follows a connection of REST: net/http tells nobody that headers did not come.
func (c *conn) state(s http.ConnState) {
	switch s {
	case http.StateNew:
		c.waits.Store(forHeaders)
	case http.StateIdle:
		c.waits.Store(0)
	case http.StateClosed:
		if c.waits.Load() >= forHeaders && c.late.Load() {
			c.refuse(limitHandshake)
		}
	}
}

// Write ends the connection of a client that reads nothing at all.
func (c *conn) Write(b []byte) (int, error) {
	if !c.grpc {
		if bytes.HasPrefix(b, headersTooLarge) {
			c.refuse(limitHeader)
		}
		return c.Conn.Write(b)
	}
	if err := c.SetWriteDeadline(time.Now().Add(c.guard.limits.Send)); err != nil {
		return 0, err
	}
	c.out.pass(b, c.said)
	return c.Conn.Write(b)
}

// CloseWrite ends the answer of a request that was not read whole: net/http asks for it
// before it closes, since a socket that is closed with something unread takes its answer back.
func (c *conn) CloseWrite() error {
	if half, can := c.Conn.(interface{ CloseWrite() error }); can {
		return half.CloseWrite()
	}
	return nil // a pipe of a test: Close follows
}

// headersTooLarge begins what net/http answers to a request whose headers are too large.
// It tells no handler of it: that it is written is all there is to see.
var headersTooLarge = []byte("HTTP/1.1 431 Request Header Fields Too Large\r\n")

// Close gives back what the connection held, and what its replies held: a
// transport that ends does not free those that it never began to send.
func (c *conn) Close() error {
	c.release()
	c.mu.Lock()
	c.closed = true
	left := make([]*reply, 0, len(c.replies))
	for r := range c.replies {
		left = append(left, r)
	}
	c.mu.Unlock()
	for _, r := range left {
		r.sent()
	}
	return c.Conn.Close()
}
