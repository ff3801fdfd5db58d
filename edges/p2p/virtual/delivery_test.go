package virtual_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"tweedle/edges/p2p"
	"tweedle/edges/p2p/virtual"
)

// Messages of a kilobyte from all nodes in turn, over links of 50 ms and 100 Mbit a second: how long after it
// is published another node has one, in virtual time, and how many bytes the network sends for a byte that a
// node hears for the first time. Fifty nodes, each with sixteen peers or more, by night.
func TestDelivery(t *testing.T) {
	sizes := []int{hosts}
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		sizes = append(sizes, 50)
	}
	for _, n := range sizes {
		t.Run(fmt.Sprint(n, " nodes"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { delivery(t, n) })
		})
	}
}

func delivery(t *testing.T, n int) {
	const latency, size, messages = 50 * time.Millisecond, 1000, 60
	net := virtual.NewNetwork(latency)
	defer net.Close()
	var mu sync.Mutex
	var took []time.Duration
	hear := func(_ context.Context, msg string) p2p.Verdict {
		sent, _ := strconv.ParseInt(strings.Fields(msg)[0], 10, 64) // we wrote it
		mu.Lock()
		defer mu.Unlock()
		took = append(took, time.Since(time.Unix(0, sent)))
		return p2p.Accept()
	}
	nodes := []*node{startWith(t, config(t, net, 0), hear)}
	for i := 1; i < n; i++ {
		nodes = append(nodes, startWith(t, config(t, net, i, nodes[0].Addrs()...), hear))
	}
	defer stopAll(nodes)
	time.Sleep(2 * time.Minute)
	sent := func() (bytes uint64) {
		for _, node := range nodes {
			now, _, _ := node.Sessions()
			for _, s := range now {
				bytes += s.Out
			}
		}
		return bytes
	}
	quiet := sent()
	time.Sleep(messages * time.Second)
	before := sent()
	quiet = before - quiet
	for i := range messages {
		msg := fmt.Append(nil, time.Now().UnixNano(), " ", i, " ")
		if err := nodes[i%n].Publish(t.Context(), "t", append(msg, make([]byte, size-len(msg))...)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	spent := sent() - before
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(took)
	heard := messages * (n - 1)
	if len(took) != heard {
		t.Fatalf("%d messages are heard, want %d", len(took), heard)
	}
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	t.Logf("%d nodes: heard after %v (p50), %v (p99), %v at most; %.2f bytes sent for each heard, %.0f bytes a second of a node when all are silent",
		n, p50, p99, took[len(took)-1], float64(spent-min(quiet, spent))/float64(heard*size), float64(quiet)/messages/float64(n))
	// Two links, the second only where the publisher is no peer.
	if p50 > 2*latency || p99 > 4*latency {
		t.Error("messages take longer than the way of two and four links")
	}
}

// Handshakes that a host takes on loopback, with those who make them on the same processor: QUIC with its
// Retry, TLS, and the hello.
func BenchmarkHandshakes(b *testing.B) {
	key, err := p2p.NewKey()
	if err != nil {
		b.Fatal(err)
	}
	network := p2p.NetworkID{Name: "virtual"}
	h, err := p2p.New(p2p.Config{Network: network, Key: key, Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	<-h.Running()
	info, err := peer.AddrInfoFromString(h.Addrs()[0])
	if err != nil {
		b.Fatal(err)
	}
	port, err := info.Addrs[0].ValueForProtocol(273) // udp
	if err != nil {
		b.Fatal(err)
	}
	at, err := net.ResolveUDPAddr("udp4", "127.0.0.1:"+port)
	if err != nil {
		b.Fatal(err)
	}
	words := virtual.Hello(network)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			who, err := virtual.NewStranger()
			if err != nil {
				b.Error(err)
				return
			}
			socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				b.Error(err)
				return
			}
			if err := who.Visit(ctx, socket, at, h.ID(), words, 0); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "handshakes/s")
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}
