package work

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/base/durable"
	"tweedle/base/durable/durabletest"
	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/services/poet/journal"
)

// unreadable is a disk on which the first tries to open or read a journal fail.
type unreadable struct {
	durable.FS
	tries atomic.Int64
	open  error
	edit  error
	read  error
}

func (u *unreadable) Open(name string) (durable.File, error) {
	if filepath.Ext(name) != ".journal" || u.tries.Load() <= 0 {
		return u.FS.Open(name)
	}
	if u.open != nil {
		u.tries.Add(-1)
		return nil, &os.PathError{Op: "open", Path: name, Err: u.open}
	}
	f, err := u.FS.Open(name)
	return &unreadableFile{f, u}, err
}

func (u *unreadable) Edit(name string) (durable.File, error) {
	if u.edit != nil && filepath.Ext(name) == ".journal" {
		return nil, &os.PathError{Op: "open", Path: name, Err: u.edit}
	}
	return u.FS.Edit(name)
}

type unreadableFile struct {
	durable.File
	fs *unreadable
}

func (f *unreadableFile) ReadAt(p []byte, off int64) (int, error) {
	if f.fs.read != nil && f.fs.tries.Load() > 0 {
		f.fs.tries.Add(-1)
		return 0, f.fs.read
	}
	return f.File.ReadAt(p, off)
}

// worked runs a worker for a minute's round until shortly before its end, and returns
// the job, the disk, and how many leaves are on it.
func worked(t *testing.T, cfg Config) (Job, *durabletest.Mem, uint64) {
	t.Helper()
	mem := durabletest.NewMem(1 << 24)
	cfg.FS = mem
	j := job(1, 0, 60*time.Second)
	_, _, stop := labour(t, cfg, newSource(j))
	time.Sleep(50 * time.Second)
	stop()
	saved, lost, err := journal.Open(mem, journal.Path(cfg.Dir, 1), j.about(3))
	if err != nil || lost != nil {
		t.Fatal(err, lost)
	}
	leaves, _ := saved.Saved()
	if leaves < 49_000 {
		t.Fatalf("only %d leaves were saved", leaves)
	}
	return j, mem, leaves
}

// A journal that cannot be opened or read for a moment is tried again; the round goes
// on from it, and does not begin anew.
func TestJournalThatCannotBeReadOnce(t *testing.T) {
	for name, disk := range map[string]*unreadable{
		"no file may be opened": {open: syscall.EMFILE},
		"no memory":             {open: syscall.ENOMEM},
		"the disk hiccups":      {read: syscall.EIO},
		"it cannot be written":  {edit: syscall.EACCES},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := workerConfig(t)
				j, mem, saved := worked(t, cfg)
				disk.FS = mem
				disk.tries.Store(3)
				cfg.FS = disk
				src := newSource(j)
				_, events, stop := labour(t, cfg, src)
				src.waitFor(1)
				stop()
				if got := src.done[1].Proof.NumLeaves; got < saved {
					t.Errorf("%d leaves were on the disk, the proof has %d", saved, got)
				}
				if disk.edit == nil && events(poet.EventJournalUnreadable) != 1 || events(poet.EventDamage) != 0 {
					t.Errorf("%d events of an unreadable journal, %d of damage", events(poet.EventJournalUnreadable), events(poet.EventDamage))
				}
			})
		})
	}
}

// A journal that stays unreadable ends the worker with an error that says what to do.
// The file is as it was.
func TestJournalThatStaysUnreadable(t *testing.T) {
	for name, disk := range map[string]*unreadable{
		"another user's": {open: syscall.EACCES},
		"a bad disk":     {read: syscall.EIO},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := workerConfig(t)
				j, mem, _ := worked(t, cfg)
				before, err := durable.ReadFile(mem, journal.Path(cfg.Dir, 1), 1<<24)
				if err != nil {
					t.Fatal(err)
				}
				disk.FS = mem
				disk.tries.Store(1 << 40)
				cfg.FS, cfg.Emit = disk, func(poet.Event) {}
				w, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				err = w.Run(t.Context(), newSource(j))
				if want := errors.Join(disk.open, disk.read).Error(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %v", err)
				}
				if took := time.Since(begin); took < openPatience || took > openPatience+2*retryInterval {
					t.Errorf("it took %s", took)
				}
				after, err := durable.ReadFile(mem, journal.Path(cfg.Dir, 1), 1<<24)
				if err != nil || !bytes.Equal(before, after) {
					t.Errorf("the journal was changed, %v", err)
				}
			})
		})
	}
}

