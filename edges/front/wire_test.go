package front

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// rude is a gRPC client that keeps to no limit that it is told.
type rude struct {
	t    *testing.T
	conn net.Conn
	*http2.Framer
	block bytes.Buffer
	pack  *hpack.Encoder
	next  uint32
}

func (d *door) rude() *rude {
	d.t.Helper()
	t := d.t.(*testing.T)
	conn, err := net.Dial("tcp", d.grpc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	r := &rude{t: t, conn: conn, Framer: http2.NewFramer(conn, conn), next: 1}
	r.pack = hpack.NewEncoder(&r.block)
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return r
}

// call sends the headers of a call, in frames of at most cut bytes, and no request.
func (r *rude) call(cut int, extra ...hpack.HeaderField) {
	r.t.Helper()
	r.block.Reset()
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: callMethod}, {Name: ":authority", Value: "x"},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, extra...) {
		if err := r.pack.WriteField(f); err != nil {
			r.t.Fatal(err)
		}
	}
	b := r.block.Bytes()
	n := min(cut, len(b))
	err := r.WriteHeaders(http2.HeadersFrameParam{StreamID: r.next, BlockFragment: b[:n], EndHeaders: n == len(b)})
	for b = b[n:]; err == nil && len(b) > 0; b = b[n:] {
		n = min(cut, len(b))
		err = r.WriteContinuation(r.next, n == len(b), b[:n])
	}
	if err != nil && !r.closed(err) {
		r.t.Fatal(err)
	}
	r.next += 2
}

func (r *rude) closed(err error) bool { return err != nil && !errors.Is(err, os.ErrDeadlineExceeded) }

// cancel takes the last call back.
func (r *rude) cancel() {
	if err := r.WriteRSTStream(r.last(), http2.ErrCodeCancel); err != nil {
		r.t.Fatal(err)
	}
}

// last is the name of the last call.
func (r *rude) last() uint32 { return r.next - 2 }

