package work

import (
	"context"
	"time"

	"tweedle/services/poet"
	"tweedle/services/poet/journal"
	"tweedle/values/types"
)

// Job is the execution of a closed round.
type Job struct {
	Round     uint32
	Statement [32]byte // the root of the membership tree
	Members   uint64   // 0 means that the statement is the empty byte string
	Start     time.Time
	End       time.Time // leaves are computed until then
}

// statement returns the bytes that the work is about.
func (j Job) statement() []byte { return poet.Statement(j.Statement, j.Members) }

func (j Job) duration() time.Duration { return j.End.Sub(j.Start) }

func (j Job) about(k uint) journal.About {
	return journal.About{Round: j.Round, Members: j.Members, K: k, Statement: j.Statement}
}

// Result is what a Job ends in.
type Result struct {
	Round uint32
	Proof types.PoetProof
}

// Source gives rounds to a worker and takes their proofs: the seam between the
// work and the rounds.
type Source interface {
	// Next waits for a round that must be executed and was not returned
	// before by this source. After a restart it returns unfinished rounds again.
	Next(ctx context.Context) (Job, error)
	// Finish verifies and stores the proof, durably, and reads it back before
	// it returns. Then the worker deletes the round's data. After an error Finish
	// is called again, also if the first call had stored the proof. ErrBadProof
	// means that the source takes the proof for wrong.
	Finish(ctx context.Context, r Result) error
	// Stored tells whether the proof of a round is stored.
	Stored(ctx context.Context, round uint32) (bool, error)
}
