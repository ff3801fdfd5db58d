package rounds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/base/durable"
	"tweedle/services/poet"
	"tweedle/services/poet/book"
	"tweedle/services/poet/journal"
	"tweedle/services/poet/work"
)

// readTree returns the files of a directory.
func readTree(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[path[len(dir)+1:]] = data
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func writeTree(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		// Without writing the zeros that a database grows ahead by.
		err := os.WriteFile(path, bytes.TrimRight(data, "\x00"), 0o600)
		if err := errors.Join(err, os.Truncate(path, int64(len(data)))); err != nil {
			t.Fatal(err)
		}
	}
}

// damage flips 1 to 64 bits of a file, zeroes a page, or cuts it.
func damage(r *rand.Rand, data []byte) (string, []byte) {
	bad := append([]byte(nil), data...)
	data = bytes.TrimRight(data, "\x00") // the database grows ahead of its use
	switch r.IntN(8) {
	case 0:
		at := r.IntN(len(data)) / boltPage * boltPage
		clear(bad[at:min(len(bad), at+boltPage)])
		return fmt.Sprintf("zeroed page at %d", at), bad
	case 1:
		n := r.IntN(len(data))
		return fmt.Sprintf("cut to %d", n), bad[:n]
	}
	n := 1 << r.IntN(7)
	// Near each other as often as anywhere: a bad sector, a bad page.
	base, span := 0, len(data)
	if r.IntN(2) == 0 {
		span = min(len(data), boltPage)
		base = r.IntN(len(data) - span + 1)
	}
	for range n {
		bad[base+r.IntN(span)] ^= 1 << r.IntN(8)
	}
	return fmt.Sprintf("%d bits near %d", n, base), bad
}

// Any damage to any file is found at the start, with the file's name and what to
// do; or it is harmless: all members and proofs are right. Nothing in between.
func TestDamageIsFoundOrHarmless(t *testing.T) {
	trials := int(envInt("POET_DAMAGES", 30))
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		trials = 10_000
	}
	seed := uint64(envInt("POET_SEED", time.Now().UnixNano()))
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	found, harmless := map[string]int{}, map[string]int{}
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, time.Now())
		cfg.Work.LeavesPerSecond, cfg.Work.MaxLeavesPerSecond, cfg.Work.K = 200, 200, 2
		cfg.SubmitFlush = time.Millisecond
		s := start(t, cfg)
		var acks []poet.Receipt
		for i := range 40 {
			acks = append(acks, s.register(i))
		}
		<-s.proofs
		want := s.checkProof("0")
		for i := 40; i < 60; i++ {
			acks = append(acks, s.register(i))
		}
		time.Sleep(time.Until(cfg.Schedule.Start(1)) + time.Second) // in the middle of round 1
		s.close()
		files := readTree(t, cfg.Dir)
		for _, name := range []string{book.DatabaseName, IdentityName, "rounds/1.journal", BallastName} {
			if len(files[name]) == 0 {
				t.Fatalf("no %s among the files", name)
			}
		}
		names := []string{book.DatabaseName, book.DatabaseName, book.DatabaseName, "rounds/1.journal", IdentityName, BallastName}
		for trial := range trials {
			name := names[r.IntN(len(names))]
			what, bad := damage(r, files[name])
			what = fmt.Sprintf("trial %d, %s: %s", trial, name, what)
			cfg.Dir = filepath.Join(t.TempDir(), "poet")
			writeTree(t, cfg.Dir, files)
			writeTree(t, cfg.Dir, map[string][]byte{name: bad})
			if tryDamaged(t, cfg, what, filepath.Base(name), acks, want, len(files["rounds/1.journal"])) {
				found[name]++
			} else {
				harmless[name]++
			}
			os.RemoveAll(filepath.Dir(cfg.Dir))
		}
	})
	t.Logf("found %v, harmless %v", found, harmless)
}

// tryDamaged starts on a damaged directory and tells whether the damage was found.
func tryDamaged(t *testing.T, cfg Config, what, name string, acks []poet.Receipt, want poet.ProofRecord, journalSize int) (found bool) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			t.Fatalf("%s: panic: %v", what, p)
		}
	}()
	svc, err := Open(cfg)
	if err != nil {
		if !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "restore") && !strings.Contains(err.Error(), "start with") {
			t.Fatalf("%s: message names neither file nor remedy: %v", what, err)
		}
		return true
	}
	// In place of time that passes: what a worker would load.
	judge := server{Service: svc, t: t}
	for _, r := range acks[:40] {
		judge.checkMember(r)
	}
	now := judge.checkProof("0")
	if now.Message.Proof.Root != want.Message.Proof.Root {
		t.Fatalf("%s: another proof", what)
	}
	job := closedJob(t, svc, 1)
	if job.Members != 20 {
		t.Fatalf("%s: %d members", what, job.Members)
	}
	if err := svc.Close(); err != nil {
		t.Fatal(err)
	}
	return tryJournal(t, cfg, what, job, journalSize)
}

