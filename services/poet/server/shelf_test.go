package server

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/services/poet"
	"tweedle/services/poet/book"
	"tweedle/services/poet/delivery"
	"tweedle/services/poet/legacy"
	"tweedle/services/poet/rounds"
)

// loseDeliveries forgets all deliveries of a server that has stopped.
func loseDeliveries(t *testing.T, dir string) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, book.DatabaseName), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("delivery")) }); err != nil {
		t.Fatal(err)
	}
}

// The proofs of two rounds are stored, and the first is damaged while the server
// runs: the second is delivered.
func TestOneBadProofHoldsUpNoLaterOne(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := newInternet(t)
		cfg := n.config(dir, time.Now())
		stop := n.serve(cfg)
		n.register(1)
		time.Sleep(3 * time.Second)
		n.register(2)
		time.Sleep(6 * time.Second)
		stop()
		cfg.Poet.Log = slog.New(slog.DiscardHandler)
		service, err := rounds.Open(cfg.Poet)
		if err != nil {
			t.Fatal(err)
		}
		defer service.Close()
		if err := service.Book().Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("proofs"))
			k, v := b.Cursor().First()
			return b.Put(k, append([]byte{v[0] ^ 1}, v[1:]...))
		}); err != nil {
			t.Fatal(err)
		}
		loseDeliveriesOf(t, service)
		all := shelf{service, legacy.OpenArchive(service.Book().DB), cfg.Poet.Schedule}
		a := n.node("a:9")
		n.node("b:9")
		var told []poet.Event
		c, err := delivery.Open(service.Book(), all, cfg.Delivery, []string{"a:9", "b:9"}, delivery.Options{Dial: cfg.Dial, Tell: func(e poet.Event) {
			if e.Kind == delivery.ProofUnreadable {
				told = append(told, e)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := c.Run(ctx); err != nil {
			t.Fatal(err)
		}
		got := c.Proofs()
		if len(got) != 2 || got[0].State != delivery.Pending || got[1].Round != "1" || got[1].State != delivery.Delivered || a.count() != 1 {
			t.Fatalf("deliveries %+v", got)
		}
		if len(told) != 1 || told[0].Round != "0" || !errors.Is(told[0].Err, poet.ErrDamaged) {
			t.Fatalf("told %v", told)
		}
	})
}

func loseDeliveriesOf(t *testing.T, s *rounds.Service) {
	t.Helper()
	if err := s.Book().Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("delivery")) }); err != nil {
		t.Fatal(err)
	}
}

// A clock that is ten years ahead for a moment gives up no proof: what waited
// waits, and is delivered when there are gateways.
func TestAGlanceAheadGivesUpNoProof(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := newInternet(t)
		var ahead atomic.Bool
		cfg := n.config(dir, time.Now())
		cfg.Poet.Wall = func() time.Time {
			if ahead.Load() {
				return time.Now().AddDate(10, 0, 0).Round(0)
			}
			return time.Now().Round(0)
		}
		stop := n.serve(cfg)
		n.register(1)
		time.Sleep(5 * time.Second)
		for range 5 {
			ahead.Store(true)
			time.Sleep(200 * time.Millisecond)
			if got := n.deliveries(dir); got != "0 pending" {
				t.Fatalf("with a clock ahead: %s", got)
			}
			ahead.Store(false)
			time.Sleep(200 * time.Millisecond)
		}
		n.node("a:9")
		n.node("b:9")
		if _, err := n.admin(dir).SetGateways(t.Context(), &poetadminpb.SetGatewaysRequest{Addresses: []string{"a:9", "b:9"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := n.deliveries(dir); got != "0 delivered" {
			t.Fatalf("deliveries: %s", got)
		}
		stop()
	})
}

// Only rounds that ended lately are looked at, however many proofs there are, and
// no more is read than their numbers.
func TestWhatIsOfUse(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := newInternet(t)
		cfg := n.config(dir, time.Now())
		cfg.Poet.Log = slog.New(slog.DiscardHandler)
		stop := n.serve(cfg)
		for i := range byte(12) {
			n.register(i + 1)
			time.Sleep(cfg.Poet.Schedule.EpochDuration)
		}
		stop()
		service, err := rounds.Open(cfg.Poet)
		if err != nil {
			t.Fatal(err)
		}
		defer service.Close()
		all := shelf{service, legacy.OpenArchive(service.Book().DB), cfg.Poet.Schedule}
		stored, err := service.Book().Proofs(0)
		if err != nil || len(stored) < 10 {
			t.Fatal(stored, err)
		}
		for _, n := range stored {
			until := all.usefulUntil(n)
			for _, c := range []struct {
				at   time.Time
				want bool
			}{{until.Add(-time.Nanosecond), true}, {until, false}, {time.Unix(0, 0), true}, {until.AddDate(100, 0, 0), false}} {
				due, err := all.Due(c.at)
				if err != nil {
					t.Fatal(err)
				}
				found := false
				for _, d := range due {
					found = found || d.Round == poet.RoundID(n)
				}
				if found != c.want {
					t.Errorf("round %d at %v: due %v, want %v", n, c.at, found, c.want)
				}
			}
		}
		// Proofs of a reference server are sent when somebody asks for it.
		taken := legacy.Proof{Round: 900, XDR: takenOver("900", 1)}
		empty := legacy.Proof{Round: 901, XDR: takenOver("901", 0)}
		if err := errors.Join(all.archive.Put(taken), all.archive.Put(empty)); err != nil {
			t.Fatal(err)
		}
		if p, err := all.Load("900"); err != nil || p.RoundID != "900" {
			t.Errorf("a proof that was taken over: %+v, %v", p, err)
		}
		for round, want := range map[string]error{"901": nil, "902": poet.ErrNotFound, "x": poet.ErrNotFound} {
			if _, err := all.Load(round); err == nil || want != nil && !errors.Is(err, want) {
				t.Errorf("round %s: %v", round, err)
			}
		}
		if first, err := service.Book().Proofs(stored[3]); err != nil || first[0] != stored[3] || len(first) != len(stored)-3 {
			t.Fatalf("from %d on: %v, %v", stored[3], first, err)
		}
	})
}

// takenOver is a proof without a node as the reference stores it: with lengths in
// front, of 32 bits, and words of four bytes.
func takenOver(round string, members int) []byte {
	opaque := func(b []byte) []byte {
		return append(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...), make([]byte, -len(b)&3)...)
	}
	node := opaque(make([]byte, 32))
	out := slices.Concat(node, make([]byte, 8), binary.BigEndian.AppendUint32(nil, uint32(members)))
	for range members {
		out = append(out, node...)
	}
	return slices.Concat(out, make([]byte, 8), node, opaque([]byte(round)))
}
