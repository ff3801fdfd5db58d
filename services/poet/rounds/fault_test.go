package rounds

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"tweedle/base/clock"
	"tweedle/base/durable/durabletest"
	"tweedle/services/poet"
	"tweedle/services/poet/book"
)

// bolt is the database below a service.
func bolt(s *Service) (db *bbolt.DB) {
	err := s.book.View(func(tx *bbolt.Tx) error {
		db = tx.DB()
		return nil
	})
	if err != nil {
		panic(err)
	}
	return db
}

// hookWrites puts itself between bbolt and its file.
func hookWrites(db *bbolt.DB, hook func(p []byte, off int64, write func([]byte, int64) (int, error)) (int, error)) {
	field := reflect.ValueOf(db).Elem().FieldByName("ops").FieldByName("writeAt")
	write := (*func([]byte, int64) (int, error))(unsafe.Pointer(field.UnsafeAddr()))
	real := *write
	*write = func(p []byte, off int64) (int, error) { return hook(p, off, real) }
}

// boltDisk knows what of a bbolt file is synced. bbolt syncs between the pages of
// a transaction and its head, and again after the head, so a write of a head says
// that what came before is synced, and so does the first page after it.
type boltDisk struct {
	mu     sync.Mutex
	faults *durabletest.Faulty
	safe   []byte
	recent []boltWrite
}

type boltWrite struct {
	off  int64
	data []byte
}

const boltPage = 4096

func (d *boltDisk) write(p []byte, off int64, write func([]byte, int64) (int, error)) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	isHead := off < 2*boltPage
	wasHead := len(d.recent) > 0 && d.recent[0].off < 2*boltPage
	if isHead || wasHead {
		d.sync()
	}
	how, fail := d.faults.Step("write poet.db")
	if how == durabletest.Before {
		return 0, fail
	}
	if how == durabletest.Torn {
		p = p[:len(p)/2]
	}
	d.recent = append(d.recent, boltWrite{off, slices.Clone(p)})
	n, err := write(p, off)
	if err == nil {
		err = fail
	}
	return n, err
}

// committed says that a transaction ended well, so its head is synced.
func (d *boltDisk) committed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sync()
}

func (d *boltDisk) sync() {
	for _, w := range d.recent {
		d.safe = overlay(d.safe, w.data, w.off)
	}
	d.recent = nil
}

func overlay(b, p []byte, off int64) []byte {
	if end := int(off) + len(p); end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[off:], p)
	return b
}

// crash returns the file after a loss of power.
func (d *boltDisk) crash(r *rand.Rand) []byte {
	image := slices.Clone(d.safe)
	for _, w := range d.recent {
		keep := r.IntN(3)
		for at := 0; at < len(w.data); at += 512 {
			if keep == 2 || keep == 1 && r.IntN(2) == 0 {
				image = overlay(image, w.data[at:min(at+512, len(w.data))], w.off+int64(at))
			}
		}
	}
	// The file is as long as it was: pages of it beyond may be holes.
	if whole := (len(image) + boltPage - 1) / boltPage * boltPage; whole > len(image) {
		image = append(image, make([]byte, whole-len(image))...)
	}
	return image
}

// bench is a server on a disk that fails, and what it promised.
type bench struct {
	t       *testing.T
	cfg     Config
	mem     *durabletest.Mem
	faults  *durabletest.Faulty
	disk    *boltDisk
	acks    []poet.Receipt
	proofs  []poet.ProofRecord
	saved   map[string]uint64
	refused []error
	events  []poet.Event
	err     error // of Run

	failSync int // number of the commit whose sync fails
	commits  int
}

// newBench is a server of two short rounds a few milliseconds of work long.
func newBench(t *testing.T) *bench {
	cfg := config(t, time.Now())
	cfg.Work.LeavesPerSecond, cfg.Work.MaxLeavesPerSecond = 200, 200
	cfg.Work.CheckpointInterval = 200 * time.Millisecond
	cfg.Work.K = 3
	mem := durabletest.NewMem(1 << 24)
	faults := durabletest.NewFaulty(mem)
	cfg.FS = faults
	cfg.NewIdentity = true // a loss of power may come before the key is there
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeTree(t, cfg.Dir, newDatabase(t, cfg))
	return &bench{t: t, cfg: cfg, mem: mem, faults: faults, saved: map[string]uint64{}}
}

