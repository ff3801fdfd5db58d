// Package poet is the heart of a PoET server: what happens between a
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
// sends the proofs, package rpc serves the API), rate limits per client, and
// ending Run's context on a signal.
//
// Files in the data directory:
//
//	LOCK             one process at a time
//	identity.key     the server's ed25519 key, base64, mode 0600
//	poet.db          bbolt: registrations, rounds, proofs, delivery's buckets
//	rounds/N.journal the kept nodes of round N while it executes
//	rounds/reserve   room set aside for the journal of the next round
//	ballast          room that is given up to save a proof on a full disk
//
// poet.db and identity.key are trusted: who can write them can forge members and
// receipts. A journal is not: who changes it can make a round lose its work, but a
// proof that does not verify is not stored.
package poet

import (
	"crypto/ed25519"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tweedle/base/durable"
	"tweedle/services/poet/registration"
	"tweedle/values/types"
)

// Errors of Service that a caller branches on, one for each status code of the
// reference (reference/poet.md 3). They are wrapped with the reason.
var (
	ErrInvalid      = errors.New("invalid registration")        // InvalidArgument, 400
	ErrUnauthorised = errors.New("unauthorised")                // Unauthenticated, 401
	ErrExhausted    = errors.New("round is full")               // ResourceExhausted, 429
	ErrExists       = errors.New("already registered")          // AlreadyExists, 409
	ErrTooLate      = errors.New("round ends too late")         // FailedPrecondition, 400
	ErrNotFound     = errors.New("not found")                   // NotFound, 404
	ErrDiskFull     = errors.New("disk of the server is full")  // Unavailable, 503
	ErrBusy         = errors.New("server is busy, retry later") // Unavailable, 503
	ErrStopped      = errors.New("server is stopping")          // Unavailable, 503
	ErrDamaged      = errors.New("stored data is damaged")      // Internal, 500
	ErrBadProof     = errors.New("proof is wrong")              // InvalidArgument, 400
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

	// K is the height of the lowest tree layer that is kept; 0 lets the server
	// choose by the length of the round, at most DefaultK. A proof recomputes
	// 150 subtrees of 2^K leaves; a stop of the process may cost up to 2^K leaves.
	K uint
	// MaxLeavesPerSecond slows the prover down, smoothly; 0 means full speed.
	MaxLeavesPerSecond uint64
	// LeavesPerSecond is the expected speed, for the disk budget and for
	// progress; 0 means that it is measured.
	LeavesPerSecond uint64
	// Provers is the number of rounds that execute at the same time, each on a
	// core of its own; 0 means 1. Rounds beyond it wait in order of their
	// number, so the oldest always advances at full speed.
	Provers int
	// ProveWorkers is the number of goroutines that recompute subtrees at a
	// round's end; 0 means one for each core.
	ProveWorkers int
	// CheckpointInterval is the time between syncs of a journal; 0 means
	// DefaultCheckpointInterval.
	CheckpointInterval time.Duration
	// BallastBytes is the room held back for a finished proof on a full disk;
	// 0 means DefaultBallastBytes.
	BallastBytes int64
	// AcceptOlderState starts although one of the two heads of poet.db is
	// damaged. The last transaction may be missing then.
	AcceptOlderState bool
	// RegistrationOnly leaves the execution of rounds to remote workers, which
	// ask through Source.
	RegistrationOnly bool

	// OnProof is called after a proof became durable, once, from the goroutine
	// that drives the rounds: it must return at once. Proofs that were
	// already stored at the start are not announced, see Proofs.
	OnProof func(round string)
	// OnEvent is called for every event, from several goroutines, one of them
	// a prover: it must return at once. Events are logged anyway.
	OnEvent func(Event)
	// Log may be nil.
	Log *slog.Logger
	// Metrics may be nil; then they are registered nowhere.
	Metrics prometheus.Registerer
}

// Defaults of Config, those of the reference where it has the setting
// (reference/poet.md 3).
const (
	DefaultK                  = 14
	DefaultMaxRoundMembers    = 1 << 32
	DefaultMaxSubmitBatch     = 1000
	DefaultSubmitFlush        = 100 * time.Millisecond
	DefaultCheckpointInterval = time.Second
	DefaultBallastBytes       = 32 << 20
)

// Registration is a request to become a member of the open round
// (reference/poet.md 1.7).
type Registration = registration.Request