// One flipped bit at one percent of the journal costs a few leaves, also when the
// round's time is over; the damaged file is kept.
func TestDamagedJournalIsMended(t *testing.T) {
	for name, late := range map[string]time.Duration{"in time": 0, "late": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := workerConfig(t)
				j, mem, saved := worked(t, cfg)
				path := journal.Path(cfg.Dir, 1)
				bad, err := durable.ReadFile(mem, path, 1<<24)
				if err != nil {
					t.Fatal(err)
				}
				bad[len(bad)/100] ^= 1
				if err := durable.WriteFile(mem, path, bad, 0o600); err != nil {
					t.Fatal(err)
				}
				time.Sleep(late)
				cfg.FS = mem
				src := newSource(j)
				src.fail = func(Result) error {
					if content, err := durable.ReadFile(mem, path+".bad", 1<<24); err != nil || !bytes.Equal(content, bad) {
						t.Errorf("the damaged file is not kept: %v", err)
					}
					return nil
				}
				_, events, stop := labour(t, cfg, src)
				src.waitFor(1)
				stop()
				if got := src.done[1].Proof.NumLeaves; got < saved {
					t.Errorf("%d leaves were on the disk, the proof has %d", saved, got)
				}
				if events(poet.EventDamage) != 2 || events(poet.EventResumed) != 2 {
					t.Errorf("%d events of damage, %d of going on", events(poet.EventDamage), events(poet.EventResumed))
				}
			})
		})
	}
}

// A journal of another round in the way is kept, and the round begins at leaf 0.
func TestForeignJournalIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := workerConfig(t)
		_, mem, _ := worked(t, cfg)
		cfg.FS = mem
		other := job(1, 0, time.Second)
		other.Statement[5]++
		src := newSource(other)
		_, events, stop := labour(t, cfg, src)
		src.waitFor(1)
		stop()
		if names, _ := mem.ReadDir(cfg.Dir); fmt.Sprint(names) != "[1.journal.bad]" {
			t.Errorf("left: %v", names)
		}
		if events(poet.EventDamage) != 2 {
			t.Errorf("%d events", events(poet.EventDamage))
		}
	})
}

// A kept node that a bit flipped in is found, and costs at most itself; in memory
// only, in the file too, and near either end.
func TestDamagedMemoryIsMended(t *testing.T) {
	for _, inFile := range []bool{false, true} {
		for _, node := range []int{0, 3, 62, 123, 124} {
			synctest.Test(t, func(t *testing.T) {
				cfg := workerConfig(t)
				cfg.FS = durabletest.NewMem(1 << 24)
				j := job(1, -10*time.Second, 0)
				src := newSource()
				src.all[1] = j
				w, events, stop := labour(t, cfg, src)
				good := posw.NewProver(j.statement(), 3)
				kept := good.Advance(1003, nil)
				bad := bytes.Clone(kept)
				bad[node*posw.NodeSize] ^= 4

				r := &run{job: j, k: 3, prover: good, journal: journal.Create(w.fs, journal.Path(w.dir, 1), j.about(3))}
				if !inFile {
					onDisk := journal.Create(w.fs, journal.Path(w.dir, 1), j.about(3))
					onDisk.Append(kept)
					if err := onDisk.Sync(); err != nil {
						t.Fatal(err)
					}
				}
				r.journal.Append(bad)
				if inFile {
					if err := r.journal.Sync(); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.finish(t.Context(), src, r); err != nil {
					t.Fatal(err)
				}
				stop()
				if events(poet.EventDamage) == 0 {
					t.Error("damage was not told")
				}
				if got := src.done[1].Proof.NumLeaves; got < 984 || got > 1003 || got < 1000 && node < 124 {
					t.Errorf("node %d, in the file %v: proof of %d leaves", node, inFile, got)
				}
			})
		}
	}
}

// A prover whose own state was damaged is made again from what was kept.
func TestDamagedProverIsMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := workerConfig(t)
		cfg.FS = durabletest.NewMem(1 << 24)
		j := job(1, -10*time.Second, 0)
		src := newSource()
		src.all[1] = j
		w, _, stop := labour(t, cfg, src)
		good, other := posw.NewProver(j.statement(), 3), posw.NewProver([]byte("other"), 3)
		r := &run{job: j, k: 3, prover: other, journal: journal.Create(w.fs, journal.Path(w.dir, 1), j.about(3))}
		r.journal.Append(good.Advance(1000, nil))
		other.Advance(1000, nil)
		if err := w.finish(t.Context(), src, r); err != nil {
			t.Fatal(err)
		}
		stop()
		if got := src.done[1].Proof.NumLeaves; got != 1000 {
			t.Errorf("proof of %d leaves", got)
		}
	})
}

