package p2p

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// someone returns a made-up peer; the same i gives the same one.
func someone(i int) peer.AddrInfo {
	id := PeerID(fmt.Sprintf("\x00\x24\x08\x01\x12\x20%032d", i)) // an ed25519 key, by its form
	return peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{ma.StringCast(fmt.Sprintf("/ip4/5.%d.%d.1/udp/7513/quic-v1", i>>8&255, i&255))}}
}

func TestPeerListSurvivesTheWire(t *testing.T) {
	for _, n := range []int{0, 1, 2, MaxExchange, MaxExchange + 1} {
		var infos []peer.AddrInfo
		for i := range n {
			infos = append(infos, someone(i))
		}
		b := encodePeers(infos)
		if len(b) > maxExchangeBytes {
			t.Errorf("%d peers take %d bytes, limit %d", n, len(b), maxExchangeBytes)
		}
		got, err := decodePeers(b)
		if err != nil {
			t.Fatalf("%d peers: %v", n, err)
		}
		if want := infos[:min(n, MaxExchange)]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d peers:\n got %v\nwant %v", n, got, want)
		}
	}
}

func TestBadPeerListsAreRefused(t *testing.T) {
	good := string(encodePeers([]peer.AddrInfo{someone(1)}))
	raw := func(addr string) string {
		info := someone(1)
		info.Addrs = []ma.Multiaddr{ma.StringCast(addr)}
		return string(encodePeers([]peer.AddrInfo{info}))
	}
	for name, b := range map[string]string{
		"empty":         "",
		"too many":      string(rune(MaxExchange+1)) + strings.Repeat(good[1:], MaxExchange+1),
		"count too big": "\x02" + good[1:],
		"trailing byte": good + "x",
		"truncated":     good[:len(good)-1],
		"no id":         "\x01\x00" + good[2+38:],
		"id no hash":    good[:2] + "\xff" + good[3:],
		"tcp":           raw("/ip4/1.2.3.4/tcp/5"),
		"udp only":      raw("/ip4/1.2.3.4/udp/5"),
		"relayed":       raw("/ip4/1.2.3.4/udp/5/quic-v1/p2p-circuit"),
	} {
		if infos, err := decodePeers([]byte(b)); err == nil {
			t.Errorf("%s: decoded as %v", name, infos)
		}
	}
	if !strings.Contains(fmt.Sprint(decodePeers([]byte(good))), "7513") {
		t.Error("the good one is refused too")
	}
}

func FuzzDecodePeers(f *testing.F) {
	f.Add([]byte{0})
	f.Add(encodePeers([]peer.AddrInfo{someone(1)}))
	f.Add(encodePeers([]peer.AddrInfo{someone(1), someone(2)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		infos, err := decodePeers(b)
		if err != nil {
			return
		}
		if again := encodePeers(infos); !bytes.Equal(again, b) {
			t.Fatalf("decoded %x, encoded %x", b, again)
		}
	})
}