var databases sync.Map // genesis -> map[string][]byte

// newDatabase returns the database of a server that never ran. Making one syncs the
// real disk some times, and there are hundreds of benches.
func newDatabase(t *testing.T, cfg Config) map[string][]byte {
	if made, ok := databases.Load(cfg.Schedule.Genesis); ok {
		return made.(map[string][]byte)
	}
	cfg.Dir, cfg.FS = filepath.Join(t.TempDir(), "new"), durabletest.NewMem(1<<24)
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files := readTree(t, cfg.Dir)
	databases.Store(cfg.Schedule.Genesis, files)
	return files
}

// live runs the server for a time, or until it ends by itself, and registers
// members meanwhile. during, if not nil, runs beside it.
func (b *bench) live(d time.Duration, fault durabletest.Fault, during func(*Service)) {
	b.t.Helper()
	var mu sync.Mutex
	cfg := b.cfg
	cfg.OnEvent = func(e poet.Event) {
		mu.Lock()
		defer mu.Unlock()
		b.events = append(b.events, e)
	}
	var s *Service
	cfg.OnProof = func(round string) {
		if p, err := s.Proof(context.Background(), round); err != nil {
			b.t.Errorf("announced proof of round %s: %v", round, err)
		} else {
			b.proofs = append(b.proofs, p)
		}
	}
	s, err := Open(cfg)
	if err != nil {
		b.err = err
		return
	}
	image, err := os.ReadFile(filepath.Join(cfg.Dir, book.DatabaseName))
	if err != nil {
		b.t.Fatal(err)
	}
	b.disk = &boltDisk{faults: b.faults, safe: image}
	hookWrites(bolt(s), b.disk.write)
	if db := bolt(s); db.NoSync || db.NoGrowSync {
		b.t.Fatal("the database does not sync, and boltDisk takes for granted that it does")
	}
	mend := func() {}
	s.book.Point = func(after bool) {
		mu.Lock()
		defer mu.Unlock()
		if after {
			b.disk.committed()
		} else if b.commits++; b.commits == b.failSync {
			mend = breakSync(b.t, filepath.Join(cfg.Dir, book.DatabaseName), bolt(s))
		}
	}
	b.faults.Set(fault)
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	var helpers sync.WaitGroup
	helpers.Go(func() { b.submit(ctx, s) })
	helpers.Go(func() {
		for ; ctx.Err() == nil; clock.Sleep(ctx, 50*time.Millisecond) {
			for _, r := range s.Rounds() {
				b.saved[r.Round] = max(b.saved[r.Round], r.Checkpoint)
			}
		}
	})
	if during != nil {
		helpers.Go(func() { during(s) })
	}
	b.err = <-ended
	cancel()
	helpers.Wait()
	mend()
	if err := s.Close(); err != nil {
		b.t.Error(err)
	}
}

func (b *bench) submit(ctx context.Context, s *Service) {
	for i := len(b.acks); ctx.Err() == nil; i++ {
		r, err := s.Submit(ctx, request(s.PowParams(), i))
		if err == nil {
			b.acks = append(b.acks, r)
		} else if ctx.Err() == nil {
			b.refused = append(b.refused, err)
		}
		clock.Sleep(ctx, 300*time.Millisecond)
	}
}

