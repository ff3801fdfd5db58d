package delivery

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
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
	c, err := Open(db, s, DefaultConfig(), nil, []string{"10.0.0.1:9"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Rebroadcast("0"); err != nil {
		t.Fatal(err)
	}
	flipped := 0
	for _, key := range []string{keyTable, keyRecords} {
		var size int
		for bit := 0; bit == 0 || bit < 8*size; bit += 7 {
			restore := damage(t, db, key, bit, &size)
			var told []poet.Event
			again, err := Open(db, s, DefaultConfig(), nil, nil, Options{Tell: func(e poet.Event) { told = append(told, e) }})
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

// testdata/first-version.db.gz was written by the version that kept a copy of each
// proof: rounds 3 and 4 delivered; 10 to 12 with one, one and no acknowledgement,
// 11 called expired by a clock that was ahead; two configured gateways, one of the
// API, and two that were only heard of.
func TestADatabaseOfTheFirstVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "delivery.db")
	unpack(t, "testdata/first-version.db.gz", path)
	db := openDB(t, path)
	now := time.Unix(1_000_000_040, 0) // when it was written
	for range 2 {                      // and once more, when it is of ours
		saved, damaged, err := load(db)
		if err != nil || damaged != nil {
			t.Fatal(err, damaged)
		}
		m := NewMachine(DefaultConfig(), saved, now, now)
		var got []string
		for _, r := range m.Proofs(now) {
			got = append(got, strings.Join([]string{r.Round, r.State, strings.Repeat("a", len(r.Acks))}, " "))
			if r.Ref != testProof(0, now).Ref && r.Size == 0 {
				t.Errorf("round %s has no size", r.Round)
			}
		}
		if want := []string{"3 delivered aaa", "4 delivered aaa", "10 pending a", "11 pending a", "12 pending "}; !slices.Equal(got, want) {
			t.Fatalf("proofs %q, want %q", got, want)
		}
		// One that was only heard of is named by the command line now.
		m.apiSet = false
		if unused := m.Configure([]string{"10.9.9.9:9"}, now); unused != nil {
			t.Fatal(unused)
		}
		var gateways []string
		for _, g := range m.Gateways() {
			gateways = append(gateways, g.Addr+" "+string(g.Source))
		}
		if want := []string{"10.0.0.1:9 configured", "10.8.8.8:9 api", "10.0.0.2:9 configured", "10.9.9.9:9 configured"}; !slices.Equal(gateways, want) {
			t.Fatalf("gateways %q, want %q", gateways, want)
		}
		if !saved.APISet {
			t.Fatal("a gateway that was removed would come back by the command line")
		}
		err = db.View(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucket)).ForEach(func(k, _ []byte) error {
				if string(k) != keyTable && string(k) != keyRecords {
					t.Errorf("%s is left", k)
				}
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func unpack(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
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
		if left := r.undelivered(); len(left) != 1 || !strings.HasPrefix(left[0], "3 pending damaged at run time") {
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
		c, err := Open(db, s, cfg, f.dialer(), []string{f.node(deaf).addr, f.node(stalls).addr}, Options{Stored: s.told})
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
		if _, err := Open(db, newShelf(), DefaultConfig(), nil, bad, Options{}); err == nil {
			t.Errorf("a server starts with %.50q", bad)
		}
		c, err := Open(db, newShelf(), DefaultConfig(), nil, []string{"10.0.0.1:9"}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if c.SetGateways(bad) == nil || c.AddGateway(bad[len(bad)-1]) == nil {
			t.Errorf("%.50q is taken", bad)
		}
		if g := c.Gateways(); len(g) != 1 || g[0].Addr != "10.0.0.1:9" || g[0].Source != Configured {
			t.Errorf("%.50q has changed the gateways: %+v", bad, g)
		}
	}
}
