package p2p

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
)

const (
	// MaxExchange bounds the peers of one answer.
	MaxExchange = 32

	exchangeProtocol = "/tweedle/peers/1"
	maxPeerBytes     = 64  // of a peer id
	maxAddrBytes     = 256 // of a multiaddr
	maxExchangeBytes = 1 + MaxExchange*(1+maxPeerBytes+2+maxAddrBytes)
)

// encodePeers writes the first MaxExchange peers, each with its first address:
//
//	count uint8 | count x ( length uint8 | peer id | length uint16 LE | binary multiaddr )
func encodePeers(infos []peer.AddrInfo) []byte {
	b := []byte{0}
	for _, info := range infos {
		if b[0] == MaxExchange {
			break
		}
		if len(info.Addrs) == 0 {
			continue
		}
		addr := info.Addrs[0].Bytes()
		if len(info.ID) > maxPeerBytes || len(addr) > maxAddrBytes {
			continue
		}
		b[0]++
		b = append(b, byte(len(info.ID)))
		b = append(b, info.ID...)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(addr)))
		b = append(b, addr...)
	}
	return b
}

var errPeerList = errors.New("peer list is malformed")

// decodePeers accepts what encodePeers writes and nothing else, and only addresses that are QUIC.
func decodePeers(b []byte) ([]peer.AddrInfo, error) {
	if len(b) == 0 || b[0] > MaxExchange {
		return nil, errPeerList
	}
	count := int(b[0])
	b = b[1:]
	take := func(n int) []byte {
		if n > len(b) {
			return nil
		}
		var part []byte
		part, b = b[:n:n], b[n:]
		return part
	}
	infos := make([]peer.AddrInfo, 0, count)
	for range count {
		n := take(1)
		if n == nil || n[0] == 0 || n[0] > maxPeerBytes {
			return nil, errPeerList
		}
		id := take(int(n[0]))
		n = take(2)
		if id == nil || n == nil {
			return nil, errPeerList
		}
		size := int(binary.LittleEndian.Uint16(n))
		raw := take(size)
		if raw == nil || size == 0 || size > maxAddrBytes {
			return nil, errPeerList
		}
		if _, err := multihash.Cast(id); err != nil {
			return nil, errPeerList
		}
		addr, err := ma.NewMultiaddrBytes(raw)
		if err != nil || !isQUIC(addr) || string(addr.Bytes()) != string(raw) {
			return nil, errPeerList
		}
		infos = append(infos, peer.AddrInfo{ID: PeerID(id), Addrs: []ma.Multiaddr{addr}})
	}
	if len(b) != 0 {
		return nil, errPeerList
	}
	return infos, nil
}

// servePeers answers with peers that we met.
func (h *Host) servePeers(_ context.Context, from PeerID, req []byte) ([]byte, error) {
	if len(req) != 0 {
		return nil, errors.New("request must be empty")
	}
	return encodePeers(h.book.known(MaxExchange, from, h.seenPrivate(from), time.Now())), nil
}

// askPeers asks one peer for others. Addresses of a private network are believed only from inside one.
func (h *Host) askPeers(ctx context.Context, p PeerID) error {
	answer, err := h.Request(ctx, p, exchangeProtocol, nil)
	if err != nil {
		return err
	}
	infos, err := decodePeers(answer)
	if err != nil {
		h.Penalise(p, 20, err.Error())
		return err
	}
	private := h.seenPrivate(p)
	for _, info := range infos {
		if private || !isPrivate(info.Addrs[0]) {
			h.book.hear(info, p, time.Now())
		}
	}
	return nil
}

// seenPrivate reports whether the peer is connected from an address of a private network.
func (h *Host) seenPrivate(p PeerID) bool {
	for _, c := range h.libp2p.Network().ConnsToPeer(p) {
		if isPrivate(c.RemoteMultiaddr()) {
			return true
		}
	}
	return false
}