// crash makes the disk what it may be after a loss of power.
func (b *bench) crash(seed uint64) {
	b.t.Helper()
	b.mem = b.mem.Crash(seed)
	b.faults = durabletest.NewFaulty(b.mem)
	b.cfg.FS = b.faults
	if b.disk != nil {
		image := b.disk.crash(rand.New(rand.NewPCG(seed, 1)))
		if err := os.WriteFile(filepath.Join(b.cfg.Dir, book.DatabaseName), image, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}

// check lives on, on a good disk, until all that was promised must be there.
func (b *bench) check(what string) {
	b.t.Helper()
	acks, proofs, before, saved := slices.Clone(b.acks), slices.Clone(b.proofs), len(b.events), maps.Clone(b.saved)
	b.faults.Set(durabletest.Fault{})
	last := uint32(0)
	for _, a := range acks {
		n, _ := poet.ParseRoundID(a.Round)
		last = max(last, n)
	}
	b.live(time.Until(b.cfg.Schedule.End(last))+time.Second, durabletest.Fault{}, func(s *Service) {
		time.Sleep(time.Until(b.cfg.Schedule.End(last)) + 800*time.Millisecond)
		judge := server{Service: s, t: b.t}
		for _, a := range acks {
			judge.checkMember(a)
			judge.checkProof(a.Round)
		}
		for _, p := range proofs {
			now := judge.checkProof(p.Message.RoundID)
			if !reflect.DeepEqual(now, p) {
				b.t.Errorf("%s: proof of round %s is another one now", what, p.Message.RoundID)
			}
			checkRoot(b.t, now)
		}
	})
	if b.err != nil {
		b.t.Errorf("%s: server ended on a good disk: %v", what, b.err)
	}
	for _, e := range b.events[before:] {
		if e.Kind == poet.EventResumed {
			var leaves uint64
			if n := len("round goes on from leaf "); len(e.Text) > n {
				for _, c := range e.Text[n:] {
					leaves = leaves*10 + uint64(c-'0')
				}
			}
			if leaves < saved[e.Round] {
				b.t.Errorf("%s: round %s went on from leaf %d of %d saved", what, e.Round, leaves, saved[e.Round])
			}
		}
	}
	if b.t.Failed() {
		b.t.Logf("%s: acks %d, proofs %d, refused %v", what, len(b.acks), len(b.proofs), b.refused)
		for _, e := range b.events {
			b.t.Log(e)
		}
		b.t.FailNow()
	}
}

// operations counts the writes of a life of one round and a half.
func operations(t *testing.T) (n int) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.live(lifeTime, durabletest.Fault{}, nil)
		if b.err != nil || len(b.proofs) != 1 || len(b.acks) < 5 {
			t.Fatalf("undisturbed life: %v, %d proofs, %d acks", b.err, len(b.proofs), len(b.acks))
		}
		n = len(b.faults.Done())
	})
	return n
}

// lifeTime covers the registration, execution and proof of round 0, and the start
// of round 1.
const lifeTime = 6 * time.Second

// stride leaves out operations in the short form, but for one in part; each run of
// the test takes others, and POET_SEED those of another run.
func stride(t *testing.T, part int) (first, step int) {
	t.Helper()
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		return 1, 1
	}
	seed := uint64(envInt("POET_SEED", time.Now().UnixNano()))
	first = 1 + int(seed%uint64(part))
	t.Logf("seed %d: one in %d operations, from the %d.; all of them with TWEEDLE_NIGHTLY=1", seed, part, first)
	return first, part
}

// Stopped at any write, before it, in the middle or after it, and then without
// power: every promise is kept by the next start.
func TestPowerLossAtEveryWrite(t *testing.T) {
	n := operations(t)
	t.Logf("%d operations", n)
	first, step := stride(t, 20)
	for at := first; at <= n; at += step {
		for _, how := range []durabletest.How{durabletest.Before, durabletest.Torn, durabletest.After} {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.live(lifeTime, durabletest.Fault{At: at, How: how}, nil)
				name := b.faults.Done()[len(b.faults.Done())-1]
				b.crash(uint64(at))
				b.check(name)
			})
		}
	}
}

// Each write fails for lack of room, some times in a row: nothing is acknowledged
// that is not stored, the rounds go on, and when there is room everything is done.
func TestEveryWriteWithoutRoom(t *testing.T) {
	n := operations(t)
	first, step := stride(t, 20)
	for at := first; at <= n; at += step {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.live(lifeTime, durabletest.Fault{At: at, Last: at + 9, Err: syscall.ENOSPC, How: durabletest.Torn}, nil)
			if b.err != nil {
				t.Errorf("operation %d: a full disk ended the server: %v", at, b.err)
			}
			inTime := slices.ContainsFunc(b.acks, func(r poet.Receipt) bool { return r.Round == "0" })
			// Who was refused may be a member all the same: of a write whose head
			// reached the file before the room was gone.
			if proved := len(b.proofs) == 1; inTime && !proved || proved && !inTime && len(b.refused) == 0 {
				t.Errorf("operation %d: %d proofs, acknowledged in round 0: %v, refused: %d", at, len(b.proofs), inTime, len(b.refused))
			}
			for _, err := range b.refused {
				if !errors.Is(err, poet.ErrDiskFull) {
					t.Errorf("operation %d: refused with %v", at, err)
				}
			}
			b.check("no room")
		})
	}
}

