package node

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/protocol/activation"
	"tweedle/protocol/core"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// gate is the node's Crypto, whose checks of space wait until they are let through.
type gate struct {
	core.Crypto
	open    chan struct{}
	mu      sync.Mutex
	batches [][]types.ATXID // in the order in which they began
}

func (g *gate) VerifySpace(claims []*activation.Claim) []error {
	var ids []types.ATXID
	for _, c := range claims {
		ids = append(ids, c.Info.ID)
	}
	g.mu.Lock()
	g.batches = append(g.batches, ids)
	g.mu.Unlock()
	<-g.open
	return g.Crypto.VerifySpace(claims)
}

func (g *gate) begun() [][]types.ATXID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.batches)
}

// ATXs that wait while others are checked are checked at once, and each has its own verdict.
// Meanwhile there are turns for the messages of peers.
func TestATXsThatWaitAreCheckedAtOnceAndJudgedEachForItself(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // a turn of our own, and one of a peer
	bad := copied(t, proofsOf(t).miners[2].atx)
	bad.VRFNonce += 7
	for i := range bad.NIPosts[0].Posts[0].Post.Indices {
		bad.NIPosts[0].Posts[0].Post.Indices[i] ^= byte(i + 1)
	}
	proofsOf(t).miners[2].sign(bad)
	w := openWorld(t)
	g := &gate{Crypto: w.crypto, open: make(chan struct{})}
	open := sync.OnceFunc(func() { close(g.open) })
	t.Cleanup(open)
	w.crypto = g
	w.driver.spaces.lanes = 1000
	if got := w.says(t, core.TopicPoet, codec.Encode(&w.poet)); got != "accept" {
		t.Fatal(got)
	}
	verdicts := make(map[string]chan string)
	publish := func(name string, a *types.ATX) {
		verdict := make(chan string, 1)
		verdicts[name] = verdict
		ctx := soon(t)
		go func() { verdict <- w.onGossip(core.TopicATX)(ctx, peer, codec.Encode(a)).String() }()
	}
	publish("first", w.miners[0].atx)
	until(t, func() bool { return len(g.begun()) == 1 })
	publish("second", w.miners[1].atx)
	publish("false", bad)
	publish("fourth", w.miners[3].atx)
	until(t, func() bool {
		w.driver.spaces.mu.Lock()
		defer w.driver.spaces.mu.Unlock()
		return len(w.driver.spaces.waiting) == 3
	})
	// A check of space holds its turn all this time.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := w.check(ctx, core.Peer(peer), core.TopicATX, codec.Encode(w.second)); err != nil {
		t.Errorf("a peer's message has no turn while spaces are checked: %v", err)
	}
	open()
	for name, want := range map[string]string{"first": "accept", "second": "accept", "false": "reject", "fourth": "accept"} {
		if got := <-verdicts[name]; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if b := g.begun(); len(b) < 2 || len(b[0]) != 1 || len(b[1]) != 3 {
		t.Errorf("checked at once: %v, want one and then the three that waited", b)
	}
}

func until(t *testing.T, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come to it")
		}
	}
}

// Whatever waits is taken once and in its order, and no more at once than fills the lanes:
// the first of a batch waits for the last.
func TestABatchFillsTheLanesAndNoMore(t *testing.T) {
	for _, test := range []struct{ lanes, labels, want int }{
		{1, 1, 1}, {1, 37, 1}, {12, 1, 12}, {40, 1, 40}, {40, 37, 2}, {40, 39, 2}, {40, 40, 1}, {40, 75, 1}, {40, 3, 14},
	} {
		s := spaces{lanes: test.lanes, labels: func(core.CheckSpace) int { return test.labels }}
		var put, taken []*activation.Claim
		for range 100 {
			c := &activation.Claim{}
			put = append(put, c)
			s.put(core.CheckSpace{Claim: c})
		}
		for {
			some := s.take()
			if len(some) == 0 {
				break
			}
			if left := len(put) - len(taken); len(some) != min(test.want, left) {
				t.Errorf("%d lanes, %d labels each: %d at once, want %d", test.lanes, test.labels, len(some), test.want)
			}
			for _, w := range some {
				taken = append(taken, w.Claim)
			}
		}
		if !slices.Equal(put, taken) {
			t.Errorf("%d lanes, %d labels each: %d taken of %d, or in another order", test.lanes, test.labels, len(taken), len(put))
		}
		if s.waiting != nil {
			t.Error("what was checked is not forgotten")
		}
	}
}

// slow is Crypto of which a batch takes a time that depends on nothing but that it is one.
type slow struct {
	core.Crypto
	batches []int
	mu      sync.Mutex
}

func (s *slow) VerifySpace(claims []*activation.Claim) []error {
	s.mu.Lock()
	if len(claims) > 0 {
		s.batches = append(s.batches, len(claims))
	}
	s.mu.Unlock()
	if len(claims) > 0 {
		time.Sleep(20 * time.Millisecond)
	}
	return make([]error, len(claims))
}

// One that comes alone is checked at once; of many each is checked, in as few turns as the
// lanes allow.
func TestNothingIsWaitedForThatMayCome(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := &slow{}
		d := &driver{n: &Node{crypto: c}, inputs: make(chan core.Input, maxInputs), checks: &pool{slots: make(chan struct{}, 2), share: 1, peers: map[core.Peer]*line{}}}
		d.spaces = spaces{lanes: 40, labels: func(core.CheckSpace) int { return 1 }}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		give := func(i int) {
			d.effects(ctx, core.Output{Work: []core.Work{core.CheckSpace{Claim: &activation.Claim{Info: &activation.Info{ID: types.ATXID{byte(i), byte(i >> 8)}}}}}})
		}
		begin := time.Now()
		give(1)
		d.work.Wait()
		if took := time.Since(begin); took != 20*time.Millisecond {
			t.Errorf("one alone takes %v", took)
		}
		<-d.inputs
		begin = time.Now()
		give(0)
		synctest.Wait() // it runs; the others wait
		for i := 1; i <= 200; i++ {
			give(i)
		}
		d.work.Wait()
		if took := time.Since(begin); took != 6*20*time.Millisecond || fmt.Sprint(c.batches) != "[1 1 40 40 40 40 40]" {
			t.Errorf("200 that wait take %v, in %v", took, c.batches)
		}
		seen := map[types.ATXID]bool{}
		for range 201 {
			v := (<-d.inputs).(core.Verified)
			if v.Class != core.Accept || seen[v.ATX] {
				t.Fatalf("%+v, seen: %t", v, seen[v.ATX])
			}
			seen[v.ATX] = true
		}
	})
}
