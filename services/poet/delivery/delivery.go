// Package delivery brings finished PoET proofs to the network, through the gateways
// that the operator named.
//
// It promises:
//   - A stored proof is offered, also over restarts, until Acks distinct gateways
//     took it and gave it back when asked for its reference, or until it is of no
//     use to anyone. Distinct means another name and another address.
//   - A gateway receives the proofs that wait for it in the order of their rounds.
//   - A gateway that hangs, lies or answers garbage delays no other one, and a proof
//     that cannot be read or that a gateway rejects delays no other one.
//   - The slot of a gateway that fails goes to the next live one by itself, and new
//     gateways are used the moment they are set. Nothing else is dialled.
//   - What waits follows from the stored proofs, the acknowledgements and the clock
//     of the moment, so a clock that was ahead for a while has given up nothing.
//
// It leaves to the caller: the proofs and how long each is of use, the database, a
// clock that is to be believed, and gateways that lie about their names: a name is
// what a gateway says of itself, which unmasks one node behind two addresses but not
// an attacker with two names.
//
// Machine is the logic, passive and deterministic; Courier is the loop that drives it.
package delivery

import (
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"tweedle/edges/front"
	"tweedle/services/poet"
	"tweedle/values/types"
)

// Limits.
const (
	// maxReply bounds a gateway's answer, in bytes; the largest proof that the wire
	// format allows is about a fifth of it (reference/poet.md 1.5).
	maxReply    = 1 << 20
	MaxGateways = 64  // that are known
	MaxRecords  = 128 // proofs of which anything is kept
	MaxAddress  = 255 // bytes of an address or a name
)

// Times. Waits are drawn from their upper half, so that servers which started
// together do not stay together.
const (
	probeEvery   = 10 * time.Second // between the health checks of a live gateway
	probeTimeout = 3 * time.Second
	callTimeout  = 10 * time.Second       // to hand a proof over, and to ask for it
	fetchDelay   = time.Second            // between the two
	retryMin     = 500 * time.Millisecond // after a failure; doubles with each
	retryMax     = 30 * time.Second
	// longBan is how long a gateway that lied is left alone, and one that rejected
	// a proof is not offered it again.
	longBan = 10 * time.Minute
)

// Config says how eager and how strict delivery is.
type Config struct {
	// Acks is how many distinct gateways must take a proof and give it back by
	// its reference before it counts as delivered.
	Acks  int
	Slots int // live gateways that are offered proofs at a time
	// DrillNoRecycle keeps the slots with the first Slots gateways by rank, dead or
	// not, as it was in 2020: drills show what that costs.
	DrillNoRecycle bool
	MinPeers       int             // peers that a gateway needs to be of use
	Genesis        types.GenesisID // the network; the zero value accepts any
	Again          time.Duration   // for which a proof is offered that was asked for by hand, at least
	Seed           uint64          // makes the jitter repeatable; 0: it is not
}

// DefaultConfig returns what a PoET server runs with.
func DefaultConfig() Config { return Config{Acks: 2, Slots: 5, MinPeers: 1, Again: time.Hour} }

func (c Config) validate() error {
	if c.Acks < 1 || c.Slots < 1 {
		return errors.New("delivery needs at least one acknowledgement and one slot")
	}
	if c.MinPeers < 0 || c.MinPeers > math.MaxUint32 {
		return fmt.Errorf("a gateway cannot have %d peers", c.MinPeers)
	}
	if c.Acks > c.Slots {
		return fmt.Errorf("%d acknowledgements cannot come from %d gateway slots: lower the one or raise the other", c.Acks, c.Slots)
	}
	return nil
}

// Due is a stored proof that is of use to somebody.
type Due struct {
	Round string // decimal epoch number
	// UsefulUntil is when the last one to whom it can be of use has gone.
	UsefulUntil time.Time
}

// Shelf is where the proofs are stored. Its methods are called from several
// goroutines.
type Shelf interface {
	// Due lists the proofs that are of use at a moment.
	Due(at time.Time) ([]Due, error)
	// Load reads the proof of a round, also of one that is of no use.
	Load(round string) (types.PoetProofMessage, error)
}

// Health is a gateway's own account of itself.
type Health struct {
	ID      string // stable name; empty if it does not tell
	Genesis types.GenesisID
	Synced  bool
	Peers   uint64
}

var (
	// errUnreadable says that a proof could not be read from the Shelf.
	errUnreadable = errors.New("the stored proof cannot be read")
	// errRejected marks an answer that a gateway will not soon change: the proof
	// does not decode or verify there.
	errRejected = errors.New("the gateway rejects the proof")
	// errUnsure says that a gateway took a proof, and it is not known if it has it.
	errUnsure = errors.New("the gateway took the proof and does not tell if it has it")
	// errLied says that a gateway acknowledged a proof that it does not have.
	errLied = errors.New("the gateway acknowledged the proof and cannot give it back")
	// ErrAddresses says that a list of gateways cannot be used.
	ErrAddresses = errors.New("these gateways cannot be used")
)

// distinct returns a list of gateways without repetitions, or what is wrong with
// it: each is host:port, or https://host:port if its listener has a certificate.
func distinct(addrs []string) (list []string, err error) {
	for _, addr := range addrs {
		host, port, err := net.SplitHostPort(strings.TrimPrefix(addr, front.SecurePrefix))
		n, portErr := strconv.ParseUint(port, 10, 16)
		if err != nil || portErr != nil || n == 0 || host == "" || len(addr) > MaxAddress {
			return nil, fmt.Errorf("%w: %.*q is no address, give host:port or https://host:port", ErrAddresses, MaxAddress, addr)
		}
		if !slices.Contains(list, addr) {
			list = append(list, addr)
		}
		if len(list) > MaxGateways {
			return nil, fmt.Errorf("%w: %d are too many, the limit is %d", ErrAddresses, len(addrs), MaxGateways)
		}
	}
	return list, nil
}

// The kinds of events; each is also a count in the metrics.
const (
	GatewayLive       poet.EventKind = "gateway_live"
	GatewaySuspect    poet.EventKind = "gateway_suspect"
	GatewayDead       poet.EventKind = "gateway_dead"
	GatewayRecycled   poet.EventKind = "gateway_recycled"
	GatewaysIgnored   poet.EventKind = "gateways_ignored" // those of the command line
	NoCandidates      poet.EventKind = "gateway_candidates_empty"
	BroadcastFailed   poet.EventKind = "broadcast_failed"
	ProofAcknowledged poet.EventKind = "proof_acknowledged"
	ProofDelivered    poet.EventKind = "proof_delivered"
	ProofExpired      poet.EventKind = "proof_expired"
	ProofUnreadable   poet.EventKind = "proof_unreadable"
	WriteFailed       poet.EventKind = "delivery_write_failed"
)

func kinds() []poet.EventKind {
	return []poet.EventKind{GatewayLive, GatewaySuspect, GatewayDead, GatewayRecycled, GatewaysIgnored, NoCandidates,
		BroadcastFailed, ProofAcknowledged, ProofDelivered, ProofExpired, ProofUnreadable, WriteFailed}
}
