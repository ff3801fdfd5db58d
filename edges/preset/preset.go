// Package preset names the networks: the constants of each kind, and the file
// that tells all programs of one network what it is.
//
// It promises: two programs that load the same file agree on every rule. It
// leaves to the caller where that file comes from; whoever can change it can
// move a node to another network, though never make it accept another's
// messages.
package preset

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"tweedle/proofs/post"
	"tweedle/protocol/activation"
	"tweedle/protocol/beacon"
	"tweedle/protocol/eligibility"
	"tweedle/protocol/hare"
	"tweedle/protocol/tortoise"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// Params are the constants of a kind of network.
type Params struct {
	Name           string
	HRP            string // prefix of addresses
	LayerDuration  time.Duration
	LayersPerEpoch uint32

	// PoET rounds, relative to epochs (reference/poet.md 1.8), and how long
	// before a round starts a smesher makes its challenge.
	PoetPhaseShift time.Duration
	PoetCycleGap   time.Duration
	PoetGrace      time.Duration
	TickSize       uint64 // leaves

	Post post.Params
	VM   vm.Params

	LayerSize       uint32 // ballots of a layer, on average
	MinActiveWeight uint64
	TxsPerProposal  int // for each of a smesher's slots in the layer
	// ProposalWindow is how long after its start a layer takes proposals.
	ProposalWindow time.Duration

	// BeaconPhase is how long a message about the beacon may take, with what clocks differ by; 0 is a
	// 25th of an epoch. BeaconRounds are those of following votes.
	BeaconPhase  time.Duration
	BeaconRounds int
	// After the proposal window the smeshers of a layer agree on its proposals: in rounds, with committees of so
	// many seats, of whom so many lead (protocol/hare). 0 is a 14th of a layer, so that an iteration takes half of one.
	HareRound      time.Duration
	HareCommittee  uint32
	HareLeaders    uint32
	HareIterations int
}

// presets in the order in which they are listed to people.
func presets() []Params { return []Params{Mainnet(), Testnet(), Local(), Test()} }

// Names are those of the presets.
func Names() (names []string) {
	for _, p := range presets() {
		names = append(names, p.Name)
	}
	return names
}

// Named returns the preset of a name.
func Named(name string) (Params, error) {
	for _, p := range presets() {
		if p.Name == name {
			return p, nil
		}
	}
	return Params{}, fmt.Errorf("unknown preset %q: choose one of %s", name, strings.Join(Names(), ", "))
}

// Mainnet has the published constants (reference/protocol.md A15).
func Mainnet() Params {
	return Params{
		Name: "mainnet", HRP: "sm",
		LayerDuration: 5 * time.Minute, LayersPerEpoch: 4032,
		PoetPhaseShift: 240 * time.Hour, PoetCycleGap: 12 * time.Hour, PoetGrace: time.Hour,
		TickSize: 9_331_200, Post: post.MainnetParams(), VM: vm.MainnetParams(),
		LayerSize: 50, MinActiveWeight: 1_000_000, TxsPerProposal: 700,
		ProposalWindow: 25 * time.Second,
		BeaconPhase:    30 * time.Minute, BeaconRounds: 9,
		HareRound: 12 * time.Second, HareCommittee: 400, HareLeaders: 5, HareIterations: 8,
	}
}

// Testnet has one-day epochs.
func Testnet() Params {
	p := Mainnet()
	p.Name, p.HRP = "testnet", "stest"
	p.LayersPerEpoch = 288
	p.PoetPhaseShift, p.PoetCycleGap, p.PoetGrace = 12*time.Hour, 2*time.Hour, 10*time.Minute
	p.TickSize, p.MinActiveWeight = 666_514, 10_000
	p.Post = post.MainnetLikeParams()
	p.BeaconPhase = 10 * time.Minute
	return p
}

