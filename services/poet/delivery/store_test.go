package delivery

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/services/poet"
)

// failingDB refuses every write once it is told to.
type failingDB struct {
	*bbolt.DB
	mu   sync.Mutex
	fail error
}

func (d *failingDB) Update(fn func(*bbolt.Tx) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	return d.DB.Update(fn)
}

func (d *failingDB) set(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

// A full disk: the operator is told that what he asked for is not kept, the
// deliveries go on, one event tells of it, and all is kept once there is room.
func TestAFullDiskIsToldAndSurvived(t *testing.T) {
	bolt := openDB(t, filepath.Join(t.TempDir(), "delivery.db"))
	synctest.Test(t, func(t *testing.T) {
		f, s := newFabric(t), newShelf()
		a, b := f.node(honest), f.node(honest)
		db := &failingDB{DB: bolt}
		r, stop := f.start(db, s, DefaultConfig(), a.addr, b.addr)
		time.Sleep(time.Second)
		db.set(errors.New("no space left on device"))
		if err := r.AddGateway("gateway-1:9"); err == nil || strings.Contains(err.Error(), "\n") {
			t.Fatalf("what cannot be kept is acknowledged: %v", err)
		}
		s.add(0, time.Hour)
		time.Sleep(10 * time.Second)
		if left := r.undelivered(); len(left) != 0 {
			t.Fatalf("there wait %v", left)
		}
		told := 0
		for _, e := range r.events() {
			if e.Kind == WriteFailed {
				told++
			}
		}
		if told != 1 {
			t.Fatalf("told %d times, want once: %v", told, r.events())
		}
		db.set(nil)
		time.Sleep(10 * time.Second)
		stop()
		saved, damaged, err := load(bolt)
		if err != nil || damaged != nil || len(saved.Records) != 1 || saved.Records[0].DeliveredAt.IsZero() {
			t.Fatalf("saved %+v, %v, %v", saved, damaged, err)
		}
	})
}

// Flipped bits anywhere in what is stored are noticed and told, and cost no more
// than the part they are in: a proof is delivered again, the gateways are given
// again.
func TestDamageInTheDatabaseIsNoticed(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "delivery.db"))
	db.NoSync = true // thousands of writes, none of which must last
	s := newShelf()
	s.add(0, time.Hour)
	c, err := Open(db, s, DefaultConfig(), []string{"10.0.0.1:9"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.SetGateways([]string{"10.0.0.2:9"}), c.Rebroadcast("0")); err != nil {
		t.Fatal(err)
	}
	flipped := 0
	for _, key := range []string{keyGateways, keyRecords} {
		var size int
		for bit := 0; bit == 0 || bit < 8*size; bit += 7 {
			restore := damage(t, db, key, bit, &size)
			var told []poet.Event
			again, err := Open(db, s, DefaultConfig(), nil, Options{Tell: func(e poet.Event) { told = append(told, e) }})
			if err != nil {
				t.Fatal(err)
			}
			again.step()
			told = slices.DeleteFunc(told, func(e poet.Event) bool { return e.Kind == NoCandidates })
			if len(told) != 1 || told[0].Kind != poet.EventDamage {
				t.Fatalf("bit %d of %q: told %v", bit, key, told)
			}
			if got := again.Proofs(); len(got) != 1 || got[0].State != Pending {
				t.Fatalf("bit %d of %q: proofs %+v", bit, key, got)
			}
			if got := again.Gateways(); (len(got) == 1) != (key == keyRecords) {
				t.Fatalf("bit %d of %q: gateways %+v", bit, key, got)
			}
			restore()
			flipped++
		}
	}
	t.Logf("%d bits flipped", flipped)
}

// damage flips a bit of a value.
func damage(t *testing.T, db *bbolt.DB, key string, bit int, size *int) (restore func()) {
	t.Helper()
	var before []byte
	put := func(change func(v []byte)) {
		err := db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte(bucket))
			v := slices.Clone(b.Get([]byte(key)))
			if before == nil {
				before = slices.Clone(v)
			}
			*size = len(before)
			change(v)
			return b.Put([]byte(key), v[:len(before)])
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put(func(v []byte) { v[bit/8] ^= 1 << (bit % 8) })
	return func() {
		err := db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), before) })
		if err != nil {
			t.Fatal(err)
		}
	}
}

// One proof that cannot be read holds up no other one, and a list that cannot be
// made is told of.
func TestOneBadProofHoldsUpNoOther(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "delivery.db"))
	synctest.Test(t, func(t *testing.T) {
		f, s := newFabric(t), newShelf()
		a, b := f.node(honest), f.node(honest)
		s.breaks("3", errors.New("damaged at run time"))
		s.add(3, time.Hour)
		s.add(4, time.Hour)
		r, _ := f.start(db, s, DefaultConfig(), a.addr, b.addr)
		time.Sleep(time.Minute)
		if left := r.undelivered(); len(left) != 1 || left[0] != "3 pending the stored proof cannot be read: damaged at run time" {
			t.Fatalf("there wait %q", left)
		}
		told := func() (n int) {
			for _, e := range r.events() {
				if e.Kind == ProofUnreadable {
					n++
				}
			}
			return n
		}
		if told() != 1 {
			t.Fatalf("told %d times", told())
		}
		if err := r.Rebroadcast("3"); err == nil {
			t.Fatal("a proof that cannot be read is sent")
		}
		s.breaks("", errors.New("no list"))
		time.Sleep(30 * time.Second)
		if told() != 2 {
			t.Fatalf("a list that cannot be made is told of %d times", told()-1)
		}
		s.breaks("", nil)
		s.breaks("3", nil)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if left := r.undelivered(); len(left) != 0 {
			t.Fatalf("there wait %v", left)
		}
	})
}

// Run leaves nothing behind, also when a gateway answers nothing.
func TestRunEndsWhileGatewaysHang(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "delivery.db"))
	synctest.Test(t, func(t *testing.T) {
		f, s := newFabric(t), newShelf()
		cfg := DefaultConfig()
		cfg.Genesis = network
		c, err := Open(db, s, cfg, []string{f.node(deaf).addr, f.node(stalls).addr}, Options{Stored: s.told, Dial: f.dial()})
		if err != nil {
			t.Fatal(err)
		}
		s.add(0, time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := c.Run(ctx); err != nil || time.Since(began) > 2600*time.Millisecond {
			t.Fatalf("ended with %v after %v", err, time.Since(began))
		}
	})
}

// A bad address changes nothing.
func TestABadAddressChangesNothing(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "delivery.db"))
	for _, bad := range [][]string{{"10.0.0.2:9", "nonsense"}, {":9"}, {"10.0.0.2:0"}, {"10.0.0.2:65536"}, {strings.Repeat("x", 300) + ":9"}, make([]string, MaxGateways+1)} {
		if _, err := Open(db, newShelf(), DefaultConfig(), bad, Options{}); !errors.Is(err, ErrAddresses) {
			t.Errorf("a server starts with %.50q", bad)
		}
		c, err := Open(db, newShelf(), DefaultConfig(), []string{"10.0.0.1:9"}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetGateways(bad); !errors.Is(err, ErrAddresses) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.50q is taken: %v", bad, err)
		}
		if err := c.AddGateway(bad[len(bad)-1]); !errors.Is(err, ErrAddresses) {
			t.Errorf("%.50q is taken: %v", bad, err)
		}
		if g := c.Gateways(); len(g) != 1 || g[0].Addr != "10.0.0.1:9" || g[0].Source != Configured {
			t.Errorf("%.50q has changed the gateways: %+v", bad, g)
		}
	}
}
