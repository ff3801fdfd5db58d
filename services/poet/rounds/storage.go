package rounds

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"tweedle/base/clock"
	"tweedle/base/durable"
	"tweedle/services/poet"
	"tweedle/values/types"
)

// BallastName is the file in the data directory that is given up for a proof.
const BallastName = "ballast"

const (
	// memberBytes is the room that one registration takes in the database, at
	// worst about: pages of its tree are half full.
	memberBytes = 256

	// proofBytes is the room for a stored proof and its round, at most: the
	// largest proof twice, since pages are copied before they are replaced.
	proofBytes = 2 * (types.MaxPoetNodes + types.MaxPoetLeaves) * 33

	// storageInterval is the time between two looks at the disk.
	storageInterval = 5 * time.Second
)

// storage watches the disk, and keeps the ballast.
type storage struct {
	*Service
	mu      sync.Mutex // guards the file
	ballast atomic.Bool
}

// roundNeed returns the bytes that a round takes from its opening until its proof
// is stored: journal, members, proof. It expects as many members as the largest
// of the rounds that are there, and some more.
func (s *storage) roundNeed() uint64 {
	now := s.latest.Load()
	members := s.book.Members(now.open)
	for _, r := range now.rounds {
		members = max(members, r.Members)
	}
	journal := s.worker.Need(s.cfg.Schedule.EpochDuration - s.cfg.Schedule.CycleGap)
	return journal + memberBytes*(members+members/4) + proofBytes
}

// Storage returns the disk budget.
func (s *Service) Storage() poet.StorageStatus {
	free, err := s.cfg.FS.Free(s.cfg.Dir)
	if err != nil {
		free = 0
	}
	need := s.storage.roundNeed()
	st := poet.StorageStatus{
		Free: free, Needed: need, Fit: free / need,
		Database: s.book.Size(), Journals: s.worker.JournalBytes(), Ballast: s.storage.ballast.Load(),
	}
	if st.Ballast {
		st.Reserved = uint64(s.cfg.BallastBytes)
	}
	return st
}

// watch looks at the disk until ctx ends: it warns, and puts the ballast back when
// there is room.
func (s *storage) watch(ctx context.Context) {
	for low := false; ctx.Err() == nil; clock.Sleep(ctx, storageInterval) {
		s.holdBallast()
		low = s.check(low)
	}
}

// check does one look; low is whether the last one warned.
func (s *storage) check(low bool) bool {
	st := s.Storage()
	s.metrics.show(st, s.atWork())
	switch now := st.Fit < poet.MinRoundsFit; {
	case now && !low:
		s.emit(poet.Event{Kind: poet.EventDiskLow, Text: fmt.Sprintf("%d rounds fit on the disk and %d should: make %d bytes free", st.Fit, poet.MinRoundsFit, (poet.MinRoundsFit-st.Fit)*st.Needed)})
		return true
	case !now && low:
		s.emit(poet.Event{Kind: poet.EventDiskFine, Text: fmt.Sprintf("%d rounds fit on the disk", st.Fit)})
		return false
	}
	return low
}

func (s *storage) ballastPath() string { return filepath.Join(s.cfg.Dir, BallastName) }

// holdBallast makes the ballast if it is missing and there is room for it and
// for a round. Its content is random, for a disk that compresses.
func (s *storage) holdBallast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ballast.Load() {
		return
	}
	size := s.cfg.BallastBytes
	if f, err := s.cfg.FS.Open(s.ballastPath()); err == nil {
		have, err := f.Size()
		f.Close()
		if err == nil && have == size {
			s.ballast.Store(true)
			return
		}
	}
	if free, err := s.cfg.FS.Free(s.cfg.Dir); err != nil || free < uint64(2*size) {
		return
	}
	data := make([]byte, size)
	rand.Read(data)
	// If we stop in here, the next start finds a ballast or a temporary file
	// that the next ballast replaces.
	s.ballast.Store(durable.WriteFile(s.cfg.FS, s.ballastPath(), data, 0o600) == nil)
}

// release gives the ballast up and tells whether there was one.
func (s *storage) release() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ballast.Store(false)
	if err := s.cfg.FS.Remove(s.ballastPath()); err != nil {
		return false
	}
	s.emit(poet.Event{Kind: poet.EventBallast, Text: "ballast was given up to write on a full disk: make room"})
	return true
}
