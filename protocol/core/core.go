// Package core is a node's protocol as one passive machine: which ATX counts,
// what a proposal or a decision must be like, when a layer is decided and what
// it does to the state, what is asked of peers, and when the node is synced.
//
// # Contract
//
// Step takes the time and one input and returns an Output. The caller does what
// the Output says in the order of its fields: it makes the Writes durable, in
// one transaction, before anything else; then it lets the guard look at the
// Signs; then it sends, asks, judges and starts work. A Write that fails ends
// the node: the machine is then ahead of what is stored, and the next start
// builds it again from the store by New, as every start does.
//
// It promises: the same inputs at the same times give the same outputs; nothing
// waits for a peer; nothing is stored before it is judged; all that it holds is
// bounded, in all and for each peer and identity, by the limits named here; what
// peers send never panics; what is signed goes through the guard, and counts
// only when it comes back from there.
//
// It leaves to the caller: that messages are checked by Check and answers by
// CheckAnswer, in any goroutine, before they become inputs; that Step is called
// by one goroutine at a time; the clock; to end when Step returns an error,
// which is one of the Reader.
package core

import (
	"slices"
	"time"

	"tweedle/protocol/activation"
	"tweedle/protocol/beacon"
	"tweedle/protocol/eligibility"
	"tweedle/protocol/hare"
	"tweedle/protocol/mesh"
	"tweedle/protocol/syncer"
	"tweedle/protocol/tortoise"
	"tweedle/protocol/txpool"
	"tweedle/protocol/vm"
	"tweedle/values/bounded"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Identity is a smesher's key. It must be comparable.
type Identity interface {
	NodeID() types.NodeID
	Sign(d signing.Domain, msg []byte) types.Signature
	VRF(msg []byte) types.VRFSignature
}

// Crypto checks what others signed and proved. It must be safe for use by many
// goroutines. The real one is Real; a simulator may be cheaper.
type Crypto interface {
	Verify(d signing.Domain, id types.NodeID, msg []byte, sig types.Signature) bool
	VerifyVRF(id types.NodeID, msg []byte, sig types.VRFSignature) bool
	// VerifyTx looks at the signature of a transaction, if it is known who has to
	// sign, and remembers in it that it is right.
	VerifyTx(tx *vm.Tx) error
	// VerifyPoet checks the work of a PoET.
	VerifyPoet(m *types.PoetProofMessage) error
	// VerifySpace checks the proofs of space behind ATXs, a part of the labels
	// that differs from node to node. It gives an error, or nil, for each.
	VerifySpace(claims []*activation.Claim) []error
	// WrongLabel tells whether the label at a place of an ATX's proof does not pass.
	WrongLabel(a *types.ATX, commitment types.ATXID, ordinal uint32) bool
}

// Config is what a machine is made of.
type Config struct {
	Schedule       types.Schedule
	Activation     activation.Params
	Eligibility    eligibility.Params
	Beacon         beacon.Params
	VM             vm.Params
	Pool           txpool.Limits
	Tortoise       tortoise.Params
	Hare           hare.Params // from the end of its delay on no proposal is part of a layer
	TxsPerProposal int         // for each slot
	Crypto         Crypto
	Identities     []Identity // of this node's smeshers, each another one; none: it does not smesh
	// Alone says that the node was given nobody to connect to: it may be the
	// first of its network.
	Alone bool
}

// Machine is the protocol state of one node.
type Machine struct {
	cfg   Config
	rules mesh.Rules
	read  view
	now   time.Time
	out   Output

	registry   *activation.Registry
	sync       *syncer.Machine
	intake     intake
	judged     int // messages that waited, in this Step
	loads      int // ATXs that were read for lists in it, and epochs
	missing    int // what of blocks was looked for in vain in it
	history    *mesh.History
	agree      agreements
	tortoise   *tortoise.Machine // nil until we are synced
	past       past
	gaveUp     bool // a part of the history since the tortoise was there
	chain      chain
	lastSynced types.Layer // the last in which we were synced
	certify    *hare.Certifier
	pool       *txpool.Pool

	layer       types.Layer // by the clock, whose beginning was seen
	started     time.Time
	beacons     beacons
	firsts      map[types.Epoch]types.Decision // the first applied of each epoch, zero if there is none
	electorates map[types.Hash32]*activation.Electorate
	sets        bounded.Map[types.Hash32, types.ActiveSet] // not stored yet
	verifying   map[types.ATXID]*verifying
	atWork      work
	poets       poetBudget
	asked       poetBudget                         // of those that an ATX refers to which is not judged yet
	accused     bounded.Map[types.NodeID, accused] // of whom no ATX is known
	proposals   map[types.Layer]*layerProposals
	extras      extras
	ballots     bounded.Map[types.BallotID, *types.Ballot] // reference ballots that were fetched
	stocked     bounded.Map[types.BallotID, struct{}]      // ballots of which it is known here that they are stored
	selves      []*self
	slots       slots

	wanted   bounded.Map[types.ATXID, struct{}] // ATXs that another ATX refers to
	refused  bounded.Map[types.ATXID, struct{}] // ATXs that are not to be had again
	batches  map[Peer]*batch
	lists    []list
	rewound  types.Layer // in which an old state was last looked for
	dispute  Dispute
	synced   bool
	reason   string
	clock    time.Duration // how far most peers are ahead of our clock, if that is too far
	still    time.Time     // since when nobody has anything beyond our old tip
	snapshot *Snapshot
}

// New builds the machine from what is stored. The store has at least the
// genesis layer.
func New(cfg Config, now time.Time, r Reader) (*Machine, error) {
	m := &Machine{
		cfg: cfg, now: now, started: now,
		rules: mesh.Rules{
			Schedule: cfg.Schedule, Eligibility: cfg.Eligibility, TxsPerProposal: cfg.TxsPerProposal,
		},
		sync:      syncer.New(syncer.Config{Layer: cfg.Schedule.LayerDuration}),
		certify:   hare.NewCertifier(cfg.Hare, cfg.Schedule.FirstBallotLayer()),
		beacons:   beacons{known: make(map[types.Epoch]*types.Beacon)},
		firsts:    make(map[types.Epoch]types.Decision),
		sets:      bounded.New[types.Hash32, types.ActiveSet](MaxSets),
		verifying: make(map[types.ATXID]*verifying),
		proposals: make(map[types.Layer]*layerProposals),
		ballots:   bounded.New[types.BallotID, *types.Ballot](maxFetchedBallots),
		stocked:   bounded.New[types.BallotID, struct{}](maxStocked),
		wanted:    bounded.New[types.ATXID, struct{}](maxWanted),
		refused:   bounded.New[types.ATXID, struct{}](maxRefused),
		accused:   bounded.New[types.NodeID, accused](maxAccused),
		batches:   make(map[Peer]*batch),
		intake:    newIntake(),
		slots:     slots{proving: make(map[types.BallotID][]*parked)},
		extras:    newExtras(),
		reason:    "starting",
		chain:     chain{due: true, lacks: make(map[syncer.Name]bool), heard: make(map[types.Layer]types.Decision)},
	}
	for _, id := range cfg.Identities {
		m.selves = append(m.selves, &self{Identity: id, slots: make(map[types.Epoch]ours)})
	}
	m.electorates = make(map[types.Hash32]*activation.Electorate)
	m.poets = newPoetBudget(MaxUnreferredPoets, MaxUnreferredPoetBytes)
	m.asked = newPoetBudget(MaxAskedPoets, MaxAskedPoetBytes)
	m.read = newView(r)
	m.read.begin()
	m.registry = activation.NewRegistry(cfg.Schedule, m.read.source(), m.read.malicious())
	tip := m.read.tip()
	state, err := m.stateAt(tip.Layer, tip.StateRoot)
	if err != nil {
		return nil, err
	}
	m.history = mesh.NewHistory(cfg.VM, mesh.Link{Decision: tip, State: state})
	m.pool = txpool.New(state, cfg.VM, cfg.Pool)
	m.layer = cfg.Schedule.LayerAt(now)
	m.agree = agreements{of: make(map[types.Layer]*agreement), closed: max(m.layer, tip.Layer)}
	for _, raw := range m.read.waiting() {
		if tx, err := vm.Parse(raw); err == nil {
			_, _ = m.pool.Add(tx) // one that cannot wait any more is forgotten
		}
	}
	m.rebuildTortoise()
	m.publish()
	return m, m.read.err
}

// stateAt rebuilds the state after an applied layer from the store.
func (m *Machine) stateAt(l types.Layer, root types.Hash32) (vm.State, error) {
	state, err := vm.Restore(m.read.accounts(l))
	if err == nil {
		err = m.read.err
	}
	if err == nil && state.Root() != root {
		err = &CorruptStateError{l}
	}
	return state, err
}

// CorruptStateError says that the stored accounts are not those of a layer's
// state root. The state is to be fetched again from the network.
type CorruptStateError struct{ Layer types.Layer }

func (e *CorruptStateError) Error() string {
	return "stored accounts do not have the state root of layer " + e.Layer.String()
}

// Step feeds the machine one input at now, which never goes backwards. An error
// is one of the Reader; the machine must not be used after it.
func (m *Machine) Step(now time.Time, in Input) (Output, error) {
	if now.After(m.now) {
		m.now = now
	}
	m.out, m.judged, m.missing, m.loads = Output{}, 0, 0, 0
	m.read.begin()
	m.advance()
	switch in := in.(type) {
	case Tick:
	case Heard:
		m.heard(in)
	case Verified:
		m.verified(in)
	case SlotsChecked:
		m.slotsChecked(in)
	case Seated:
		m.seated(in)
	case SeatsDrawn:
		m.drawn(in)
	case Assigned:
		m.assigned(in)
	case Answered:
		m.answered(in)
	case Peers:
		m.sync.SetPeers(in.Connected)
		m.lists = slices.DeleteFunc(m.lists, func(l list) bool { return !slices.Contains(in.Connected, l.peer) })
	}
	m.settle()
	m.align()
	m.conclude()
	m.ask()
	m.wakeAt(m.nextWake())
	m.publish()
	return m.out, m.read.err
}

// epoch is that of the clock.
func (m *Machine) epoch() types.Epoch { return m.cfg.Schedule.EpochAt(m.now) }

func (m *Machine) wakeAt(t time.Time) {
	if !t.IsZero() && (m.out.Wake.IsZero() || t.Before(m.out.Wake)) {
		m.out.Wake = t
	}
}

// nextWake returns when something is due without input.
func (m *Machine) nextWake() time.Time {
	next := m.cfg.Schedule.LayerStart(m.layer + 1)
	if m.now.Before(m.cfg.Schedule.Genesis) {
		next = m.cfg.Schedule.Genesis
	}
	for _, at := range []time.Time{m.agree.wake, m.intake.first, m.slots.next, m.beaconDue()} {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	return next
}

// advance does what the clock asks for.
func (m *Machine) advance() {
	layer := m.cfg.Schedule.LayerAt(m.now)
	begins := layer > m.layer
	m.layer = max(m.layer, layer)
	m.readPast()
	if begins {
		m.forgetLayers()
		m.forgetAgreements()
		m.expireTxs()
		m.dropPoets()
		m.beginBeacon()
		m.tally()
		for _, s := range m.selves {
			s.forget(m.epoch())
		}
		for _, s := range m.active(layer) {
			m.propose(s, layer)
		}
	}
	m.stepBeacon()
	m.prepare()
	m.agreeOn()
	m.readLists()
	for _, p := range m.intake.expire(m.now) {
		m.giveUp(p, "what it refers to did not come in time")
	}
}

// active returns those of our identities that propose and sign in a layer, in the order in
// which they were given. One that is proved malicious runs somewhere else too: it signs
// nothing more, the others go on.
func (m *Machine) active(l types.Layer) (out []*self) {
	if !m.synced || l < m.cfg.Schedule.FirstBallotLayer() {
		return nil
	}
	for _, s := range m.selves {
		if !m.Elsewhere(s.NodeID()) {
			out = append(out, s)
		}
	}
	return out
}

// Elsewhere tells whether an identity of ours was shown to sign somewhere else too: it signs
// nothing more here. It only reads.
func (m *Machine) Elsewhere(id types.NodeID) bool { return m.registry.Convicted(id) }

// own returns our identity of an id, nil if it is not ours.
func (m *Machine) own(id types.NodeID) *self {
	for _, s := range m.selves {
		if s.NodeID() == id {
			return s
		}
	}
	return nil
}

func (m *Machine) event(e Event) { m.out.Events = append(m.out.Events, e) }

func (m *Machine) write(w Write) {
	m.out.Writes = append(m.out.Writes, w)
	m.read.wrote(w)
	switch w := w.(type) {
	case WriteBallot:
		m.stocked.Put(w.ID, struct{}{})
	case WriteLayer:
		m.past.undo(w.Base)
	case WriteRevert:
		m.past.undo(w.To)
	}
}

func (m *Machine) send(t Topic, raw []byte) { m.out.Sends = append(m.out.Sends, Send{t, raw}) }
