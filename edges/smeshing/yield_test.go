package smeshing

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"tweedle/proofs/post"
)

// Workers of several smeshers of a process come and go: each has threads of its own, and none
// are left.
func TestWorkersHaveThreadsOfTheirOwn(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	first, second := yield(3), yield(1)
	if got := runtime.GOMAXPROCS(0); got != before+4 {
		t.Errorf("%d goroutines run with 4 workers, %d without", got, before)
	}
	first()
	first()
	if got := runtime.GOMAXPROCS(0); got != before+1 {
		t.Errorf("%d goroutines run with 1 worker, %d without", got, before)
	}
	second()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { yield(2)() })
	}
	all.Wait()
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("%d goroutines run after all, %d before", got, before)
	}
}

// watched is a proof of work that sees how many goroutines may run.
type watched struct {
	post.PoW
	most *int
}

func (w watched) Hash(in *[48]byte) ([32]byte, error) {
	*w.most = max(*w.most, runtime.GOMAXPROCS(0))
	return w.PoW.Hash(in)
}

func TestASmesherThatProvesYields(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	inBubble(t, func(t *testing.T, r *rig) {
		r.smeshed(r.config("poet"))
		cfg := r.config("poet")
		cfg.Workers = 3
		s, err := New(cfg)
		must(t, err)
		most := 0
		s.rules.Post.PoW = watched{s.rules.Post.PoW, &most}
		if _, err := s.prove(t.Context(), [32]byte{1}); err != nil {
			t.Fatal(err)
		}
		if most != before+3 {
			t.Errorf("%d goroutines run beside 3 workers, want %d", most, before+3)
		}
		time.Sleep(time.Second)
	})
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("%d goroutines run after it, %d before", got, before)
	}
}
