package doortest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Attacker is a client at one address that keeps to nothing that it is told, and reads nothing. What
// it opens it holds until it leaves.
type Attacker struct {
	From string // its address

	mu    sync.Mutex
	conns []net.Conn
}

// writing is how long an attacker tries to write: a server that does not read any more has won.
const writing = 5 * time.Second

// Dial opens a connection.
func (a *Attacker) Dial(to string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(a.From)}, Timeout: writing}
	c, err := d.Dial("tcp", to)
	if err != nil {
		return nil, err
	}
	// A small buffer, so that the server's bytes stay the server's.
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	_ = c.SetWriteDeadline(time.Now().Add(writing))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns = append(a.conns, c)
	return c, nil
}

// Leave closes all that it has.
func (a *Attacker) Leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.conns {
		_ = c.Close()
	}
	a.conns = nil
}

// Say writes the text on a new connection and reports whether all of it was taken.
func (a *Attacker) Say(to, text string) bool {
	c, err := a.Dial(to)
	if err == nil {
		_, err = io.WriteString(c, text)
	}
	return err == nil
}

// Streams opens n gRPC calls on a new connection, with the window that the answers have, each with a
// message if there is one: framed, as on the wire. It returns how many it could write.
func (a *Attacker) Streams(to string, n int, method string, window uint32, framed []byte) (written int) {
	return a.streams(to, n, method, window, framed, false)
}

func (a *Attacker) streams(to string, n int, method string, window uint32, framed []byte, reset bool) (written int) {
	c, err := a.Dial(to)
	if err != nil {
		return 0
	}
	w := bufio.NewWriterSize(c, 64<<10)
	_, _ = io.WriteString(w, http2.ClientPreface) // Flush tells the error
	f := http2.NewFramer(w, nil)
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	var block bytes.Buffer
	h := hpack.NewEncoder(&block)
	for i := range n {
		block.Reset()
		for _, field := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "x"},
			{"content-type", "application/grpc"}, {"te", "trailers"}} {
			_ = h.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
		}
		id := uint32(2*i + 1)
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true})
		for part := framed; err == nil && len(part) > 0; {
			k := min(len(part), 16<<10)
			err = f.WriteData(id, k == len(part), part[:k])
			part = part[k:]
		}
		if err == nil && reset {
			err = f.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		if err == nil {
			err = w.Flush()
		}
		if err != nil {
			return i
		}
	}
	return n
}

// Target is a listener to attack.
type Target struct {
	Name, Address string
	HTTP          bool
	// Call is a gRPC method and Framed a message for it; Stream is one that never ends. Of an HTTP
	// listener Call is a path to GET, or to POST Body to, for a large answer, and Stream one to POST to.
	Call, Stream, Body string
	Framed             []byte
}

// Frame puts the header of a gRPC message before it.
func Frame(message []byte) []byte {
	n := len(message)
	return append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, message...)
}

// Attack is one kind of them; Run returns when all is said, and holds it until the attacker leaves.
type Attack struct {
	Name string
	Run  func(*Attacker, Target)
}

// many does something n times, until the server does not let it in any more for long.
func many(n int, do func() bool) {
	begin := time.Now()
	for range n {
		if !do() && time.Since(begin) > writing {
			return
		}
	}
}

// Attacks returns all that are tried on a target.
func Attacks(t Target) []Attack {
	list := []Attack{{"1,000 connections", func(a *Attacker, t Target) {
		many(1000, func() bool { _, err := a.Dial(t.Address); return err == nil })
	}}}
	if t.HTTP {
		return append(list, httpAttacks()...)
	}
	return append(list, grpcAttacks()...)
}

func grpcAttacks() []Attack {
	streams := func(conns, n int, window uint32, of func(Target) (method string, framed []byte)) func(*Attacker, Target) {
		return func(a *Attacker, t Target) {
			method, framed := of(t)
			many(conns, func() bool { return a.Streams(t.Address, n, method, window, framed) > 0 })
		}
	}
	return []Attack{
		{"slow writers", func(a *Attacker, t Target) {
			many(64, func() bool { return a.Say(t.Address, http2.ClientPreface+"\x00") })
			many(64, func() bool { return a.Say(t.Address, "PRI * HT") })
		}},
		{"slow readers", streams(1000, 2, 0, func(t Target) (string, []byte) { return t.Call, t.Framed })},
		{"never-ending streams", streams(64, 32, 0, func(t Target) (string, []byte) { return t.Stream, Frame(nil) })},
		{"16,384 empty streams", streams(64, 256, 1<<16, func(t Target) (string, []byte) { return t.Call, nil })},
		{"oversized messages", streams(32, 4, 1<<16, func(t Target) (string, []byte) {
			return t.Call, append([]byte{0, 0xff, 0xff, 0xff, 0xff}, make([]byte, 1<<20)...)
		})},
		{"deeply nested messages", streams(32, 16, 1<<16, func(t Target) (string, []byte) {
			var nested []byte
			for range 5000 { // field 1, again and again
				n := len(nested)
				nested = append([]byte{0x0a, byte(n) | 0x80, byte(n>>7) | 0x80, byte(n >> 14)}, nested...)
			}
			return t.Call, Frame(nested)
		})},
		{"streams that are taken back", func(a *Attacker, t Target) {
			many(16, func() bool { return a.streams(t.Address, 1000, t.Call, 1<<16, nil, true) > 0 })
		}},
	}
}

func httpAttacks() []Attack {
	say := func(n int, text func(Target) string) func(*Attacker, Target) {
		return func(a *Attacker, t Target) {
			words := text(t)
			many(n, func() bool { return a.Say(t.Address, words) })
		}
	}
	get := func(t Target) string {
		if t.Body != "" {
			return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", t.Call, len(t.Body), t.Body)
		}
		return strings.Repeat(fmt.Sprintf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", t.Call), 8)
	}
	post := func(t Target, headers, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%s", t.Stream, headers, body)
	}
	withLength := func(t Target, body string) string { return post(t, fmt.Sprintf("Content-Length: %d", len(body)), body) }
	return []Attack{
		{"slow writers", say(128, func(t Target) string { return "GET / HTTP/1.1\r\nX: " })},
		{"slow bodies", say(128, func(t Target) string { return post(t, "Content-Length: 1000", "{") })},
		{"slow readers", say(1000, func(t Target) string { return strings.Repeat(get(t), 3) })},
		{"never-ending streams", say(200, func(t Target) string { return withLength(t, "{}") })},
		{"16,384 empty requests", say(64, func(t Target) string { return strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 256) })},
		{"oversized bodies", say(32, func(t Target) string { return post(t, "Content-Length: 9999999999999", strings.Repeat("x", 2<<20)) })},
		{"endless chunks", say(32, func(t Target) string {
			return post(t, "Transfer-Encoding: chunked", "7fffffff\r\n"+strings.Repeat("x", 2<<20))
		})},
		{"oversized headers", say(32, func(t Target) string { return "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 2<<20) })},
		{"deeply nested bodies", say(64, func(t Target) string {
			return withLength(t, strings.Repeat("[", 8000)) + withLength(t, strings.Repeat(`{"a":`, 3000)) + withLength(t, strings.Repeat("[", 200_000))
		})},
	}
}