// Local is a network that lives on one machine: the first block comes within
// a minute.
func Local() Params {
	return Params{
		Name: "local", HRP: "stest",
		LayerDuration: 2 * time.Second, LayersPerEpoch: 10,
		PoetPhaseShift: 10 * time.Second, PoetCycleGap: 8 * time.Second, PoetGrace: 5 * time.Second,
		TickSize: 100, Post: post.LocalParams(), VM: vm.LocalParams(),
		LayerSize: 20, TxsPerProposal: 100,
		ProposalWindow: 700 * time.Millisecond, BeaconRounds: 9,
		HareCommittee: 400, HareLeaders: 5, HareIterations: 8,
	}
}

// Test is for simulators: cheap proofs, and epochs of a minute in virtual time.
func Test() Params {
	p := Local()
	p.Name = "test"
	p.LayerDuration, p.LayersPerEpoch = 15*time.Second, 4
	p.PoetPhaseShift, p.PoetCycleGap, p.PoetGrace = 30*time.Second, 30*time.Second, 10*time.Second
	p.Post = post.TestParams()
	p.ProposalWindow = 7 * time.Second
	p.HareRound, p.HareIterations = 2500*time.Millisecond, 4 // clocks may differ by 2 s
	return p
}

// Validate checks that the constants fit together.
func (p Params) Validate() error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("preset %s: %s", p.Name, fmt.Sprintf(format, args...))
	}
	if p.LayerDuration <= 0 || p.LayersPerEpoch == 0 {
		return wrong("an epoch has no duration: layer_duration and layers_per_epoch must be over 0")
	}
	if p.LayerDuration > maxEpoch/time.Duration(p.LayersPerEpoch) {
		return wrong("an epoch of %d layers of %v is longer than %d days", p.LayersPerEpoch, p.LayerDuration, maxEpoch/(24*time.Hour))
	}
	epoch := time.Duration(p.LayersPerEpoch) * p.LayerDuration
	switch {
	case p.LayersPerEpoch < minLayers:
		return wrong("layers_per_epoch is %d, at least %d are needed", p.LayersPerEpoch, minLayers)
	case p.LayerDuration < minLayer:
		return wrong("layer_duration is %v, peers need %v to hear each other", p.LayerDuration, minLayer)
	case p.LayerDuration > time.Second && p.LayerDuration%time.Second != 0:
		return wrong("layer_duration is %v, over a second it must be whole seconds: the API can tell clients nothing else", p.LayerDuration)
	case p.PoetCycleGap <= 0 || p.PoetCycleGap >= epoch:
		return wrong("the PoET cycle gap must be within an epoch: poet_cycle_gap is %v, the epoch %v", p.PoetCycleGap, epoch)
	case p.PoetGrace <= 0 || p.PoetGrace >= p.PoetCycleGap:
		return wrong("a smesher registers after the last round's proof: poet_grace %v must be over 0 and below poet_cycle_gap %v", p.PoetGrace, p.PoetCycleGap)
	case p.PoetPhaseShift <= p.PoetGrace || p.PoetPhaseShift >= epoch:
		return wrong("the PoET phase shift must be within an epoch and over the grace period: poet_phase_shift is %v, the epoch %v, poet_grace %v", p.PoetPhaseShift, epoch, p.PoetGrace)
	case p.ProposalWindow <= 0 || p.ProposalWindow >= p.LayerDuration:
		return wrong("the proposal window must be within a layer: proposal_window is %v, the layer %v", p.ProposalWindow, p.LayerDuration)
	case p.BeaconRounds < 1 || p.BeaconRounds > beacon.MaxRounds:
		return wrong("beacon_rounds is %d, it must be 1 to %d", p.BeaconRounds, beacon.MaxRounds)
	case p.BeaconPhase < 0 || p.Beacon().Phase == 0 || p.Beacon().Phase >= epoch || p.Beacon().Duration() > epoch-activation.Cut(types.Schedule{LayerDuration: p.LayerDuration, LayersPerEpoch: p.LayersPerEpoch}):
		return wrong("the beacon must be found before the next epoch's electorate is fixed: it takes %d phases (beacon_rounds) of %v (beacon_phase), the epoch %v", 2*p.BeaconRounds+4, p.Beacon().Phase, epoch)
	case p.Hare().Round < minRound:
		return wrong("hare_round is %v, peers need %v to hear each other", p.Hare().Round, minRound)
	case p.HareCommittee == 0 || p.HareLeaders == 0:
		return wrong("nobody agrees on a layer: hare_committee and hare_leaders must be over 0")
	case p.HareIterations < 1 || p.HareIterations > hare.MaxIterations:
		return wrong("hare_iterations is %d, not 1 to %d", p.HareIterations, hare.MaxIterations)
	case p.Hare().Bound() > maxAgreement*p.LayerDuration:
		return wrong("the agreement on a layer may take %v, more than %d layers", p.Hare().Bound(), maxAgreement)
	case p.TickSize == 0:
		return wrong("a tick has no leaves: tick_size must be over 0")
	case p.LayerSize == 0:
		return wrong("a layer has no ballots: layer_size must be over 0")
	case p.TxsPerProposal <= 0:
		return wrong("a proposal has no transactions: txs_per_proposal must be over 0")
	}
	return p.Post.Validate()
}

