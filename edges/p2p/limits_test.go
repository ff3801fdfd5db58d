package p2p

import (
	"bytes"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	dto "github.com/prometheus/client_model/go"
	"pgregory.net/rapid"
)

// The admission's counts equal those of a naive list, at the smallest sizes and at the usual one.
func TestAdmissionAgainstAList(t *testing.T) {
	for _, size := range []struct{ workers, queue int }{{1, 0}, {1, 1}, {2, 128}} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				a := newAdmission(size.workers, size.queue, 0)
				total := size.workers + size.queue
				var inside []PeerID
				holds := func(p PeerID) (n int) {
					for _, q := range inside {
						if q == p {
							n++
						}
					}
					return n
				}
				t.Repeat(map[string]func(*rapid.T){
					"enter": func(t *rapid.T) {
						p := PeerID(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "peer"))
						want := len(inside) < total && holds(p) < max(1, total/2)
						if got := a.enter(p); got != want {
							t.Fatalf("enter %s with %d of %d inside: %v, want %v", p, len(inside), total, got, want)
						}
						if want {
							inside = append(inside, p)
						}
					},
					"leave": func(t *rapid.T) {
						if len(inside) == 0 {
							t.Skip("nobody inside")
						}
						i := rapid.IntRange(0, len(inside)-1).Draw(t, "who")
						a.leave(inside[i])
						inside = append(inside[:i], inside[i+1:]...)
					},
					"": func(t *rapid.T) {
						if a.taken() != len(inside) {
							t.Fatalf("taken %d, want %d", a.taken(), len(inside))
						}
						if len(inside) == 0 && len(a.held) != 0 {
							t.Fatalf("peers are remembered for nothing: %v", a.held)
						}
					},
				})
			})
		})
	}
}

// However many peers take all that they can, there is a place for one more.
func TestThereIsAPlaceForWhoHoldsNone(t *testing.T) {
	const places, share = 512, 32
	a := newAdmission(places-1, 1, share)
	a.reserve = gossipReserve
	for i := range DefaultMaxPeers {
		p := PeerID(fmt.Sprint("greedy", i))
		if !a.enter(p) {
			t.Fatalf("peer %d finds no place", i)
		}
		for a.enter(p) {
		}
	}
	if !a.enter("honest") {
		t.Fatalf("%d of %d places are taken, none is left", a.taken(), places)
	}
}

func TestQuotaRefillsAndForgets(t *testing.T) {
	q := newQuota(2, 3)
	now := bookStart
	take := func(p PeerID, n int) (got int) {
		for range n {
			if q.take(p, now) {
				got++
			}
		}
		return got
	}
	if got := take("a", 10); got != 3 {
		t.Errorf("burst of %d, want 3", got)
	}
	now = now.Add(time.Second)
	if got := take("a", 10); got != 2 {
		t.Errorf("%d after a second, want 2", got)
	}
	now = now.Add(time.Hour)
	if got := take("a", 10); got != 3 {
		t.Errorf("%d after an hour, want the burst", got)
	}
	for i := range maxBuckets + 10 {
		take(PeerID(fmt.Sprint(i)), 1)
	}
	if len(q.buckets) > maxBuckets {
		t.Errorf("%d buckets, limit %d", len(q.buckets), maxBuckets)
	}
	if q.take("newcomer", now) {
		t.Error("a newcomer was served while the table is full of peers that asked just now")
	}
	now = now.Add(time.Minute)
	if !q.take("newcomer", now) {
		t.Error("no room for a newcomer after all buckets have refilled")
	}
}

// Who got much waits until it is forgiven, whatever the number of requests.
func TestADebtIsPaidByWaiting(t *testing.T) {
	q := newQuota(1000, 5000)
	now := bookStart
	if !q.solvent("a", now) {
		t.Fatal("a newcomer is in debt")
	}
	q.charge("a", 9000, now)
	for _, step := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {3900 * time.Millisecond, false}, {4 * time.Second, true}} {
		if got := q.solvent("a", now.Add(step.after)); got != step.want {
			t.Errorf("after %v it may ask: %v", step.after, got)
		}
	}
	if !q.solvent("b", now) {
		t.Error("somebody else pays for it")
	}
}

