//go:build linux

package rounds

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tweedle/services/poet"

	"golang.org/x/sys/unix"
)

// On a real file system that runs full while a round executes: registrations are
// refused, the round goes on in its reserved room, its proof is saved in that of the
// ballast, and when there is room again everything is as if nothing had been.
func TestSmallDisk(t *testing.T) {
	t.Parallel() // it waits most of its time
	mount := t.TempDir()
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("SKIPPED: no small file system can be mounted here (%v); the simulated disks of the other tests do run", err)
	}
	defer unix.Unmount(mount, unix.MNT_DETACH)
	cfg := config(t, time.Now().Add(time.Second))
	cfg.Dir = filepath.Join(mount, "poet")
	cfg.Schedule.PhaseShift, cfg.Schedule.EpochDuration, cfg.Schedule.CycleGap = 0, 9*time.Second, 4*time.Second
	cfg.Work.K, cfg.BallastBytes, cfg.SubmitFlush = 1, 2<<20, time.Millisecond
	cfg.Work.LeavesPerSecond, cfg.Work.MaxLeavesPerSecond, cfg.Work.CheckpointInterval = 5000, 5000, 50*time.Millisecond
	s := start(t, cfg)
	receipts := []poet.Receipt{s.register(0), s.register(1)}
	for s.Rounds()[0].Checkpoint == 0 {
		time.Sleep(5 * time.Millisecond)
	}

	filler := filepath.Join(mount, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	fill := func() {
		var err error
		for block := 1 << 20; block >= 4<<10; block /= 2 {
			for err = nil; err == nil; {
				_, err = f.Write(make([]byte, block))
			}
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	fill()

	refused, again := 0, false
	for i := 2; s.count(poet.EventProved) == 0; i++ {
		if !again && s.count(poet.EventBallast) > 0 {
			again = true
			fill() // a busy machine has no time for so many registrations
		}
		r, err := s.Submit(context.Background(), request(s.PowParams(), i))
		switch {
		case err == nil:
			receipts = append(receipts, r)
		case errors.Is(err, poet.ErrDiskFull):
			refused++
		default:
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	p := s.checkProof("0")
	t.Logf("%d registrations stored, %d refused, %d leaves", len(receipts), refused, p.Message.Proof.NumLeaves)
	if refused == 0 || s.count(poet.EventBallast) == 0 {
		t.Errorf("the disk was not full: %d refused, ballast released %d times", refused, s.count(poet.EventBallast))
	}
	if n := s.count(poet.EventJournalPaused); n != 0 {
		t.Errorf("journal paused %d times although its room was reserved", n)
	}
	f.Close() // what is open goes on to take room
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	receipts = append(receipts, s.register(1_000_000))
	last := receipts[len(receipts)-1].Round
	for range s.proofs {
		if _, err := s.Proof(t.Context(), last); err == nil {
			break
		}
	}
	s.close()
	s = start(t, cfg)
	defer s.close()
	for _, r := range receipts {
		s.checkMember(r)
		s.checkProof(r.Round)
	}
}
