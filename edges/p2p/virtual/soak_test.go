package virtual_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/edges/p2p/virtual"
)

// Ten nodes of which one loses its links each half hour for some minutes, and one each day is killed and
// started anew: after the first tenth of the time neither memory nor goroutines grow, and what is said once all
// are back is heard by all.
func TestASoakOfChurn(t *testing.T) {
	length, seed := 2*time.Hour/shrink, uint64(1)
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		length = 30 * 24 * time.Hour
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // what is measured is what is alive
	random := rand.New(rand.NewPCG(seed, 0))
	synctest.Test(t, func(t *testing.T) {
		net := virtual.NewNetwork(50 * time.Millisecond)
		defer net.Close()
		var boot []string
		calm := func(i int) *node {
			cfg := config(t, net, i, boot...)
			// What virtual time costs: beats, and dialing for more peers than there are.
			cfg.Heartbeat, cfg.MinPeers, cfg.MinOutbound = 10*time.Second, hosts-2, 2
			return startWith(t, cfg, accept)
		}
		nodes := []*node{calm(0)}
		boot = nodes[0].Addrs()
		for i := 1; i < hosts; i++ {
			nodes = append(nodes, calm(i))
		}
		defer func() { stopAll(nodes) }()
		time.Sleep(time.Minute)
		begin, restarts, days := time.Now(), 0, 0
		var warm, most float64
		var warmGoroutines, mostGoroutines int
		for k := 0; time.Since(begin) < length; k++ {
			i := random.IntN(hosts)
			if k%48 == 47 && i > 0 {
				nodes[i].stop()
				time.Sleep(time.Minute)
				nodes[i] = calm(i)
				restarts++
			}
			var others []netip.Addr
			for j := range hosts {
				if j != i {
					others = append(others, virtual.IP(j))
				}
			}
			net.Partition([]netip.Addr{virtual.IP(i)}, others)
			time.Sleep(time.Duration(1+random.IntN(4)) * time.Minute)
			net.HealAll()
			time.Sleep(25 * time.Minute / shrink)
			msg := fmt.Sprint("after churn ", k)
			if err := nodes[k%hosts].Publish(t.Context(), "t", []byte(msg)); err != nil {
				t.Errorf("message %d: %v", k, err)
			}
			time.Sleep(5 * time.Second)
			for j, n := range nodes {
				if j != k%hosts && n.hears(msg) != 1 {
					t.Errorf("%v: node %d heard message %d %d times", time.Since(begin), j, k, n.hears(msg))
				}
				n.mu.Lock()
				clear(n.heard) // the test's own memory is not what is measured
				n.mu.Unlock()
			}
			// The simulator keeps two goroutines and some memory for each end of a link that there ever was.
			goroutines, used := runtime.NumGoroutine()-2*restarts, heap()
			if time.Since(begin) < max(length/10, time.Hour/shrink) {
				warm, warmGoroutines = max(warm, used), max(warmGoroutines, goroutines)
			}
			most, mostGoroutines = max(most, used), max(mostGoroutines, goroutines)
			if day := int(time.Since(begin) / (24 * time.Hour)); day > days {
				days = day
				t.Logf("%d of %.0f days: heap %.1f MiB, %d goroutines", day, length.Hours()/24, used, goroutines)
			}
		}
		t.Logf("%v, %d restarts: heap %.1f MiB after warm-up and %.1f at most; %d goroutines and %d at most", length, restarts, warm, most, warmGoroutines, mostGoroutines)
		if most > warm+4 || mostGoroutines > warmGoroutines+32 {
			t.Error("it grows")
		}
	})
}
