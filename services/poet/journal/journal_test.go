package journal

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"

	"tweedle/base/durable"
	"tweedle/base/durable/durabletest"
	"tweedle/proofs/posw"
	"tweedle/values/types"
)

const path = "/rounds/7.journal"

func about(k uint) About {
	return About{Round: 7, Members: 3, K: k, Statement: [32]byte{1, 2, 3}}
}

// run computes leaves under a journal and syncs it after each step.
func run(t *testing.T, fs durable.FS, k uint, steps ...uint64) (*Journal, *posw.Prover) {
	t.Helper()
	h := about(k)
	p := posw.NewProver(h.Statement[:], k)
	j := Create(fs, path, h)
	advance(p, j, steps...)
	return j, p
}

func advance(p *posw.Prover, j *Journal, steps ...uint64) {
	for _, n := range steps {
		j.Append(p.Advance(n, nil))
		j.Sync()
	}
}

// resume opens the journal and goes on; the result must be what an
// uninterrupted prover would have.
func resume(t *testing.T, fs durable.FS) (*posw.Prover, *Journal, error) {
	t.Helper()
	j, lost, err := Open(fs, path, about(3))
	if err != nil {
		t.Fatal(err)
	}
	return restore(t, j), j, lost
}

// restore returns a prover after the nodes that count.
func restore(t *testing.T, j *Journal) *posw.Prover {
	t.Helper()
	h := j.about
	p, err := posw.Resume(h.Statement[:], h.K, j.Reader(), j.Count())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fill computes what is missing, as the worker does, and returns how many leaves that
// took.
func fill(t *testing.T, j *Journal) (leaves uint64) {
	t.Helper()
	p := restore(t, j)
	for j.Missing() > 0 {
		leaves += 5
		if j.Append(p.Advance(5, nil)) {
			p = restore(t, j)
		}
	}
	return leaves
}

func read(t *testing.T, fs durable.FS, name string) []byte {
	t.Helper()
	b, err := durable.ReadFile(fs, name, 1<<24)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func disk(t *testing.T, content []byte) *durabletest.Mem {
	t.Helper()
	fs := durabletest.NewMem(1 << 24)
	if err := durable.WriteFile(fs, path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return fs
}

func proveBoth(t *testing.T, p *posw.Prover, j *Journal) {
	t.Helper()
	leaves := p.Leaves()
	if leaves < types.MaxPoetLeaves {
		advance(p, j, types.MaxPoetLeaves-leaves)
		leaves = p.Leaves()
	}
	got, err := p.Prove(j.Reader(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := j.about
	twin := posw.NewProver(h.Statement[:], h.K)
	want, err := twin.Prove(bytes.NewReader(twin.Advance(leaves, nil)), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Root != want.Root || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("proof of %d leaves differs from that of an uninterrupted run", leaves)
	}
}

func TestResumeEqualsAnUninterruptedRun(t *testing.T) {
	for _, k := range []uint{0, 1, 3, 6} {
		fs := durabletest.NewMem(1 << 20)
		j, p := run(t, fs, k, 1, 2, 61, 64, 33, 100)
		if saved, _ := j.Saved(); saved != p.Kept()<<k {
			t.Fatalf("k=%d: %d of %d leaves saved", k, saved, p.Leaves())
		}
		p, j, lost := resume(t, fs.Crash(1))
		if lost != nil || p.Leaves() != 261>>k<<k {
			t.Fatalf("k=%d: %d leaves, lost %v", k, p.Leaves(), lost)
		}
		advance(p, j, 77)
		proveBoth(t, p, j)
	}
}

// More nodes at once than are written at a time come back.
func TestManyNodesAtOnce(t *testing.T) {
	fs := durabletest.NewMem(16 << 20)
	j := Create(fs, path, about(0))
	nodes := make([]byte, (2*writeNodes+5)*posw.NodeSize)
	for i := range nodes {
		nodes[i] = byte(i / 7)
	}
	j.Append(nodes)
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	j, lost, err := Open(fs, path, about(0))
	if err != nil || lost != nil {
		t.Fatal(err, lost)
	}
	if !bytes.Equal(j.nodes, nodes) {
		t.Fatal("other nodes came back")
	}
}

// Stopped at every operation, before, torn, after, then without power: what was
// saved is there, and the round goes on to the right root.
func TestEveryCrashPoint(t *testing.T) {
	steps := []uint64{50, 1, 49, 64, 80}
	probe := durabletest.NewFaulty(durabletest.NewMem(1 << 20))
	run(t, probe, 3, steps...)
	for at := 1; at <= len(probe.Done()); at++ {
		for _, how := range []durabletest.How{durabletest.Before, durabletest.Torn, durabletest.After} {
			for seed := range uint64(6) {
				mem := durabletest.NewMem(1 << 20)
				fs := durabletest.NewFaulty(mem)
				fs.Set(durabletest.Fault{At: at, How: how})
				j, _ := run(t, fs, 3, steps...)
				saved, _ := j.Saved()
				after := mem.Crash(seed)
				if _, err := after.Open(path); err != nil {
					if saved > 0 {
						t.Fatalf("at %d/%d seed %d: saved journal is gone", at, how, seed)
					}
					continue
				}
				p, j, _ := resume(t, after)
				if p.Leaves() < saved {
					t.Fatalf("at %d/%d seed %d: %d leaves of %d saved", at, how, seed, p.Leaves(), saved)
				}
				if seed == 0 {
					proveBoth(t, p, j)
				}
			}
		}
	}
}

// A failing disk costs nothing but the checkpoint: after each kind of failure at
// each operation the next sync brings the file up to date.
func TestEveryFailureHeals(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		for _, how := range []durabletest.How{durabletest.Before, durabletest.Torn} {
			for at := 1; ; at++ {
				mem := durabletest.NewMem(1 << 20)
				fs := durabletest.NewFaulty(mem)
				fs.Set(durabletest.Fault{At: at, Last: at + 2, Err: cause, How: how})
				j, p := run(t, fs, 3, 50, 1, 49, 64, 80)
				reached := len(fs.Done()) >= at
				fs.Set(durabletest.Fault{})
				if err := j.Sync(); err != nil {
					t.Fatal(err)
				}
				if saved, _ := j.Saved(); saved != p.Kept()<<3 {
					t.Fatalf("%v at %d: %d leaves saved of %d", cause, at, saved, p.Leaves())
				}
				q, k, lost := resume(t, mem.Crash(uint64(at)))
				if lost != nil || q.Leaves() != p.Kept()<<3 {
					t.Fatalf("%v at %d: found %d leaves of %d, lost %v", cause, at, q.Leaves(), p.Leaves(), lost)
				}
				proveBoth(t, q, k)
				if !reached {
					break
				}
			}
		}
	}
}

// While the disk is full the round goes on; room brings the missing part.
func TestFullDisk(t *testing.T) {
	mem := durabletest.NewMem(1500)
	j, p := run(t, mem, 0, 20)
	advance(p, j, 300)
	if err := j.Sync(); !durable.IsFull(err) {
		t.Fatalf("sync on a full disk: %v", err)
	}
	if q, _, _ := resume(t, mem.Crash(3)); q.Leaves() < 20 {
		t.Fatalf("%d leaves survived, 20 were saved", q.Leaves())
	}
	mem.SetCapacity(1 << 20)
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	q, k, _ := resume(t, mem.Crash(3))
	if q.Leaves() != 320 {
		t.Fatalf("%d leaves after there was room", q.Leaves())
	}
	proveBoth(t, q, k)
}

// Flipped bits, a zeroed page, a cut: never other nodes; what is whole comes back when
// what is missing is computed again, and that is no more than what was hit.
func TestDamageIsFound(t *testing.T) {
	mem := durabletest.NewMem(1 << 20)
	j, _ := run(t, mem, 1, 50, 51, 49, 64, 80, 200)
	good := read(t, mem, path)
	r := rand.New(rand.NewPCG(1, 2))
	back := 0
	for i := range 400 {
		bad := bytes.Clone(good)
		switch kind := i % 4; kind {
		case 0, 1:
			for range 1 << r.IntN(7) {
				bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
			}
		case 2:
			at := r.IntN(len(bad))
			clear(bad[at:min(len(bad), at+1024)])
		case 3:
			bad = bad[:r.IntN(len(bad))]
		}
		hit := uint64(0)
		for at := 0; at < len(good); at += RecordSize {
			if !bytes.HasPrefix(bad[min(at, len(bad)):], good[at:at+RecordSize]) {
				hit++
			}
		}
		fs := disk(t, bad)
		k, lost, err := Open(fs, path, about(1))
		if err != nil {
			if errors.Is(err, ErrOther) && hit == uint64(len(good)/RecordSize) {
				continue
			}
			t.Fatal(err)
		}
		if lost == nil && !bytes.Equal(bad, good) && len(bad)%RecordSize != 0 {
			t.Fatalf("damage %d was not noticed", i)
		}
		before := k.Count()
		if cost := fill(t, k); cost > hit*2+hit*5 {
			t.Fatalf("damage %d: %d leaves were computed for %d nodes", i, cost, hit)
		}
		if k.Count() > before {
			back++
		}
		if k.Count()+hit < j.Count() || !bytes.HasPrefix(j.nodes, k.nodes) {
			t.Fatalf("damage %d to %d nodes: %d of %d nodes came back, or others", i, hit, k.Count(), j.Count())
		}
		if err := k.Sync(); err != nil {
			t.Fatal(err)
		}
		if _, again, lost := resume(t, fs.Crash(uint64(i))); lost != nil && k.at == foreign || again.Count() != k.Count() {
			t.Fatalf("damage %d: %d nodes after the repair, %d are expected, %v", i, again.Count(), k.Count(), lost)
		}
	}
	if back < 100 {
		t.Errorf("only %d of 400 damaged files had something whole behind the damage", back)
	}
}

// One flipped bit anywhere costs the leaves of one node, whatever height is configured
// now.
func TestOneBitCostsOneNode(t *testing.T) {
	mem := durabletest.NewMem(1 << 20)
	_, p := run(t, mem, 2, 400)
	good, all := read(t, mem, path), p.Leaves()
	for bit := range 8 * len(good) {
		if bit > 8*RecordSize && bit%41 != 0 {
			continue
		}
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		k, lost, err := Open(disk(t, bad), path, about(uint(bit)%7))
		if err != nil || lost == nil {
			t.Fatalf("bit %d: %v, %v", bit, lost, err)
		}
		cost := fill(t, k)
		if got := k.Count() << k.K(); cost > 5 || got < all-4 {
			t.Fatalf("bit %d: %d of %d leaves are there after %d were computed", bit, got, all, cost)
		}
	}
}

// What the disk held before, of another round's journal, or of this one's in another
// place, is not taken.
func TestWhatBelongsElsewhereIsNotTaken(t *testing.T) {
	mem, other := durabletest.NewMem(1<<20), durabletest.NewMem(1<<20)
	j, _ := run(t, mem, 2, 240)
	for _, h := range []About{
		{Round: 8, Members: 3, K: 2, Statement: about(2).Statement},
		{Round: 7, Members: 4, K: 2, Statement: about(2).Statement},
		{Round: 7, Members: 3, K: 2, Statement: [32]byte{1, 2, 4}},
	} {
		o := Create(other, path, h)
		advance(posw.NewProver(h.Statement[:], h.K), o, 240)
		mine, theirs := read(t, mem, path), read(t, other, path)
		for at := RecordSize; at < len(mine)-RecordSize; at += RecordSize {
			for name, b := range map[string][]byte{
				"theirs": slices.Concat(mine[:at], theirs[at:]),
				"moved":  slices.Concat(mine[:at], mine[at-RecordSize:]),
				"cut":    slices.Concat(mine[:at], mine[at+RecordSize:]),
			} {
				k, lost, err := Open(disk(t, b), path, about(2))
				if err != nil || lost == nil {
					t.Fatalf("%s at %d: %v, %v", name, at, lost, err)
				}
				if k.Count() != uint64(at/RecordSize) || k.Missing() > 0 || !bytes.HasPrefix(j.nodes, k.nodes) {
					t.Fatalf("%s at %d: %d nodes were taken", name, at, len(k.nodes)/posw.NodeSize)
				}
			}
		}
	}
}

// A file that cannot be opened or read is not taken for damage: the error is the
// disk's, nothing is written, and the next try finds everything.
func TestOneFailedCallIsNotDamage(t *testing.T) {
	for name, fails := range map[string]*failing{
		"no descriptor is free":    {open: syscall.EMFILE},
		"another user's file":      {open: syscall.EACCES},
		"no memory":                {open: syscall.ENOMEM},
		"the length is not known":  {size: syscall.EIO},
		"the header is unreadable": {read: syscall.EIO, from: 0},
		"a sector is unreadable":   {read: syscall.EIO, from: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			mem := durabletest.NewMem(1 << 20)
			_, p := run(t, mem, 1, 50, 51, 49, 64, 80, 200)
			good := read(t, mem, path)
			counted := durabletest.NewFaulty(mem)
			fails.FS = counted
			_, _, err := Open(fails, path, about(1))
			if want := cmp.Or(fails.open, fails.size, fails.read); !errors.Is(err, want) {
				t.Fatalf("error %v", err)
			}
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrOther) {
				t.Fatalf("%v would make the worker start from leaf 0", err)
			}
			if did := counted.Done(); len(did) > 0 || !bytes.Equal(read(t, mem, path), good) {
				t.Fatalf("the file was changed: %v", did)
			}
			if q, _, lost := resume(t, mem); lost != nil || q.Kept() != p.Kept() {
				t.Fatalf("%d leaves at the next try, %v", q.Leaves(), lost)
			}
		})
	}
}

// failing is a file system on which opening, the length, or reading from a byte on
// fails.
type failing struct {
	durable.FS
	open, size, read error
	from             int64
}

func (f *failing) Open(name string) (durable.File, error) {
	if f.open != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: f.open}
	}
	file, err := f.FS.Open(name)
	return &failingFile{file, f}, err
}