// Bounds of an epoch's times.
const (
	maxEpoch  = 366 * 24 * time.Hour
	minLayer  = 100 * time.Millisecond
	minLayers = 4 // fewest that the tests have seen
)

// Bounds of the agreement on a layer.
const (
	minRound     = 10 * time.Millisecond
	maxAgreement = 7 // layers, after which others build on what they do not know
)

// Hare returns the constants of package hare.
func (p Params) Hare() hare.Params {
	round := p.HareRound
	if round == 0 {
		round = p.LayerDuration / 14
	}
	return hare.Params{
		Committee: p.HareCommittee, Leaders: p.HareLeaders, Iterations: p.HareIterations, Delay: p.ProposalWindow, Round: round,
	}
}

// Eligibility returns the constants of package eligibility.
func (p Params) Eligibility() eligibility.Params {
	return eligibility.Params{LayerSize: p.LayerSize, LayersPerEpoch: p.LayersPerEpoch, MinWeight: p.MinActiveWeight}
}

// Beacon returns the constants of package beacon.
func (p Params) Beacon() beacon.Params {
	phase := p.BeaconPhase
	if phase == 0 {
		phase = time.Duration(p.LayersPerEpoch) * p.LayerDuration / 25
	}
	return beacon.Params{Phase: phase, Rounds: p.BeaconRounds}
}

// Tortoise returns the constants of package tortoise: a layer of which there is no result when its
// agreement is over is empty, and that is believed until certificates had their time.
func (p Params) Tortoise() tortoise.Params {
	zdist := types.Layer(p.Hare().Bound()/p.LayerDuration) + 2
	hdist := zdist + 3
	return tortoise.Params{
		LayersPerEpoch: p.LayersPerEpoch, Hdist: hdist, Zdist: zdist, Window: 2 * hdist, BadBeaconDelay: hdist,
		MaxExceptions: 2000, MaxLayers: 4096, MaxBallots: 4096, MaxBlocks: 64, MaxOpinions: 1 << 16,
	}
}

// Account is a balance at genesis.
type Account struct {
	Address string `json:"address"`
	Balance uint64 `json:"balance"` // smidge
}

// Network is one network: the content of its network file.
type Network struct {
	Name      string    `json:"name"`
	Preset    string    `json:"preset"`
	Genesis   time.Time `json:"genesis_time"` // whole seconds
	ExtraData string    `json:"extra_data"`
	Accounts  []Account `json:"accounts,omitempty"`
	// Rules are what it has otherwise than its preset.
	Rules Rules `json:"rules,omitempty"`
}

// New returns a network that is no other, named after its preset.
func New(preset string, rules Rules, genesis time.Time) Network {
	var unique [8]byte
	rand.Read(unique[:]) //nolint:errcheck // it never fails
	extra := hex.EncodeToString(unique[:])
	return Network{Name: preset + "-" + extra[:6], Preset: preset, Genesis: genesis, ExtraData: extra, Rules: rules}
}

