// Package poet has the words that the rooms of a PoET server share: rounds and
// their names, receipts, proofs, what is shown of a server, its errors and its
// events.
//
// It promises nothing but their meaning, and leaves everything that happens to the
// rooms below it: book keeps what must not be lost, work computes, rounds decides
// and drives, delivery sends the proofs out.
package poet

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strconv"
	"time"

	"tweedle/base/sealed"
	"tweedle/protocol/registration"
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
	ErrDiskFull     = sealed.ErrFull                            // Unavailable, 503
	ErrBusy         = errors.New("server is busy, retry later") // Unavailable, 503
	// ErrUnfinished says that a registration was found right and may be stored
	// or not; it comes with the context's error.
	ErrUnfinished = errors.New("maybe not stored yet")
	ErrStopped    = sealed.ErrStopped            // Unavailable, 503
	ErrDamaged    = sealed.ErrDamaged            // Internal, 500
	ErrBadProof   = errors.New("proof is wrong") // InvalidArgument, 400
)

// Registration is a request to become a member of the open round
// (reference/poet.md 1.7).
type Registration = registration.Request

// Receipt is the answer to a registration. End is when the round's execution ends;
// it is not signed: it follows from the schedule.
type Receipt struct {
	types.PoetReceipt
	End time.Time
}

// KeptSeries is the number of rounds whose metrics are kept.
const KeptSeries = 8

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

// Statement returns what the proof's work is about.
func (p *ProofRecord) Statement() []byte {
	return Statement(p.Message.Statement, uint64(len(p.Members)))
}

// Statement returns what a round's work is about: the empty byte string for a
// round without members, else the root of the membership tree
// (reference/poet.md 1.1).
func Statement(root [32]byte, members uint64) []byte {
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

// RoundID returns the name of a round.
func RoundID(number uint32) string { return strconv.FormatUint(uint64(number), 10) }

// ParseRoundID returns the number of a round's name.
func ParseRoundID(id string) (uint32, error) {
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil || RoundID(uint32(n)) != id {
		return 0, fmt.Errorf("round %.40q is not a decimal number: %w", id, ErrNotFound)
	}
	return uint32(n), nil
}

// RoundState says how far a round is.
type RoundState uint8

// A round goes through these states in order.
const (
	StateOpen      RoundState = iota // takes registrations
	StateClosed                      // its membership root is being computed
	StateExecuting                   // leaves are being computed
	StateProving                     // the proof is being made
	StateProved                      // the proof is stored
)

func (s RoundState) String() string {
	names := [...]string{"open", "closed", "executing", "proving", "proved"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Round is a round on its way. Statement and Members are set from StateExecuting on.
type Round struct {
	Number    uint32
	State     RoundState
	Statement [32]byte
	Members   uint64
}

// ID returns the round's name.
func (r Round) ID() string { return RoundID(r.Number) }

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
