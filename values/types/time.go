package types

import (
	"math"
	"math/bits"
	"strconv"
	"time"

	"github.com/zeebo/blake3"
)

// Layer counts the protocol's slots of time from genesis.
type Layer uint32

// Epoch counts groups of layers; ATXs published in one epoch count in the next.
type Epoch uint32

func (l Layer) String() string { return strconv.FormatUint(uint64(l), 10) }
func (e Epoch) String() string { return strconv.FormatUint(uint64(e), 10) }

// FirstEpochWithBallots is the first epoch that has ballots and blocks: epoch
// 0 is for initialization and the first PoET registration, epoch 1 for the
// first ATXs (reference/protocol.md A1).
const FirstEpochWithBallots Epoch = 2

// Schedule maps wall-clock time to layers and epochs. It is a value; the
// clock itself is the caller's.
type Schedule struct {
	Genesis        time.Time
	LayerDuration  time.Duration
	LayersPerEpoch uint32
}

// Started tells whether genesis has passed at now.
func (s Schedule) Started(now time.Time) bool { return !now.Before(s.Genesis) }

// LayerAt returns the layer that is running at now; before genesis it is 0.
func (s Schedule) LayerAt(now time.Time) Layer {
	if now.Before(s.Genesis) {
		return 0
	}
	return Layer(now.Sub(s.Genesis) / s.LayerDuration)
}

// EpochAt returns the epoch that is running at now; before genesis it is 0.
func (s Schedule) EpochAt(now time.Time) Epoch { return s.EpochOf(s.LayerAt(now)) }

// EpochOf returns the epoch of a layer.
func (s Schedule) EpochOf(l Layer) Epoch { return Epoch(uint32(l) / s.LayersPerEpoch) }

// First returns the first layer of an epoch.
func (s Schedule) First(e Epoch) Layer { return Layer(uint32(e) * s.LayersPerEpoch) }

// LayerStart returns when a layer begins.
func (s Schedule) LayerStart(l Layer) time.Time {
	return s.Genesis.Add(time.Duration(l) * s.LayerDuration)
}

// EpochStart returns when an epoch begins.
func (s Schedule) EpochStart(e Epoch) time.Time { return s.LayerStart(s.First(e)) }

// EpochDuration returns how long an epoch lasts.
func (s Schedule) EpochDuration() time.Duration {
	return time.Duration(s.LayersPerEpoch) * s.LayerDuration
}

// FirstBallotLayer returns the first layer that may have ballots and a block.
// The layer before it is the effective genesis.
func (s Schedule) FirstBallotLayer() Layer { return s.First(FirstEpochWithBallots) }

// PoetSchedule places PoET rounds relative to epochs (reference/poet.md 1.8).
// Round e executes from Start(e) to End(e) and serves the ATXs that are
// published in epoch e+1.
type PoetSchedule struct {
	Genesis       time.Time
	EpochDuration time.Duration
	PhaseShift    time.Duration
	CycleGap      time.Duration
}

// Start returns when round e stops taking registrations and begins to execute.
func (p PoetSchedule) Start(e uint32) time.Time {
	// Seconds for themselves: a Duration holds 292 years.
	first := p.Genesis.Add(p.PhaseShift)
	seconds := first.Unix() + int64(e)*int64(p.EpochDuration/time.Second)
	return time.Unix(seconds, int64(first.Nanosecond())).Add(time.Duration(e) * (p.EpochDuration % time.Second)).In(first.Location())
}

// End returns when the execution of round e is over.
func (p PoetSchedule) End(e uint32) time.Time {
	return p.Start(e).Add(p.EpochDuration - p.CycleGap)
}

// Open returns the round that takes registrations at now.
func (p PoetSchedule) Open(now time.Time) uint32 {
	first := p.Genesis.Add(p.PhaseShift)
	if now.Before(first) {
		return 0
	}
	// 128 bits of nanoseconds: a Duration holds 292 years.
	hi, lo := bits.Mul64(uint64(now.Unix()-first.Unix()), uint64(time.Second))
	lo, carry := bits.Add64(lo, uint64(now.Nanosecond()), 0)
	lo, borrow := bits.Sub64(lo, uint64(first.Nanosecond()), 0)
	if hi += carry - borrow; hi >= uint64(p.EpochDuration) {
		return math.MaxUint32
	}
	rounds, _ := bits.Div64(hi, lo, uint64(p.EpochDuration))
	return uint32(min(rounds, math.MaxUint32-1)) + 1
}

// GoldenATX returns the id that stands before all ATXs of a network:
// BLAKE3(decimal unix genesis time || extra data), reference/protocol.md A1.
func GoldenATX(genesis time.Time, extra string) ATXID {
	return ATXID(blake3.Sum256([]byte(strconv.FormatInt(genesis.Unix(), 10) + extra)))
}

// NetworkID returns the genesis id: the beginning of the golden ATX id.
func NetworkID(genesis time.Time, extra string) GenesisID {
	golden := GoldenATX(genesis, extra)
	return GenesisID(golden[:len(GenesisID{})])
}