// Receipt is the server's signed word that a registration is in a round.
type Receipt struct {
	Round     string
	NodeID    types.NodeID
	Challenge [32]byte
	// Time is when the registration was stored, in whole milliseconds. A
	// repeated registration gets the receipt of the first.
	Time      time.Time
	PoetID    types.NodeID
	Signature types.Signature
	// End is when the round's execution ends. It is not signed: it follows
	// from the schedule.
	End time.Time
}

// Info describes the server.
type Info struct {
	PoetID     types.NodeID
	OpenRound  string
	Executing  []string // closed rounds without a stored proof
	PhaseShift time.Duration
	CycleGap   time.Duration
	Certifier  ed25519.PublicKey
}

// ProofRecord is a stored proof. Members are their challenges in the order of
// the membership tree.
//
// A round without members has an empty statement; Message.Statement is zero
// then, and a verifier takes the empty byte string for it, as Statement does.
type ProofRecord struct {
	Message types.PoetProofMessage
	Members [][32]byte
}

// Statement returns what the proof's work is about: the empty byte string for a
// round without members, else the root of the membership tree
// (reference/poet.md 1.1).
func (p *ProofRecord) Statement() []byte { return statement(p.Message.Statement, len(p.Members)) }

func statement(root [32]byte, members int) []byte {
	if members == 0 {
		return nil
	}
	return root[:]
}

// MembershipProof shows that a registration is in a round's statement:
// merkle.Verify(Statement, Challenge, Index, Members, Proof).
type MembershipProof struct {
	Round     string
	NodeID    types.NodeID
	Challenge [32]byte
	Time      time.Time // when it was registered
	Index     uint64
	Members   uint64
	Statement [32]byte
	Proof     [][32]byte
}

// RoundStatus is what the server shows about one round.
type RoundStatus struct {
	Round   string
	State   RoundState
	Start   time.Time // it closes for registration and executes
	End     time.Time // it has executed
	Members uint64
	Leaves  uint64
	// Rate is in leaves per second, lately; 0 when it does not execute.
	Rate float64
	// Expected is how many leaves it will have at End if the rate holds.
	Expected uint64
	// Proving counts subtrees recomputed for the proof, of ProvingTotal.
	Proving, ProvingTotal int
	// K is the height of the kept nodes, JournalBytes their file's length.
	K            uint
	JournalBytes int64
	// JournalPaused means that the disk takes no more: the round goes on, but
	// would fall back to its last checkpoint if the process stopped.
	JournalPaused bool
	// Checkpoint is the number of leaves that survive a stop of the process.
	Checkpoint uint64
}

// StorageStatus is the disk budget.
type StorageStatus struct {
	Free     uint64 // bytes that can be written
	Needed   uint64 // bytes that one round takes, from its opening until its proof is stored
	Fit      uint64 // rounds that fit in Free; MinRoundsFit at least is healthy
	Reserved uint64 // bytes set aside for executing rounds and the ballast
	Journals uint64 // bytes used by journals
	Database uint64 // length of poet.db
	Ballast  bool   // the ballast file is in place
}

// MinRoundsFit is the number of rounds that must fit on the disk; below it the
// server warns.
const MinRoundsFit = 3

// Event is something that an operator may want to know.
type Event struct {
	Kind  EventKind
	Round string // empty if it is about none
	Text  string // one line
	Err   error  // nil unless something went wrong
}

// EventKind names the kinds of events; they are stable, alert rules use them.
type EventKind string

// The kinds of events.
const (
	EventOpened         EventKind = "round_opened"
	EventClosed         EventKind = "round_closed"
	EventExecuting      EventKind = "round_executing"
	EventProgress       EventKind = "round_progress"
	EventProving        EventKind = "round_proving"
	EventProved         EventKind = "round_proved"
	EventOverdue        EventKind = "proof_overdue"
	EventResumed        EventKind = "round_resumed"
	EventDamage         EventKind = "damage_found"
	EventJournalPaused  EventKind = "journal_paused"
	EventJournalResumed EventKind = "journal_resumed"
	EventDiskLow        EventKind = "disk_low"
	EventDiskFine       EventKind = "disk_fine"
	EventDiskFull       EventKind = "disk_full"
	EventBallast        EventKind = "ballast_released"
	EventWriteFailed    EventKind = "write_failed"
)