type failingFile struct {
	durable.File
	fs *failing
}

func (f *failingFile) Size() (int64, error) {
	if f.fs.size != nil {
		return 0, f.fs.size
	}
	return f.File.Size()
}

func (f *failingFile) ReadAt(p []byte, off int64) (int, error) {
	if f.fs.read == nil || off+int64(len(p)) <= f.fs.from {
		return f.File.ReadAt(p, off)
	}
	n, _ := f.File.ReadAt(p[:max(0, f.fs.from-off)], off)
	return n, f.fs.read
}

// Open writes nothing, whatever it finds. A cut end is cut off by the next Sync; a
// file that is damaged is kept, each under its own name, and never replaced.
func TestDamagedFilesAreKept(t *testing.T) {
	mem := durabletest.NewMem(1 << 20)
	j, p := run(t, mem, 1, 50, 51, 49, 64, 80, 200)
	good := read(t, mem, path)
	want := map[string][]byte{}
	for i, name := range []string{path + ".bad", path + ".bad1", path + ".bad2"} {
		bad := bytes.Clone(good)
		bad[len(bad)/8*(i+1)] ^= 1
		want[name] = bad
		if err := durable.WriteFile(mem, path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		counted := durabletest.NewFaulty(mem)
		k, lost, err := Open(counted, path, about(1))
		if err != nil || lost == nil {
			t.Fatal(lost, err)
		}
		if did := counted.Done(); len(did) > 0 {
			t.Fatalf("Open did %v", did)
		}
		if err := k.Sync(); err != nil || !bytes.Equal(read(t, mem, path), bad) {
			t.Fatalf("the damaged file was touched before the gap was filled: %v", err)
		}
		fill(t, k)
		if err := k.Sync(); err != nil || k.Kept() != name {
			t.Fatalf("kept as %q: %v", k.Kept(), err)
		}
		for name, content := range want {
			if !bytes.Equal(read(t, mem, name), content) {
				t.Fatalf("%s is not the damaged file any more", name)
			}
		}
		if q, _, lost := resume(t, mem.Crash(1)); lost != nil || q.Kept() != p.Kept() {
			t.Fatalf("%d leaves after the repair, %v", q.Leaves(), lost)
		}
	}
	if err := errors.Join(j.Close(), Remove(j.fs, j.path)); err != nil {
		t.Fatal(err)
	}
	if names, _ := mem.ReadDir("/rounds"); len(names) != 3 {
		t.Fatalf("after the round: %v", names)
	}
}

// A file about something else stands in the way of a new journal: it is kept.
func TestForeignFileIsKept(t *testing.T) {
	mem := durabletest.NewMem(1 << 20)
	other := about(1)
	other.Members++
	o := Create(mem, path, other)
	o.Append(make([]byte, 5*posw.NodeSize))
	if err := o.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(mem, path, about(1)); !errors.Is(err, ErrOther) {
		t.Fatal(err)
	}
	was := read(t, mem, path)
	run(t, mem, 1, 50)
	if !bytes.Equal(read(t, mem, path+".bad"), was) {
		t.Fatal("it is gone")
	}
	if _, j, _ := resume(t, mem); j.Count() != 25 {
		t.Fatal("the new journal is not there")
	}
}

// Repairing a damaged journal is stopped at every operation, without power: the good
// leaves are there at the next start.
func TestEveryCrashPointOfARepair(t *testing.T) {
	mem := durabletest.NewMem(1 << 20)
	_, p := run(t, mem, 3, 50, 1, 49, 64, 80)
	bad := read(t, mem, path)
	bad[len(bad)/3] ^= 8
	for at := 1; ; at++ {
		for _, how := range []durabletest.How{durabletest.Before, durabletest.Torn, durabletest.After} {
			for seed := range uint64(6) {
				mem := disk(t, bad)
				fs := durabletest.NewFaulty(mem)
				fs.Set(durabletest.Fault{At: at, How: how})
				j, _, err := Open(fs, path, about(3))
				if err != nil {
					t.Fatal(err)
				}
				fill(t, j)
				done := j.Sync() == nil
				_, k, _ := resume(t, mem.Crash(seed))
				fill(t, k)
				if got := k.Count() << 3; got != p.Kept()<<3 {
					t.Fatalf("at %d/%d seed %d: %d leaves of %d", at, how, seed, got, p.Leaves())
				}
				if done && how == durabletest.After && seed == 5 {
					return
				}
			}
		}
	}
}

// A node that is wrong in memory, which Doubt names, costs that node; the file, which
// may be wrong too, is kept aside.
func TestDoubt(t *testing.T) {
	mem := durabletest.NewMem(1 << 20)
	j, p := run(t, mem, 2, 402)
	was := read(t, mem, path)
	j.nodes[50*posw.NodeSize+3] ^= 1
	j.Doubt(50, 51)
	if saved, _ := j.Saved(); j.Count() != 50 || saved != 200 {
		t.Fatalf("%d nodes, %d leaves saved", j.Count(), saved)
	}
	if cost := fill(t, j); cost > 5 || j.Count() != p.Kept() {
		t.Fatalf("%d nodes after %d leaves were computed", j.Count(), cost)
	}
	if err := j.Sync(); err != nil || !bytes.Equal(read(t, mem, path), was) || !bytes.Equal(read(t, mem, j.Kept()), was) {
		t.Fatalf("%v, kept as %q", err, j.Kept())
	}
	proveBoth(t, restore(t, j), j)
	j.Doubt(50, j.Count())
	if j.Missing() > 0 || j.Count() != 50 {
		t.Fatalf("%d nodes", j.Count())
	}
	proveBoth(t, restore(t, j), j)
}

// BenchmarkOpenMainnet measures a start in the last minute of a round of mainnet:
// reading the journal, and the prover's tree
// (reference/poet.md 2.4).
func BenchmarkOpenMainnet(b *testing.B) {
	const nodes = 78_000_000_000 >> 14
	dir := b.TempDir()
	h := about(14)
	j := Create(durable.OS{}, Path(dir, 1), h)
	r := rand.NewChaCha8([32]byte{})
	buf := make([]byte, 1000*posw.NodeSize)
	for range nodes / 1000 {
		r.Read(buf)
		j.Append(buf)
	}
	if err := j.Sync(); err != nil {
		b.Fatal(err)
	}
	j.Close()
	for b.Loop() {
		j, _, err := Open(durable.OS{}, Path(dir, 1), h)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := posw.Resume(h.Statement[:], h.K, j.Reader(), j.Count()); err != nil {
			b.Fatal(err)
		}
		j.Close()
	}
}

func FuzzOpen(f *testing.F) {
	mem := durabletest.NewMem(1 << 20)
	h := about(1)
	p := posw.NewProver(h.Statement[:], 1)
	j := Create(mem, path, h)
	advance(p, j, 5, 6, 30)
	good, _ := durable.ReadFile(mem, path, 1<<20)
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := durabletest.NewMem(1 << 24)
		durable.WriteFile(fs, path, b, 0o600)
		j, lost, err := Open(fs, path, about(1))
		if err != nil {
			return
		}
		if rest, _ := durable.ReadFile(fs, path, 1<<24); !bytes.Equal(b, rest) {
			t.Fatal("Open changed the file")
		}
		if len(j.nodes) > len(b) {
			t.Fatalf("%d bytes of nodes in a file of %d", len(j.nodes), len(b))
		}
		if lost == nil && bytes.Equal(b, good) && j.Count() != p.Kept() {
			t.Fatal("the good file came back as another")
		}
		if j.K() == 1 {
			fill(t, j)
		}
	})
}