// ended waits for the end of a call, and returns its status, or the code with which it was cut
// off; nil if the connection ends.
func (r *rude) ended(call uint32) any {
	r.t.Helper()
	for {
		f, err := r.ReadFrame()
		if err == nil && f.Header().StreamID != call {
			continue
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			return f.ErrCode
		case *http2.MetaHeadersFrame:
			for _, field := range f.RegularFields() {
				if code, err := strconv.Atoi(field.Value); field.Name == "grpc-status" && err == nil {
					return codes.Code(code)
				}
			}
		}
		if r.closed(err) {
			return nil
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// Headers over gRPC are bounded as they are over REST, and are counted, in whichever way
// they are refused: with a status, by the end of the call, by that of the connection.
func TestHeadersOverGRPCThatAreTooLargeAreCounted(t *testing.T) {
	d := open(t, testLimits(), bytesOf(1))                 // 8 KiB
	with := func(letter string, n int) hpack.HeaderField { // Huffman's code of an "a" has 5 bits, of a "~" more than 8
		return hpack.HeaderField{Name: "x-long", Value: strings.Repeat(letter, n), Sensitive: true}
	}
	short := hpack.HeaderField{Name: "x-short", Value: strings.Repeat("y", 200)} // from the second on a byte
	want, r := 0., d.rude()
	for _, c := range []struct {
		what  string
		cut   int // bytes of a frame
		extra []hpack.HeaderField
		end   any // of the call, or nil of the connection
	}{
		{"7 KiB", 16 << 10, []hpack.HeaderField{with("a", 7<<10)}, nil},
		{"9 KiB", 16 << 10, []hpack.HeaderField{with("~", 9<<10)}, codes.ResourceExhausted},
		{"9 KiB in pieces", 1000, []hpack.HeaderField{with("~", 9<<10)}, codes.ResourceExhausted},
		{"9 KiB, packed", 16 << 10, []hpack.HeaderField{with("a", 9<<10)}, codes.ResourceExhausted},
		{"many, packed", 16 << 10, slices.Repeat([]hpack.HeaderField{short}, 50), codes.ResourceExhausted},
		{"more, packed", 16 << 10, slices.Repeat([]hpack.HeaderField{short}, 100), http2.ErrCodeFrameSize},
		{"a long one of 14 KiB", 16 << 10, []hpack.HeaderField{with("~", 7<<10), with("~", 7<<10)}, codes.ResourceExhausted},
		{"two long ones", 18 << 10, []hpack.HeaderField{with("a", 9<<10), with("a", 9<<10)}, http2.ErrCodeFrameSize},
		{"17 KiB, packed", 16 << 10, []hpack.HeaderField{with("a", 17<<10)}, nil},
		{"40 KiB", 16 << 10, []hpack.HeaderField{with("~", 40<<10)}, nil},
	} {
		r.call(c.cut, c.extra...)
		if c.what == "7 KiB" { // they are taken
			r.cancel()
		} else if end := r.ended(r.last()); end != c.end {
			t.Fatalf("%s end with %v, want %v", c.what, end, c.end)
		} else {
			want++
		}
		d.until(c.what+" are counted", func() bool { return d.refused(limitHeader) == want })
		if c.end == nil && c.what != "7 KiB" {
			r = d.rude()
		}
	}
	if n := d.refused(limitHeader); n != want || d.log.count("limit=max-header last=127.0.0.1/32") != 1 {
		t.Errorf("%v headers are counted, want %v: %s", n, want, d.log.all.String())
	}
}

// A client that has more calls on a connection than it was told it may loses those, and
// they are counted. One that keeps to it waits by itself: there is nothing to count.
func TestCallsOverTheLimitOfAConnectionAreCounted(t *testing.T) {
	l := testLimits()
	l.Streams = 4
	s := bytesOf(1)
	free := make(chan struct{})
	s.call = func(context.Context, []byte) (any, error) { <-free; return wrapperspb.Bytes(nil), nil }
	d := open(t, l, s)
	r := d.rude()
	for range 6 {
		r.call(16 << 10)
	}
	for _, call := range []uint32{r.last() - 2, r.last()} {
		if end := r.ended(call); end != http2.ErrCodeRefusedStream {
			t.Fatalf("the call ends with %v", end)
		}
	}
	if n := d.refused(limitStreams); n != 2 || d.log.count("limit=max-streams last=127.0.0.1/32") != 1 {
		t.Errorf("%v calls are counted, want 2: %s", n, d.log.all.String())
	}
	_ = r.conn.Close()
	d.until("the calls are given back", func() bool { return d.held(d.guard.calls) == 0 })

	c := d.dial()
	ended := make(chan error, 6)
	for range cap(ended) {
		go func() { _, err := ask(short(t), c); ended <- err }()
	}
	d.until("as many run as may", func() bool { return d.held(d.guard.calls) == 4 })
	close(free)
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if n := d.refused(limitStreams); n != 2 {
		t.Errorf("%v calls are counted, want 2", n)
	}
}

// Who connects and does not say in time what it wants is cut off and counted; a connection
// that waits for its next request is not.
func TestHeadersThatDoNotComeAreCounted(t *testing.T) {
	l := testLimits()
	l.Handshake, l.Idle = 200*time.Millisecond, 500*time.Millisecond
	d := open(t, l, bytesOf(1), func(o *Options) { o.Door = "test" })
	rest, ok := strings.TrimPrefix(d.rest, "http://"), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	want := 0.
	for i, c := range []struct {
		what, address, text string
		counted             float64
	}{
		{"nothing over REST", rest, "", 1},
		{"half a request", rest, "GET / HTTP/1.1\r\nHo", 1},
		{"a whole one and nothing", rest, ok, 0},
		{"a whole one and half of the next", rest, ok + "GET / HTTP/1.1\r\nHo", 1},
		{"what is no request", rest, "hello\r\n\r\n", 0},
		{"nothing over gRPC", d.grpc, "", 1},
		{"half a greeting", d.grpc, http2.ClientPreface[:10], 1},
		{"a greeting and nothing", d.grpc, http2.ClientPreface, 1},
	} {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(conn, c.text); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%s: the connection is still open", c.what)
		}
		_ = conn.Close()
		want += c.counted
		d.until("the connection has ended", func() bool { return d.held(d.guard.connections) == 0 })
		if i == 3 { // a next one that begins later, and slowly
			if conn, err = net.Dial("tcp", rest); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(conn, ok); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 4<<10)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHo"); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, conn) // until it is closed
			_ = conn.Close()
			want++
		}
		d.until(c.what+" is told", func() bool { return d.refused("test-handshake-time") == want })
	}
	if d.log.count("limit=test-handshake-time last=127.0.0.1/32") != 1 {
		t.Errorf("the log does not name the limit: %s", d.log.all.String())
	}
}

// Frames are seen alike however the bytes are cut.
func TestFramesAreSeenHoweverTheyAreCut(t *testing.T) {
	var all bytes.Buffer
	f := http2.NewFramer(&all, nil)
	for id := uint32(1); id < 200; id += 2 {
		for _, err := range []error{
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: make([]byte, id)}),
			f.WriteContinuation(id, true, make([]byte, 3*id)),
			f.WriteData(id, false, bytes.Repeat([]byte{0, 0, 4, frameReset}, int(id))), // looks like frames
			f.WriteRSTStream(id, http2.ErrCode(id%9)),
			f.WritePing(false, [8]byte{}),
			f.WriteSettings(),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, longest := range []int{1, 2, 13, 100, all.Len()} {
		var w wire
		var saw strings.Builder
		for b := all.Bytes(); len(b) > 0; {
			n := min(1+random.IntN(longest), len(b))
			w.pass(b[:n], func(f frame) {
				if f.kind == frameHeaders || f.kind == frameContinuation || f.kind == frameReset {
					saw.WriteString(strconv.Itoa(int(f.kind)) + "/" + strconv.Itoa(f.size) + "/" + strconv.Itoa(int(f.code)) + " ")
				}
			})
			b = b[n:]
		}
		var want strings.Builder
		for id := 1; id < 200; id += 2 {
			want.WriteString("1/" + strconv.Itoa(id) + "/0 9/" + strconv.Itoa(3*id) + "/0 3/4/" + strconv.Itoa(id%9) + " ")
		}
		if saw.String() != want.String() || w.have != 0 || w.skip != 0 {
			t.Fatalf("cut in pieces of at most %d bytes it is %s", longest, saw.String())
		}
	}
}
