package p2p

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
)

// BenchmarkValidation is what a host does for a message beside its handler: its name, the limits of its
// topic and peer, counting. What the handler costs, protocol/core and sim measure.
func BenchmarkValidation(b *testing.B) {
	for _, size := range []int{100, 10_000, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			key, err := NewKey()
			if err != nil {
				b.Fatal(err)
			}
			h, err := New(Config{Network: NetworkID{Name: "bench"}, Key: key, Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}})
			if err != nil {
				b.Fatal(err)
			}
			defer h.Close()
			h.Register(Topic{Name: "t", MaxSize: MaxMessageSize}, func(context.Context, PeerID, []byte) Verdict { return Accept() })
			validate := (&gossip{host: h, copies: copies{open: make(map[string]*unjudged)}}).validator(h.topics["t"])
			topic, data := "t", make([]byte, size)
			m := &pubsub.Message{Message: &pb.Message{Data: data, Topic: &topic}}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := uint64(0); b.Loop(); i++ {
				binary.LittleEndian.PutUint64(data, i)
				id := messageID(topic, data)
				m.ID = string(id[:])
				if validate(b.Context(), "peer", m) != pubsub.ValidationAccept {
					b.Fatal("it is not accepted")
				}
			}
		})
	}
}
