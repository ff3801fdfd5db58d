package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"tweedle/base/durable"
	"tweedle/base/durable/durabletest"
	"tweedle/proofs/posw"
	"tweedle/values/types"
)

const path = "/rounds/7.journal"

func header(k uint) Header {
	return Header{Round: 7, Members: 3, Start: 1000, End: 2000, K: k, Statement: [32]byte{1, 2, 3}}
}

// run computes leaves under a journal and syncs it after each step.
func run(t *testing.T, fs durable.FS, k uint, steps ...uint64) (*Journal, *posw.Prover) {
	t.Helper()
	h := header(k)
	p := posw.NewProver(h.Statement[:], k)
	j := Create(fs, path, h)
	advance(p, j, steps...)
	return j, p
}

func advance(p *posw.Prover, j *Journal, steps ...uint64) {
	for _, n := range steps {
		nodes := p.Advance(n, nil)
		cp := p.Checkpoint()
		j.Append(nodes, &cp)
		j.Sync()
	}
}

// resume opens the journal and goes on; the result must be what an
// uninterrupted prover would have.
func resume(t *testing.T, fs durable.FS) (*posw.Prover, *Journal, error) {
	t.Helper()
	j, lost, err := Open(fs, path)
	if err != nil {
		t.Fatal(err)
	}
	cp, err := j.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	h := j.Header()
	p, err := posw.Resume(h.Statement[:], h.K, j.Reader(), cp)
	if err != nil {
		t.Fatal(err)
	}
	return p, j, lost
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
	h := j.Header()
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
		if saved, _ := j.Saved(); saved != p.Leaves() {
			t.Fatalf("k=%d: %d of %d leaves saved", k, saved, p.Leaves())
		}
		p, j, lost := resume(t, fs.Crash(1))
		if lost != nil || p.Leaves() != 261 {
			t.Fatalf("k=%d: %d leaves, lost %v", k, p.Leaves(), lost)
		}
		advance(p, j, 77)
		proveBoth(t, p, j)
	}
}

// A sync without a marked checkpoint goes to the last kept node.
func TestSyncGoesToTheLastKeptNode(t *testing.T) {
	fs := durabletest.NewMem(1 << 20)
	h := header(4)
	p := posw.NewProver(h.Statement[:], 4)
	j := Create(fs, path, h)
	j.Append(p.Advance(39, nil), nil)
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	p, j, _ = resume(t, fs.Crash(1))
	if p.Leaves() != 32 {
		t.Fatalf("%d leaves", p.Leaves())
	}
	advance(p, j, 200)
	proveBoth(t, p, j)
}

// Many nodes at once become several chunks, and are read back.
func TestLongPiecesAreSplit(t *testing.T) {
	fs := durabletest.NewMem(16 << 20)
	j := Create(fs, path, header(0))
	nodes := make([]byte, (2*maxChunkNodes+5)*posw.NodeSize)
	for i := range nodes {
		nodes[i] = byte(i / 7)
	}
	j.Append(nodes, nil)
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	j, lost, err := Open(fs, path)
	if err != nil || lost != nil {
		t.Fatal(err, lost)
	}
	if got := j.slice(nil, 0, j.nodes); !bytes.Equal(got, nodes) {
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
				if saved, _ := j.Saved(); saved != p.Leaves() {
					t.Fatalf("%v at %d: %d leaves saved of %d", cause, at, saved, p.Leaves())
				}
				q, k, lost := resume(t, mem.Crash(uint64(at)))
				if lost != nil || q.Leaves() != p.Leaves() {
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
	if q, _, _ := resume(t, mem.Crash(3)); q.Leaves() != 20 {
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

// Flipped bits, a zeroed page, a cut: what is damaged is dropped, the rest is
// right; never other nodes.
func TestDamageIsFound(t *testing.T) {
	mem := durabletest.NewMem(1 << 20)
	j, _ := run(t, mem, 1, 50, 51, 49, 64, 80, 200)
	good, err := durable.ReadFile(mem, path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	nodes := j.slice(nil, 0, j.nodes)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		bad := bytes.Clone(good)
		switch kind := i % 4; kind {
		case 0, 1:
			for range 1 << r.IntN(7) {
				bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
			}
		case 2:
			at := r.IntN(len(bad))
			clear(bad[at:min(len(bad), at+4096)])
		case 3:
			bad = bad[:r.IntN(len(bad))]
		}
		fs := durabletest.NewMem(1 << 20)
		if err := durable.WriteFile(fs, path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		k, lost, err := Open(fs, path)
		if errors.Is(err, ErrDamaged) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if lost == nil && !bytes.Equal(bad, good) && k.saved == j.saved {
			t.Fatalf("damage %d was not noticed", i)
		}
		got := k.slice(nil, 0, k.nodes)
		if !bytes.HasPrefix(nodes, got) {
			t.Fatalf("damage %d: other nodes came back", i)
		}
		resume(t, fs)
	}
}

// BenchmarkOpenMainnet measures a start in the last minute of a round of mainnet:
// reading the journal, its checkpoint, and the prover's tree
// (reference/poet.md 2.4).
func BenchmarkOpenMainnet(b *testing.B) {
	const nodes = 78_000_000_000 >> 14
	dir := b.TempDir()
	h := header(14)
	j := Create(durable.OS{}, Path(dir, 1), h)
	r := rand.NewChaCha8([32]byte{})
	buf := make([]byte, 1000*posw.NodeSize)
	for range nodes / 1000 {
		r.Read(buf)
		j.Append(buf, nil)
	}
	if err := j.Sync(); err != nil {
		b.Fatal(err)
	}
	j.Close()
	for b.Loop() {
		j, _, err := Open(durable.OS{}, Path(dir, 1))
		if err != nil {
			b.Fatal(err)
		}
		cp, err := j.Checkpoint()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := posw.Resume(h.Statement[:], h.K, j.Reader(), cp); err != nil {
			b.Fatal(err)
		}
		j.Close()
	}
}

func FuzzOpen(f *testing.F) {
	mem := durabletest.NewMem(1 << 20)
	h := header(1)
	p := posw.NewProver(h.Statement[:], 1)
	j := Create(mem, path, h)
	advance(p, j, 5, 6, 30)
	good, _ := durable.ReadFile(mem, path, 1<<20)
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := durabletest.NewMem(1 << 24)
		durable.WriteFile(fs, path, b, 0o600)
		j, lost, err := Open(fs, path)
		if err != nil {
			return
		}
		if _, err := j.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		// What was accepted is what writing the same again makes.
		rest, _ := durable.ReadFile(fs, path, 1<<24)
		if !bytes.HasPrefix(b, rest) || lost == nil && len(rest) != len(b) {
			t.Fatal("file changed more than by a cut")
		}
	})
}
