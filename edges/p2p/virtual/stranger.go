package virtual

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"time"

	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/quic-go/quic-go"

	"tweedle/edges/p2p"
)

// Stranger is a name without a host: it makes real handshakes, on a simulated network or on a real one, and
// says what it is told to.
type Stranger struct{ id *libp2ptls.Identity }

// NewStranger makes one with a name of its own.
func NewStranger() (*Stranger, error) {
	key, err := p2p.NewKey()
	if err != nil {
		return nil, err
	}
	id, err := libp2ptls.NewIdentity(key)
	return &Stranger{id}, err
}

// strangerTime bounds a handshake and what is said after it.
const strangerTime = 20 * time.Second

// Visit shakes hands with a host, says the words on a stream if there are any, and stays until it is sent
// away, at most for stay. It closes the socket. An error means that there was no handshake, and tells whether
// the host refused it or ctx ended.
func (s *Stranger) Visit(ctx context.Context, socket net.PacketConn, to net.Addr, host p2p.PeerID, words []byte, stay time.Duration) error {
	defer socket.Close()
	tr := &quic.Transport{Conn: socket}
	defer tr.Close()
	conf, _ := s.id.ConfigForPeer(host)
	short, cancel := context.WithTimeout(ctx, strangerTime)
	defer cancel()
	c, err := tr.Dial(short, to, conf, &quic.Config{Versions: []quic.Version{quic.Version1}, MaxIdleTimeout: time.Minute})
	if err != nil {
		return err
	}
	defer c.CloseWithError(0, "")
	if len(words) > 0 {
		stream, err := c.OpenStreamSync(short)
		if err != nil {
			return nil // it shook hands, and was sent away
		}
		_, err = stream.Write(words)
		if errors.Join(err, stream.Close()) != nil {
			return nil
		}
	}
	select {
	case <-c.Context().Done():
	case <-ctx.Done():
	case <-time.After(stay):
	}
	return nil
}

// Hello is what a host of a network says first.
func Hello(n p2p.NetworkID) []byte {
	b := binary.LittleEndian.AppendUint16([]byte("tweedle\n"), p2p.ProtocolVersion)
	b = append(b, n.GenesisID[:]...)
	return append(append(b, byte(len(n.Name))), n.Name...)
}
