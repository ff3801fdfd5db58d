package front

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// reply is an encoded message on its way to a client. Its bytes count until
// they are written, or the connection ends; a client that does not take them
// in time loses the connection.
type reply struct {
	data []byte
	sent func() // once
}

// Get implements mem.BufferPool; nothing is taken from a reply.
func (*reply) Get(n int) *[]byte { panic(fmt.Sprintf("front: %d bytes are asked of a reply", n)) }

// Put is called by grpc when nobody holds the bytes any more.
func (r *reply) Put(*[]byte) { r.sent() }

// tracked is the least capacity of bytes whose end grpc tells.
const tracked = 1<<10 + 128

// Shared is a reply that is encoded once for all who ask for it. Its bytes
// count once, however many calls they are under way in, and once for each address.
type Shared struct {
	data []byte

	mu    sync.Mutex
	users int
	from  map[client]int
}

// NewShared keeps the bytes, which must not be changed any more.
func NewShared(data []byte) *Shared {
	if cap(data) < tracked {
		data = append(make([]byte, 0, tracked), data...)
	}
	return &Shared{data: data, from: make(map[client]int)}
}

// Bytes returns the encoded reply, which must not be changed.
func (s *Shared) Bytes() []byte { return s.data }

// take counts the bytes for their first user, and for the first one of an address:
// else who asks for one after another and reads none would keep the others out.
func (s *Shared) take(g *Guard, who client) taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from[who] == 0 {
		if t := g.shared.take(who, len(s.data)); t != granted {
			return t
		}
	}
	if s.users == 0 {
		if t := g.replies.take(client{free: true}, len(s.data)); t != granted {
			if s.from[who] == 0 {
				g.shared.give(who, len(s.data))
			}
			return t
		}
	}
	s.users++
	s.from[who]++
	return granted
}

func (s *Shared) give(g *Guard, who client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from[who]--; s.from[who] == 0 {
		delete(s.from, who)
		g.shared.give(who, len(s.data))
	}
	if s.users--; s.users == 0 {
		g.replies.give(client{free: true}, len(s.data))
	}
}

// hold takes the bytes of a reply for a client. An error is a status.
func (g *Guard) hold(who client, s *Shared, n int) (give func(), err error) {
	t := granted
	if s != nil {
		t = s.take(g, who)
		give = func() { s.give(g, who) }
	} else {
		t = g.replies.take(who, n)
		give = func() { g.replies.give(who, n) }
	}
	switch t {
	case tooManyOfAddress:
		g.Refuse(limitAddressReplies, who.String())
		return nil, status.Error(codes.ResourceExhausted, "too many bytes wait for this address: read the answers that it asked for")
	case tooMany:
		g.Refuse(limitReplies, who.String())
		return nil, status.Error(codes.ResourceExhausted, "too many answers are being sent: try later")
	}
	return give, nil
}

// reply encodes a message for the client of a call and counts its bytes.
func (g *Guard) reply(ctx context.Context, m any) (any, error) {
	call, conn := callOf(ctx)
	if call == nil || conn == nil {
		return m, nil // served past our own listener, by a test
	}
	r := &reply{}
	var give func()
	var err error
	switch m := m.(type) {
	case *Shared:
		r.data = m.data
		give, err = g.hold(call.from, m, 0)
	case proto.Message:
		n := proto.Size(m)
		if give, err = g.hold(call.from, nil, n); err != nil {
			break
		}
		if r.data, err = (proto.MarshalOptions{}).MarshalAppend(make([]byte, 0, max(n, tracked)), m); err != nil {
			give()
		}
	default:
		err = status.Errorf(codes.Internal, "%T is not a reply", m)
	}
	if err != nil {
		return nil, err
	}
	late := time.AfterFunc(g.limits.sending(len(r.data)), func() {
		g.Refuse(limitSend, call.from.String())
		_ = conn.Close() // grpc notices
	})
	r.sent = sync.OnceFunc(func() {
		late.Stop()
		give()
		conn.forget(r)
	})
	if !conn.remember(r) {
		r.sent()
		return nil, status.Error(codes.Unavailable, "the connection has ended")
	}
	return r, nil
}

// remember keeps a reply until it is sent; false if the connection has ended.
func (c *conn) remember(r *reply) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.replies[r] = struct{}{}
	}
	return !c.closed
}

func (c *conn) forget(r *reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.replies, r)
}

// codec is grpc's own, but for replies that are encoded already.
type codec struct{}

// Name implements encoding.CodecV2.
func (codec) Name() string { return grpcproto.Name }

// Marshal implements encoding.CodecV2.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *reply:
		return mem.BufferSlice{mem.NewBuffer(&v.data, v)}, nil
	case *Shared:
		return mem.BufferSlice{mem.SliceBuffer(v.data)}, nil
	}
	return encoding.GetCodecV2(grpcproto.Name).Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	return encoding.GetCodecV2(grpcproto.Name).Unmarshal(data, v)
}
