package node

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"tweedle/edges/store"
	"tweedle/values/types"
)

// wrongClock is a wall clock that is off by so many nanoseconds.
type wrongClock struct{ atomic.Int64 }

func (w *wrongClock) now() time.Time      { return time.Now().Round(0).Add(time.Duration(w.Load())) }
func (w *wrongClock) set(d time.Duration) { w.Store(int64(d)) }

// said is what a node logs.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) has(words string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), words)
}

// A smesher's clock jumps an epoch ahead for a moment, which costs nothing; then back
// by a layer, where it stays until somebody sets it right. Nothing is signed twice, and
// the node goes on.
func TestAClockThatJumpsCostsNothingForAMomentAndNoSignatureAtAll(t *testing.T) {
	dirs := t.TempDir()
	inBubble(t, func(t *testing.T) {
		b := newBubble(t, "jumps")
		b.startPoet()
		for _, name := range []string{"a", "b", "c"} {
			b.add(filepath.Join(dirs, name))
		}
		n, wall, log := b.join(filepath.Join(dirs, "d")), &wrongClock{}, &said{}
		n.cfg.Wall, n.cfg.Log = wall.now, slog.New(slog.NewTextHandler(log, nil))
		b.start(n)
		// How many decisions it signed, and one whose clock is right: now and then nobody has a slot in a layer.
		signed := func() (own, other int) {
			count := func(n *bubbleNode) int {
				var m dto.Metric
				if err := n.identities[0].signed.Write(&m); err != nil {
					t.Fatal(err)
				}
				return int(m.GetCounter().GetValue())
			}
			return count(n), count(b.nodes[0])
		}

		b.until(4, 20*time.Second)
		before, beforeOther := signed()
		wall.set(n.schedule.EpochDuration())
		time.Sleep(n.clock.Patience() / 2)
		wall.set(0)
		b.until(5, 20*time.Second)
		if got, other := signed(); got-before < other-beforeOther || other == beforeOther {
			t.Errorf("it signed %d decisions in the epoch after the jump, another one %d", got-before, other-beforeOther)
		}
		if !log.has("followed=false") || log.has("followed=true") {
			t.Error("the jump is not told, or followed")
		}

		wall.set(-n.schedule.LayerDuration)
		b.until(6, 20*time.Second)
		if !log.has("followed=true") {
			t.Error("a clock that stays where it is, is not followed")
		}
		wall.set(0)
		b.until(9, 0)
		b.same(n.schedule.First(9) - 2)
		before, beforeOther = signed()
		b.until(10, 0)
		if got, other := signed(); got-before < other-beforeOther-1 || got == before {
			t.Errorf("it signed %d decisions in the last epoch, another one %d", got-before, other-beforeOther)
		}
		if log.has("we do not sign") {
			t.Error("it was about to sign twice")
		}
		evil, err := store.Core{Reader: b.nodes[0].db.Reader}.Malicious()
		if err != nil || len(evil) != 0 {
			t.Errorf("malicious: %v, %v", evil, err)
		}
		// By a clock that is a layer late it may miss the beginning of one PoET round.
		for epoch, late := types.Epoch(1), 0; epoch < 10; epoch++ {
			ids, err := b.nodes[0].db.EpochATXs(epoch)
			if late += len(b.nodes) - len(ids); err != nil || late > 1 || late > 0 && epoch < 6 {
				t.Errorf("epoch %d: %d ATXs, %v", epoch, len(ids), err)
			}
		}
		b.close()
	})
}
