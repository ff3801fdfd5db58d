package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tweedle/services/poet"
	"tweedle/services/poet/delivery"
	"tweedle/services/poet/legacy"
	"tweedle/services/poet/rounds"
	"tweedle/values/types"
)

// usefulEpochs is how many epochs after its round's end a proof may still be
// of use: the ATXs that rest on it are published in the first and count in the
// second; nodes that were cut off meanwhile validate them later.
const usefulEpochs = 6

// shelf is a service with the proofs that were taken over from a reference
// server beside its own: what the APIs serve, and what delivery reads.
type shelf struct {
	*rounds.Service
	archive  legacy.Archive
	schedule types.PoetSchedule
}

// Proof returns a stored proof, or poet.ErrNotFound.
func (s shelf) Proof(ctx context.Context, round string) (poet.ProofRecord, error) {
	r, err := s.Service.Proof(ctx, round)
	if errors.Is(err, poet.ErrNotFound) {
		return s.archive.Proof(round)
	}
	return r, err
}

// Due lists the server's own proofs that are of use at a moment: of rounds with
// members that ended not too many epochs ago.
func (s shelf) Due(at time.Time) (due []delivery.Due, err error) {
	// A round ends about an epoch after the one before, so two more are looked at
	// than can be of use.
	first := s.schedule.Open(at)
	rounds, err := s.Book().Proofs(first - min(first, usefulEpochs+3))
	for _, n := range rounds {
		if until := s.usefulUntil(n); at.Before(until) && s.Book().Members(n) > 0 {
			due = append(due, delivery.Due{Round: poet.RoundID(n), UsefulUntil: until})
		}
	}
	return due, err
}

func (s shelf) usefulUntil(round uint32) time.Time {
	return s.schedule.End(round).Add(usefulEpochs * s.schedule.EpochDuration)
}

// Load reads a proof as nodes take it, or returns poet.ErrNotFound.
func (s shelf) Load(round string) (types.PoetProofMessage, error) {
	if n, err := poet.ParseRoundID(round); err == nil && s.Book().Members(n) > 0 {
		return s.Book().Proof(n)
	}
	taken, err := s.archive.Proof(round)
	if err == nil && len(taken.Members) == 0 {
		err = fmt.Errorf("nobody waits for the proof of round %s: it has no members", round)
	}
	return taken.Message, err
}
