// Package rounds is the heart of a PoET server: what happens between a
// registration and a stored proof.
//
// It promises: an acknowledged registration is in its round's membership root,
// whatever crashes; every round that was closed ends in a proof that was
// verified before it was stored, and its data is deleted only after the proof
// was written, synced and read back; a full disk costs crash safety and raises
// an alert, never the round; damage of any file is detected when it is read and
// never answered from. Time, rounds and their order are decided by [Machine],
// which is passive; [Service] owns the clock, the disk and the goroutines.
//
// It leaves to the caller: the network in both directions (package delivery
// sends the proofs, package door serves the API), rate limits per client, and
// ending Run's context on a signal.
//
// Files in the data directory:
//
//	LOCK             one process at a time
//	identity.key     the server's ed25519 key, base64, mode 0600
//	poet.db          bbolt: registrations, rounds, proofs, delivery's buckets
//	rounds/N.journal the kept nodes of round N while it executes; one that was
//	                 damaged is kept as N.journal.bad
//	ballast          room that is given up to save a proof on a full disk
//	import.unfinished as long as an import is under way
//	admin.token      the door's: tokens of the admin API
//	endpoints.json   the command's: where the running server listens
//
// poet.db and identity.key are trusted: who can write them can forge members and
// receipts. A journal is not: who changes it can make a round lose its work, but a
// proof that does not verify is not stored.
package rounds

import (
	"crypto/ed25519"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tweedle/base/durable"
	"tweedle/services/poet"
	"tweedle/services/poet/work"
	"tweedle/values/types"
)

// Config is what Open needs. Zero values of the fields that name a default mean
// that default.
type Config struct {
	// Dir is the data directory; it is made if missing.
	Dir string
	// FS holds identity, journals and ballast; nil means the machine's.
	// poet.db and LOCK are always on the machine's.
	FS durable.FS
	// Schedule places the rounds in time. A data directory keeps to the one
	// that it was made with.
	Schedule types.PoetSchedule
	// Key is the server's identity, for instance from the environment variable
	// POET_PRIVATE_KEY (base64). If nil it is read from the data directory, or
	// made there. It must equal one that is there.
	Key ed25519.PrivateKey

	// NewIdentity makes a key where a database is and its key is missing, which
	// is an error otherwise.
	NewIdentity bool

	// Importing opens the directory for an import. Until Imported is called, also
	// if we stop in between, it opens for nothing else.
	Importing bool

	// PowDifficulty is the number of leading zero bits in a registration's
	// proof of work.
	PowDifficulty uint
	// Certifier is the key whose certificates stand for a proof of work; nil
	// means that only proofs of work are accepted.
	Certifier ed25519.PublicKey
	// TrustedKeysDir has further certifier keys, base64 in files *.key, that a
	// registration can hint at. Empty means none.
	TrustedKeysDir string
	// MaxRoundMembers limits the members of a round; 0 means DefaultMaxRoundMembers.
	MaxRoundMembers uint64
	// MaxSubmitBatch and SubmitFlush bound a batch of registrations, which
	// share one sync of the disk, in number and in waiting time; 0 means
	// DefaultMaxSubmitBatch and DefaultSubmitFlush.
	MaxSubmitBatch int
	SubmitFlush    time.Duration

	// Work says how rounds are executed. Its directory, file system, events and
	// metrics are set here.
	Work work.Config
	// BallastBytes is the room held back for a finished proof on a full disk;
	// 0 means DefaultBallastBytes.
	BallastBytes int64
	// AcceptOlderState starts although one of the two heads of poet.db is
	// damaged. The last transaction may be missing then.
	AcceptOlderState bool

	// OnProof is called after a proof became durable, once, from the goroutine
	// that drives the rounds: it must return at once. Proofs that were
	// already stored at the start are not announced, see Proofs.
	OnProof func(round string)
	// OnEvent is called for every event, from several goroutines, one of them
	// a prover: it must return at once. Events are logged anyway.
	OnEvent func(poet.Event)
	// Wall reads the wall clock; nil means the machine's.
	Wall func() time.Time
	// Log may be nil.
	Log *slog.Logger
	// Metrics may be nil; then they are registered nowhere.
	Metrics prometheus.Registerer
}

// Defaults of Config, those of the reference where it has the setting
// (reference/poet.md 3).
const (
	DefaultMaxRoundMembers = 1 << 32
	DefaultMaxSubmitBatch  = 1000
	DefaultSubmitFlush     = 100 * time.Millisecond
	DefaultBallastBytes    = 32 << 20
)