func TestPenaltiesBanForgiveAndMakeRoom(t *testing.T) {
	ps := newPenalties(2)
	now := bookStart
	if ps.add("a", BanThreshold/2, now) || ps.banned("a", now) {
		t.Error("banned too early")
	}
	if !ps.add("a", BanThreshold/2, now) || !ps.banned("a", now) {
		t.Error("not banned at the threshold")
	}
	if ps.add("a", 1, now) {
		t.Error("told twice of one ban")
	}
	if ps.banned("a", now.Add(BanTime)) {
		t.Error("the ban does not end")
	}
	ps.add("b", 10, now)
	if got := ps.level("b", now.Add(PenaltyHalfLife)); got < 4.99 || got > 5.01 {
		t.Errorf("%v points after a half-life of 10", got)
	}
	ps.add("c", 5, now) // b has fewer than the banned a
	if len(ps.points) != 2 || !ps.banned("a", now) || ps.level("b", now) != 0 || ps.level("c", now) != 5 {
		t.Errorf("after eviction: %+v", ps.points)
	}
}

// What the resource manager blocks is counted, and named once a minute with the setting that allows more.
func TestLimitsOfAPeersConnectionsAreCountedAndNamed(t *testing.T) {
	var log bytes.Buffer
	cfg := loopbackConfig(t, "test")
	cfg.MaxMemory = MinMemory
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	h := newHost(t, cfg)
	rm := h.libp2p.Network().ResourceManager()
	_, p := bareTransport(t)

	conn, err := rm.OpenConnection(network.DirInbound, false, ma.StringCast("/ip4/127.0.0.1/udp/1/quic-v1"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Done()
	if err := conn.SetPeer(p); err != nil {
		t.Fatal(err)
	}
	if err := conn.ReserveMemory(MinMemory/8, network.ReservationPriorityAlways); err != nil {
		t.Errorf("a peer may have an eighth: %v", err)
	}
	for range 3 {
		if conn.ReserveMemory(1<<10, network.ReservationPriorityAlways) == nil {
			t.Error("a peer has more than an eighth")
		}
	}
	for i := range MaxStreamsPerPeer + 2 {
		s, err := rm.OpenStream(p, network.DirInbound)
		if (err == nil) != (i < MaxStreamsPerPeer) {
			t.Fatalf("stream %d: %v", i, err)
		}
		if err == nil {
			defer s.Done()
		}
	}
	for i := range MaxConnsPerPeer { // it has one
		c, err := rm.OpenConnection(network.DirInbound, false, ma.StringCast("/ip4/127.0.0.1/udp/1/quic-v1"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Done()
		if err := c.SetPeer(p); (err == nil) != (i < MaxConnsPerPeer-1) {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	for limit, want := range map[string]struct {
		times   float64
		setting string
	}{limitMemory: {3, "--max-peer-memory"}, limitStreams: {2, "--max-handshakes"}, limitConns: {1, "connections of one peer"}} {
		var counted dto.Metric
		if err := h.metrics.limited.WithLabelValues(limit).Write(&counted); err != nil {
			t.Fatal(err)
		}
		if n := counted.GetCounter().GetValue(); n != want.times {
			t.Errorf("%s is counted %v times, want %v", limit, n, want.times)
		}
		told := regexp.MustCompile("(?m)^.*limit="+limit+" .*$").FindAllString(log.String(), -1)
		if len(told) != 1 || !strings.Contains(told[0], want.setting) {
			t.Errorf("%s is told %q", limit, told)
		}
	}
}

// What strangers and peers take together is bounded, and so is what comes from one address or one owner of
// many: each limit is named, and who is told of it learns what allows more.
func TestWhatAllTakeTogetherIsBounded(t *testing.T) {
	const half, peers = 8, 4
	fresh := func() (*Host, network.ResourceManager) {
		cfg := loopbackConfig(t, "test")
		cfg.MinPeers, cfg.MinOutbound, cfg.MaxPeers, cfg.MaxHalfOpen, cfg.MaxMemory = 1, 1, peers, half, MinMemory
		h := newHost(t, cfg)
		return h, h.libp2p.Network().ResourceManager()
	}
	h, rm := fresh()
	// connect opens connections one after the other until one is refused, and returns how many there were and
	// why. Those that pass belong to a peer each, or end at once.
	connect := func(at string, pass, end bool) (n int, refused *errNoRoom) {
		t.Helper()
		for ; n < 1000; n++ {
			text := at
			if strings.Contains(at, "%") {
				text = fmt.Sprintf(at, n)
			}
			c, err := rm.OpenConnection(network.DirInbound, false, ma.StringCast(text+"/udp/1/quic-v1"))
			if err != nil {
				return n, h.namedLimit(err)
			}
			if pass {
				if err := c.SetPeer(PeerID(fmt.Sprint("peer ", n))); err != nil {
					t.Fatal(err)
				}
			}
			if end {
				c.Done()
			} else {
				t.Cleanup(c.Done)
			}
		}
		t.Fatalf("%s: a thousand are let in", at)
		return n, nil
	}
	for _, c := range []struct {
		what, at  string
		pass, end bool
		want      int
		reason    string
		setting   string
	}{
		{"strangers in all", "/ip4/5.0.%d.1", false, false, half, RefusedLimit, "--max-peers"},
		{"connections in all", "/ip4/5.0.%d.1", true, false, 2*peers + half/2, RefusedLimit, "--max-peers"},
		{"connections of an address", "/ip4/5.6.7.8", true, false, DefaultMaxConnsPerIP, RefusedAddress, "--peers-per-address"},
		{"one after the other of an address", "/ip4/5.6.7.8", true, true, 2 * DefaultMaxConnsPerIP, RefusedRate, "--peers-per-address"},
		{"connections of a /56", "/ip6/2a01:4f8:1:%x::1", true, false, DefaultMaxConnsPerIP, RefusedAddress, "--peers-per-address"},
		{"one after the other of a /56", "/ip6/2a01:4f8:1:%x::1", true, true, 2 * DefaultMaxConnsPerIP, RefusedRate, "--peers-per-address"},
		{"one after the other of a /48", "/ip6/2a01:4f8:1:%02x00::1", true, true, 16 * DefaultMaxConnsPerIP, RefusedRate, "--peers-per-address"},
	} {
		h, rm = fresh()
		n, refused := connect(c.at, c.pass, c.end)
		if n != c.want || refused.reason != c.reason || !strings.Contains(refused.text, c.setting) {
			t.Errorf("%s: %d, want %d; then %s: %s", c.what, n, c.want, refused.reason, refused.text)
		}
	}

	h, rm = fresh()
	memory := 0
	for i := range 2 * peers {
		c, err := rm.OpenConnection(network.DirInbound, false, ma.StringCast(fmt.Sprintf("/ip4/5.0.%d.1/udp/1/quic-v1", i)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Done)
		if err := c.SetPeer(PeerID(fmt.Sprint("peer ", i))); err != nil {
			t.Fatal(err)
		}
		for memory < 4*MinMemory && c.ReserveMemory(1<<20, network.ReservationPriorityAlways) == nil {
			memory += 1 << 20
		}
	}
	if memory != MinMemory {
		t.Errorf("%d peers have %d bytes, an eighth of %d each", 2*peers, memory, MinMemory)
	}
	c, err := rm.OpenConnection(network.DirInbound, false, ma.StringCast("/ip4/5.0.99.1/udp/1/quic-v1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Done)
	if err := c.SetPeer("late"); err != nil {
		t.Fatal(err)
	}
	if c.ReserveMemory(1<<10, network.ReservationPriorityAlways) == nil {
		t.Error("there is more memory than the limit")
	}

	_, rm = fresh()
	streams := func(said bool) (n int) {
		for p := range 2 * peers {
			for {
				s, err := rm.OpenStream(PeerID(fmt.Sprint("peer ", p)), network.DirInbound)
				if err != nil {
					break
				}
				t.Cleanup(s.Done)
				if said {
					if err := s.SetProtocol("/x"); err != nil {
						t.Fatal(err)
					}
				}
				n++
			}
		}
		return n
	}
	if n := streams(false); n != 2*half {
		t.Errorf("%d streams have not said what they are for, want %d", n, 2*half)
	}
	_, rm = fresh()
	if n := streams(true); n != peers*MaxStreamsPerPeer {
		t.Errorf("%d streams in all, want %d", n, peers*MaxStreamsPerPeer)
	}
}

// What a host does not remember of its peers is counted, by the limit that was met.
func TestWhatIsNotRememberedIsCounted(t *testing.T) {
	h := newHost(t, loopbackConfig(t, "test"))
	for i := range MaxBookPerSource + 2 {
		h.book.hear(someone(i), "liar", bookStart)
	}
	var counted dto.Metric
	if err := h.metrics.limited.WithLabelValues(limitBookSource).Write(&counted); err != nil {
		t.Fatal(err)
	}
	if n := counted.GetCounter().GetValue(); n != 2 {
		t.Errorf("%v are counted, want 2", n)
	}
}