// closedJob is the work on a closed round, as the machine gives it out at a start.
func closedJob(t *testing.T, svc *Service, number uint32) work.Job {
	t.Helper()
	svc.machine.Step(time.Now(), nil)
	root, members, err := svc.book.Root(t.Context(), number)
	if err != nil {
		t.Fatal(err)
	}
	for _, job := range svc.machine.Step(time.Now(), Sealed{number, root, members}).Execute {
		if job.Round == number {
			return job
		}
	}
	t.Fatalf("round %d does not execute", number)
	return work.Job{}
}

// tryJournal lets a worker finish the round from what it finds, and tells whether
// it found damage. The proof must be that of an uninterrupted run. The size is that of
// the undamaged journal.
func tryJournal(t *testing.T, cfg Config, what string, job work.Job, size int) (found bool) {
	t.Helper()
	resumed := uint64(0)
	cfg.Work.Dir, cfg.Work.FS = filepath.Join(cfg.Dir, roundsDir), durable.OS{}
	cfg.Work.Emit = func(e poet.Event) {
		switch e.Kind {
		case poet.EventDamage:
			found = true
		case poet.EventResumed:
			fmt.Sscanf(e.Text, "round goes on from leaf %d", &resumed)
		}
	}
	worker, err := work.New(cfg.Work)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(journal.Path(cfg.Work.Dir, job.Round))
	if err != nil {
		t.Fatal(err)
	}
	// Cut between two records it is what it was some time ago.
	cut := info.Size() < int64(size) && info.Size()%journal.RecordSize == 0
	job.End = time.Now() // in place of time that passes
	ctx, cancel := context.WithCancel(t.Context())
	judge := &oneJob{job: job, done: cancel}
	if err := worker.Run(ctx, judge); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if resumed < 50 && !found && !cut {
		t.Fatalf("%s: %d leaves and no word", what, resumed)
	}
	about := poet.ProofRecord{Members: make([][32]byte, job.Members)}
	about.Message.Statement, about.Message.Proof.Root = job.Statement, judge.result.Proof.Root
	about.Message.Proof.NumLeaves = judge.result.Proof.NumLeaves
	checkRoot(t, about)
	return found
}

// oneJob is a work.Source of one job; done is called when it ends.
type oneJob struct {
	job    work.Job
	given  bool
	result work.Result
	done   func()
}

func (o *oneJob) Next(ctx context.Context) (work.Job, error) {
	if o.given {
		<-ctx.Done()
		return work.Job{}, ctx.Err()
	}
	o.given = true
	return o.job, nil
}

func (o *oneJob) Finish(_ context.Context, r work.Result) error {
	o.result = r
	o.done()
	return nil
}

func (o *oneJob) Stored(context.Context, uint32) (bool, error) { return false, nil }

// The heads of the database: without one of the two nobody can know whether the
// last transaction is there, so a person must decide.
func TestOneDamagedHead(t *testing.T) {
	cfg := config(t, time.Now())
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	path := filepath.Join(cfg.Dir, book.DatabaseName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[boltPage+16+50] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); !errors.Is(err, poet.ErrDamaged) {
		t.Fatalf("started: %v", err)
	}
	cfg.AcceptOlderState = true
	s, err = Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// What another process, program, network or user has is left alone, and the
// message says what to do.
func TestForeignDirectories(t *testing.T) {
	cfg := config(t, time.Now())
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second process: %v", err)
	}
	s.Close()
	other := cfg
	other.Schedule.CycleGap++
	if _, err := Open(other); err == nil || !strings.Contains(err.Error(), "made for another genesis") {
		t.Errorf("other schedule: %v", err)
	}
	other = cfg
	other.Key = smesher(1)
	if _, err := Open(other); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("other key: %v", err)
	}
	if s, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	s.Close()
	info, err := os.Stat(filepath.Join(cfg.Dir, IdentityName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
}
