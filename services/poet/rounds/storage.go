package rounds

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

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

// roundNeed returns the bytes that a round takes from its opening until its proof
// is stored: journal, members, proof. It expects as many members as the largest
// of the rounds that are there, and some more.
func (s *Service) roundNeed() uint64 {
	members := s.store.Members(s.openRound.Load())
	for _, r := range s.snapshot() {
		members = max(members, r.Members)
	}
	return s.journalNeed() + memberBytes*(members+members/4) + proofBytes
}

// journalNeed returns the bytes of the next round's journal.
func (s *Service) journalNeed() uint64 {
	return s.worker.Need(s.cfg.Schedule.EpochDuration - s.cfg.Schedule.CycleGap)
}

// Storage returns the disk budget.
func (s *Service) Storage() poet.StorageStatus {
	free, err := s.cfg.FS.Free(s.cfg.Dir)
	if err != nil {
		free = 0
	}
	need := s.roundNeed()
	st := poet.StorageStatus{
		Free: free, Needed: need, Fit: free / need,
		Database: s.store.Size(), Journals: s.worker.JournalBytes(), Ballast: s.ballast.Load(),
	}
	if s.reserved.Load() {
		// What is set aside for the next round is not free, but is for a round.
		st.Reserved += s.journalNeed()
		st.Fit = (free + s.journalNeed()) / need
	}
	if st.Ballast {
		st.Reserved += uint64(s.cfg.BallastBytes)
	}
	return st
}

// watchStorage looks at the disk until ctx ends: it warns, and puts the ballast
// and the reservation back when there is room.
func (s *Service) watchStorage(ctx context.Context) {
	ticker := time.NewTicker(storageInterval)
	defer ticker.Stop()
	low := false
	for {
		low = s.checkStorage(low)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// checkStorage does one look; low is whether the last one warned.
func (s *Service) checkStorage(low bool) bool {
	s.holdBallast()
	s.holdReserve()
	st := s.Storage()
	m := s.metrics
	m.diskFree.Set(float64(st.Free))
	m.diskNeeded.Set(float64(st.Needed))
	m.roundsFit.Set(float64(st.Fit))
	m.journalBytes.Set(float64(st.Journals))
	m.ballast.Set(0)
	if st.Ballast {
		m.ballast.Set(1)
	}
	paused := 0
	m.rounds.Reset()
	for _, r := range s.Rounds() {
		if r.JournalPaused {
			paused++
		}
		if r.State != poet.StateProved {
			m.rounds.WithLabelValues(r.State.String()).Inc()
		}
	}
	m.paused.Set(float64(paused))
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

func (s *Service) ballastPath() string { return filepath.Join(s.cfg.Dir, BallastName) }

// holdBallast makes the ballast if it is missing and there is room for it and
// for a round. Its content is random, for a disk that compresses.
func (s *Service) holdBallast() {
	s.spare.Lock()
	defer s.spare.Unlock()
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

// releaseBallast gives the ballast up and tells whether there was one.
func (s *Service) releaseBallast() bool {
	s.spare.Lock()
	defer s.spare.Unlock()
	err := s.cfg.FS.Remove(s.ballastPath())
	s.ballast.Store(false)
	s.dropReserveLocked()
	if err != nil {
		return false
	}
	s.emit(poet.Event{Kind: poet.EventBallast, Text: "ballast was given up to write on a full disk: make room"})
	return true
}

func (s *Service) reservePath() string { return filepath.Join(s.cfg.Dir, roundsDir, "reserve") }

// holdReserve sets room aside for the journal of the round that starts next. An
// executing round has reserved its own.
func (s *Service) holdReserve() {
	s.spare.Lock()
	defer s.spare.Unlock()
	if s.reserve != nil {
		return
	}
	f, err := s.cfg.FS.Create(s.reservePath(), 0o600)
	if err != nil {
		return
	}
	if err := f.Reserve(int64(s.journalNeed())); err != nil {
		f.Close()
		s.cfg.FS.Remove(s.reservePath())
		return
	}
	s.reserve = f
	s.reserved.Store(true)
}

// dropReserve gives the room to the journal that is about to be made.
func (s *Service) dropReserve() {
	s.spare.Lock()
	defer s.spare.Unlock()
	s.dropReserveLocked()
}

func (s *Service) dropReserveLocked() {
	if s.reserve == nil {
		return
	}
	s.reserve.Close()
	s.reserve = nil
	s.reserved.Store(false)
	if err := s.cfg.FS.Remove(s.reservePath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.emit(poet.Event{Kind: poet.EventWriteFailed, Text: "reserved room could not be released", Err: err})
	}
}