// A source that takes a right proof for wrong, for days, costs the round nothing: it is
// told once, the data stay, and the same proof is stored when the source is mended.
func TestRefusedProofCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := workerConfig(t)
		cfg.FS = durabletest.NewMem(1 << 24)
		src := newSource(job(1, 0, 10*time.Second))
		least, broken := uint64(1<<40), true
		src.fail = func(r Result) error {
			least = min(least, r.Proof.NumLeaves)
			if broken {
				return fmt.Errorf("statement is another: %w", poet.ErrBadProof)
			}
			return nil
		}
		w, events, stop := labour(t, cfg, src)
		time.Sleep(48 * time.Hour)
		if events(poet.EventProofRefused) != 1 || events(poet.EventDamage) != 0 {
			t.Errorf("%d events of a refusal, %d of damage", events(poet.EventProofRefused), events(poet.EventDamage))
		}
		if names, _ := cfg.FS.ReadDir(w.dir); len(names) != 1 {
			t.Errorf("files: %v", names)
		}
		src.mu.Lock()
		broken = false
		src.mu.Unlock()
		src.waitFor(1)
		stop()
		if got := src.done[1].Proof.NumLeaves; got != least || got < 9500 {
			t.Errorf("proof of %d leaves, the least that was offered had %d", got, least)
		}
	})
}

// An error of the source ends the worker, which returns it.
func TestErrorOfTheSourceEndsTheWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := workerConfig(t)
		cfg.Emit = func(poet.Event) {}
		w, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		gone := errors.New("the database is gone")
		src := &brokenSource{source: newSource(job(1, 0, time.Hour)), err: gone}
		if err := w.Run(t.Context(), src); !errors.Is(err, gone) {
			t.Errorf("error %v", err)
		}
	})
}

// brokenSource fails when it is asked for the second round, and about stored proofs.
type brokenSource struct {
	*source
	err   error
	asked bool
}

func (s *brokenSource) Next(context.Context) (Job, error) {
	if s.asked {
		return Job{}, s.err
	}
	s.asked = true
	j := job(1, 0, time.Second)
	s.all[1] = j
	return j, nil
}

func (s *brokenSource) Stored(context.Context, uint32) (bool, error) { return false, s.err }

// A leftover journal of which nobody knows whether its proof is stored stays, and
// keeps nothing else from going on.
func TestLeftoverOfAnUnknownProofStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := workerConfig(t)
		_, mem, _ := worked(t, cfg)
		cfg.FS = mem
		told := 0
		cfg.Emit = func(e poet.Event) {
			if e.Kind == poet.EventDamage {
				told++
			}
		}
		w, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		src := &brokenSource{source: newSource(), err: poet.ErrDamaged}
		if err := w.Run(t.Context(), src); !errors.Is(err, poet.ErrDamaged) || !src.asked || told == 0 {
			t.Errorf("error %v, asked for rounds %v, told %d", err, src.asked, told)
		}
		if names, _ := mem.ReadDir(cfg.Dir); len(names) == 0 {
			t.Error("the journal is gone")
		}
	})
}
