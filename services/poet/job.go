package poet

import (
	"context"
	"time"

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
func (j Job) statement() []byte { return statement(j.Statement, int(min(j.Members, 1))) }

// Result is what a Job ends in.
type Result struct {
	Round uint32
	Proof types.PoetProof
}

// RoundSource gives rounds to a worker and takes their proofs. Service.Source is
// the one of a server that executes its own rounds; a remote worker has one that
// asks a registration server.
type RoundSource interface {
	// Next waits for a round that must be executed and was not returned
	// before by this source. After a restart it returns unfinished rounds again.
	Next(ctx context.Context) (Job, error)
	// Executed tells that a round's leaves are computed and that its proof is
	// being made. It is for information.
	Executed(ctx context.Context, round uint32) error
	// Finish verifies and stores the proof, durably, and reads it back before
	// it returns. Then the worker deletes the round's data. An error that is
	// ErrBadProof means that the proof is wrong; after any other, Finish may be
	// called again, also if the first call had stored the proof.
	Finish(ctx context.Context, r Result) error
	// Stored tells whether the proof of a round is stored.
	Stored(ctx context.Context, round uint32) (bool, error)
}