// After returns the first whole second after a time, for a genesis.
func After(t time.Time) time.Time { return t.UTC().Truncate(time.Second).Add(time.Second) }

// Params returns the constants of the network's kind.
func (n Network) Params() (Params, error) {
	p, err := Named(n.Preset)
	if err == nil {
		err = n.Rules.apply(&p)
	}
	return p, err
}

// Validate says what is wrong with a network file.
func (n Network) Validate() error {
	p, err := n.Params()
	switch {
	case err != nil:
		return err
	case n.Name == "":
		return fmt.Errorf("network has no name")
	case n.Genesis.Unix() <= 0 || n.Genesis.Nanosecond() != 0:
		return fmt.Errorf("genesis time %v of network %q is not a whole second after 1970", n.Genesis, n.Name)
	case strings.Contains(n.ExtraData, extraSeparator):
		return fmt.Errorf("extra data %q of network %q contains a %q", n.ExtraData, n.Name, extraSeparator)
	}
	if _, err := n.VM(p); err != nil {
		return err
	}
	return p.Validate()
}

// extraSeparator stands between the parts of extra, and in none of them.
const extraSeparator = "|"

// extra is all that tells networks of one genesis second apart. The constants
// and the balances at genesis are part of the identity, so that nodes which
// would disagree on them never speak to each other. A published network has
// neither in its identity (reference/protocol.md A1): its kind is mainnet, and
// its balances are none.
func (n Network) extra() string {
	if n.Preset == Mainnet().Name && len(n.Accounts) == 0 && len(n.Rules) == 0 {
		return n.ExtraData
	}
	lines := make([]string, len(n.Accounts))
	for i, a := range n.Accounts {
		lines[i] = fmt.Sprintf("%s=%d", a.Address, a.Balance)
	}
	slices.Sort(lines)
	p, _ := n.Params() // Validate tells what is wrong with it
	return strings.Join([]string{n.ExtraData, n.Preset, said(p), strings.Join(lines, ",")}, extraSeparator)
}

// ID returns the genesis id.
func (n Network) ID() types.GenesisID { return types.NetworkID(n.Genesis, n.extra()) }

// Golden returns the id that stands before all ATXs.
func (n Network) Golden() types.ATXID { return types.GoldenATX(n.Genesis, n.extra()) }

// VM returns the rules of the network's ledger. The balances at genesis are
// those of the network, not of the preset.
func (n Network) VM(p Params) (vm.Params, error) {
	v := p.VM
	v.HRP, v.Network = p.HRP, n.ID()
	v.EffectiveGenesis = n.Schedule(p).FirstBallotLayer() - 1
	v.Genesis = nil
	for _, a := range n.Accounts {
		addr, err := types.ParseAddress(a.Address, p.HRP)
		if err != nil {
			return v, fmt.Errorf("genesis account: %w", err)
		}
		v.Genesis = append(v.Genesis, vm.GenesisAccount{Address: addr, Balance: a.Balance})
	}
	return v, v.Check()
}

// Schedule returns the network's layers and epochs.
func (n Network) Schedule(p Params) types.Schedule {
	return types.Schedule{Genesis: n.Genesis, LayerDuration: p.LayerDuration, LayersPerEpoch: p.LayersPerEpoch}
}

// PoetSchedule returns the network's PoET rounds.
func (n Network) PoetSchedule(p Params) types.PoetSchedule {
	return types.PoetSchedule{
		Genesis: n.Genesis, EpochDuration: time.Duration(p.LayersPerEpoch) * p.LayerDuration,
		PhaseShift: p.PoetPhaseShift, CycleGap: p.PoetCycleGap,
	}
}

// Activation returns the constants of package activation.
func (n Network) Activation(p Params) activation.Params {
	return activation.Params{Network: n.ID(), Golden: n.Golden(), TickSize: p.TickSize, Post: p.Post}
}
