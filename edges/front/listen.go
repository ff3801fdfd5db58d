package front

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
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

// ListenLocal opens a listener that only this machine can reach: host:port of
// it, or unix:PATH, whose socket only the owner can use.
func ListenLocal(address string) (net.Listener, error) {
	if path, unix := strings.CutPrefix(address, UnixPrefix); unix {
		return listenUnix(path, func() error {
			c, err := net.Dial("unix", path)
			if err == nil {
				_ = c.Close() // it only asked
			}
			return err
		})
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

// listenUnix takes the place of a socket that a killed process left, and of
// nothing else: a socket that refuses has nobody behind it; a file, or a
// socket that we may not ask, is somebody's. ask tries to connect.
func listenUnix(path string, ask func() error) (net.Listener, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is not a socket, and is left as it is: choose another path", path)
	default:
		err := ask()
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
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close() // it was never used
		return nil, err
	}
	return l, nil
}

// limited returns a listener that closes connections over the limits at once:
// if they waited, those who hold the others could make every new client wait.
// every bounds the time of a single write; 0 leaves it to the server.
func (g *Guard) limited(l net.Listener, every time.Duration) net.Listener {
	return &listener{Listener: l, guard: g, every: every}
}

type listener struct {
	net.Listener
	guard *Guard
	every time.Duration
}

// Accept returns the next connection for which there is room.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: nc, every: l.every, replies: make(map[*reply]struct{})}
		c.large = func() { l.guard.Refuse(limitHeader, l.guard.who(c.ip, nil).String()) }
		if at, err := netip.ParseAddrPort(nc.RemoteAddr().String()); err == nil {
			c.ip = at.Addr()
		}
		who := l.guard.who(c.ip, nil)
		// A proxy's connections are those of all its clients.
		who.free = who.free || within(l.guard.options.Proxies, c.ip)
		switch l.guard.connections.take(who, 1) {
		case granted:
			c.release = sync.OnceFunc(func() { l.guard.connections.give(who, 1) })
			return c, nil
		case tooManyOfAddress:
			l.guard.Refuse(limitAddressConnections, who.String())
		default:
			l.guard.Refuse(limitConnections, who.String())
		}
		_ = nc.Close() // the client is told by that
	}
}

// conn is a connection that was let in. Its remote address leads back to it,
// so that a call finds the connection on which its reply goes.
type conn struct {
	net.Conn
	ip      netip.Addr    // invalid for a unix socket
	large   func()        // counts headers that are too large
	every   time.Duration // for one write; 0: no limit
	release func()

	mu      sync.Mutex // guards what follows
	replies map[*reply]struct{}
	closed  bool
}

type remote struct {
	net.Addr
	conn *conn
}

// RemoteAddr tells who is at the other end.
func (c *conn) RemoteAddr() net.Addr { return remote{c.Conn.RemoteAddr(), c} }

// Write ends the connection of a client that reads nothing at all.
func (c *conn) Write(b []byte) (int, error) {
	if c.every > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(c.every)); err != nil {
			return 0, err
		}
	}
	if bytes.HasPrefix(b, headersTooLarge) {
		c.large()
	}
	return c.Conn.Write(b)
}

// CloseWrite ends the answer of a request that was not read whole: net/http asks for it
// before it closes, since a socket that is closed with something unread takes its answer back.
func (c *conn) CloseWrite() error {
	if half, can := c.Conn.(interface{ CloseWrite() error }); can {
		return half.CloseWrite()
	}
	return nil // a unix socket of a test: Close follows
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
