// Package delivery brings finished PoET proofs to the network: an outbox that
// forgets nothing and a pool of gateways that heals itself.
//
// It promises: a proof that Add has taken stays in the outbox, over restarts,
// until enough distinct gateways have acknowledged it and as many have given
// it back when asked for it by reference, or until it can be of no use to
// anyone. Each gateway receives proofs in the order in which they were added.
// A gateway that hangs delays no other one. A dead gateway's slot is filled
// from the candidates without anybody's help, and new gateways are used the
// moment they are set.
//
// It leaves to the caller: the proofs themselves and how long each is of use,
// the database, and telling gateways' identities apart from impostors': an
// identity is what a gateway says of itself, which unmasks one node behind two
// addresses but not an attacker with two names.
//
// Machine is the logic, passive and deterministic: time is an argument, calls
// are values. Courier is the small loop that drives it.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"tweedle/values/types"
)

// Limits.
const (
	// MaxProofSize bounds one encoded proof, in bytes; the largest that the
	// wire format allows is about a fifth of it (reference/poet.md 1.5).
	MaxProofSize = 1 << 20
	// MaxPending bounds the proofs that wait for delivery.
	MaxPending = 256
	// MaxHistory bounds the records of proofs that no longer wait.
	MaxHistory = 128
	// MaxCandidates bounds the gateways known besides the pool; the ones that
	// other gateways told of make room first.
	MaxCandidates = 64
	// MaxTold bounds how many gateways one gateway may tell of at a time.
	MaxTold = 16
	// MaxAddress bounds an address, in characters.
	MaxAddress = 255
	// maxBanned bounds the gateways that are remembered as removed by hand.
	maxBanned = 64
)

// Config says how eager and how strict delivery is.
type Config struct {
	// Acks is how many distinct gateways must acknowledge a proof, and how many
	// must give it back by its reference, before it counts as delivered.
	Acks int
	// Slots is the size of the pool.
	Slots int
	// MinPeers is how many peers a gateway needs to be of use.
	MinPeers int
	// Genesis is the network; the zero value accepts any.
	Genesis types.GenesisID

	ProbeEvery   time.Duration // between health checks of a live gateway
	ProbeTimeout time.Duration
	PushTimeout  time.Duration
	FetchTimeout time.Duration
	// FetchDelay is how long after an acknowledgement the gateway is asked to
	// give the proof back.
	FetchDelay time.Duration
	// RetryMin and RetryMax bound the backoff after failures; it doubles, and
	// the wait is drawn from its upper half.
	RetryMin, RetryMax time.Duration
	// DeadAfter is how many failed checks in a row turn a suspect gateway dead.
	DeadAfter int
	// LongBan is how long a gateway that lied, or that is another one under a
	// second address, is left alone.
	LongBan time.Duration
	// Seed makes the jitter repeatable.
	Seed uint64
}

// DefaultConfig returns what a PoET server runs with.
func DefaultConfig() Config {
	return Config{
		Acks: 2, Slots: 5, MinPeers: 1,
		ProbeEvery: 10 * time.Second, ProbeTimeout: 3 * time.Second,
		PushTimeout: 10 * time.Second, FetchTimeout: 10 * time.Second, FetchDelay: time.Second,
		RetryMin: 500 * time.Millisecond, RetryMax: 30 * time.Second,
		DeadAfter: 3, LongBan: 10 * time.Minute,
	}
}

func (c Config) validate() error {
	switch {
	case c.Acks < 1 || c.Slots < 1:
		return errors.New("delivery needs at least one acknowledgement and one slot")
	case c.Acks > c.Slots:
		return fmt.Errorf("%d acknowledgements cannot come from %d gateway slots: lower the one or raise the other", c.Acks, c.Slots)
	case c.ProbeEvery <= 0 || c.ProbeTimeout <= 0 || c.PushTimeout <= 0 || c.FetchTimeout <= 0 ||
		c.RetryMin <= 0 || c.RetryMax < c.RetryMin || c.DeadAfter < 1:
		return errors.New("delivery needs positive periods, timeouts and retries")
	}
	return nil
}

// Proof is what is delivered.
type Proof struct {
	Round string             // decimal epoch number
	Ref   types.PoetProofRef // under which nodes store it
	Data  []byte             // canonical encoding of types.PoetProofMessage
	// UsefulUntil is when the last one to whom it can be of use has gone.
	UsefulUntil time.Time
}

// Health is a gateway's own account of itself.
type Health struct {
	ID      string // stable identity; empty if it does not tell
	Genesis types.GenesisID
	Synced  bool
	Peers   uint64
	Told    []string // addresses of other gateways
}

// Ack is a gateway's answer to a proof.
type Ack struct {
	Ref       types.PoetProofRef
	Known     bool // it had the proof before
	Validated bool
	Stored    bool
	Peers     uint32 // to whom it handed the proof, now or earlier
}

var (
	// ErrRejected marks an answer that a gateway will not change: the proof
	// does not decode or verify there.
	ErrRejected = errors.New("the gateway rejects the proof")
	// ErrMissing says that a gateway does not have the proof it was asked for.
	ErrMissing = errors.New("the gateway does not have the proof")
)

// Gateway is a connection to one gateway. Every call ends with its context.
type Gateway interface {
	Check(ctx context.Context) (Health, error)
	// Publish returns ErrRejected when repeating is pointless.
	Publish(ctx context.Context, data []byte) (Ack, error)
	// Fetch asks for a proof and returns nil if the gateway gave it, ErrMissing
	// if it gave none or another one.
	Fetch(ctx context.Context, ref types.PoetProofRef) error
	Close() error
}

// Dialer makes a connection; it must not block.
type Dialer func(addr string) (Gateway, error)

// CheckAddress tells what is wrong with a gateway's address, host:port.
func CheckAddress(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" || len(addr) > MaxAddress {
		return fmt.Errorf("%.*q is not a gateway address: give host:port", MaxAddress, addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q has no port number: give host:port", addr)
	}
	return nil
}

// EventKind names what happened.
type EventKind string

// The events. Each is also a log line and a count in the metrics.
const (
	GatewayLive       EventKind = "gateway_live"
	GatewaySuspect    EventKind = "gateway_suspect"
	GatewayDead       EventKind = "gateway_dead"
	GatewayRecycled   EventKind = "gateway_recycled"
	GatewayLied       EventKind = "gateway_lied"
	NoCandidates      EventKind = "gateway_candidates_empty"
	BroadcastFailed   EventKind = "broadcast_failed"
	ProofAcknowledged EventKind = "proof_acknowledged"
	ProofDelivered    EventKind = "proof_delivered"
	ProofExpired      EventKind = "proof_expired"
)

// Event is something an operator may want to know.
type Event struct {
	Time    time.Time
	Kind    EventKind
	Gateway string // address, if one is concerned
	Round   string // if a proof is concerned
	Text    string // one line
}