// Each write fails because the disk is broken: the server may end, with one clear
// error; the next start, on a good disk, keeps all promises.
func TestEveryWriteOnABrokenDisk(t *testing.T) {
	n := operations(t)
	first, step := stride(t, 20)
	for at := first; at <= n; at += step {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.live(lifeTime, durabletest.Fault{At: at, Err: syscall.EIO}, nil)
			if b.err != nil && !errors.Is(b.err, syscall.EIO) {
				t.Errorf("operation %d: %v", at, b.err)
			}
			b.check("broken disk")
		})
	}
}

// A sync of the database that fails, whichever it is, ends the server: it is not
// known what is on the disk, and a later sync would not tell. Nothing that follows
// is acknowledged, and the next start keeps all promises.
func TestEveryFailedSyncEndsTheServer(t *testing.T) {
	first, step := stride(t, 5)
	commits := first
	for at := first; at <= commits; at += step {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.failSync = at
			b.live(lifeTime, durabletest.Fault{}, nil)
			if b.commits < at {
				return
			}
			if !errors.Is(b.err, syscall.EBADF) || !strings.Contains(b.err.Error(), "check the disk") {
				t.Fatalf("commit %d: server ended with %v", at, b.err)
			}
			commits = at + step
			b.failSync = 0
			b.check("failed sync")
		})
	}
	if commits < 10 {
		t.Errorf("there are only %d commits", commits)
	}
}

// A proof that cannot be stored, for whatever reason, holds up no other one: this
// one is damaged on its way to the disk each time, until the disk is mended.
func TestAProofThatCannotBeStoredHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, time.Now())
		cfg.Work.LeavesPerSecond, cfg.Work.MaxLeavesPerSecond = 200, 200
		s := start(t, cfg)
		defer s.close()
		s.register(1)
		s.register(3) // the root of one member is its challenge
		time.Sleep(time.Until(cfg.Schedule.Start(0)) + 100*time.Millisecond)
		root, _, err := s.book.Root(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		var broken atomic.Bool
		broken.Store(true)
		tx, err := bolt(s.Service).Begin(true) // nobody writes meanwhile
		if err != nil {
			t.Fatal(err)
		}
		hookWrites(bolt(s.Service), func(p []byte, off int64, write func([]byte, int64) (int, error)) (int, error) {
			at := bytes.Index(p, root[:])
			if at < 0 || !broken.Load() {
				return write(p, off)
			}
			bad := bytes.Clone(p)
			bad[at] ^= 1
			return write(bad, off)
		})
		tx.Rollback()
		s.register(2)
		if round := <-s.proofs; round != "1" {
			t.Fatalf("proof of round %s is told", round)
		}
		if _, err := s.Proof(t.Context(), "0"); !errors.Is(err, poet.ErrDamaged) {
			t.Fatalf("proof of round 0: %v", err)
		}
		s.checkProof("1")
		if n := s.count(poet.EventWriteFailed); n != 1 {
			t.Errorf("it is told %d times that the proof cannot be stored", n)
		}
		broken.Store(false)
		if round := <-s.proofs; round != "0" {
			t.Fatalf("proof of round %s is told", round)
		}
		s.checkProof("0")
	})
}

// breakSync lets the next sync of the database fail: it gets a descriptor that only
// names the file. mend puts the real one back.
func breakSync(t *testing.T, path string, db *bbolt.DB) (mend func()) {
	fd, err := unix.Open(path, unix.O_PATH, 0)
	if err != nil {
		t.Error(err)
		return func() {}
	}
	tx, err := db.Begin(true) // nobody writes meanwhile
	if err != nil {
		t.Error(err)
		return func() {}
	}
	defer tx.Rollback()
	field := reflect.ValueOf(db).Elem().FieldByName("file")
	file := (**os.File)(unsafe.Pointer(field.UnsafeAddr()))
	real, broken := *file, os.NewFile(uintptr(fd), path)
	*file = broken
	return func() {
		*file = real
		broken.Close()
	}
}
