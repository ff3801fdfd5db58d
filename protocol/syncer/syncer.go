// Package syncer decides whom a node asks for what it lacks: objects by name,
// the ATXs of epochs, the certified history since its tip.
//
// It promises: what a peer says counts only with its proof, which the caller
// checks and reports; every ask has a deadline, and what one peer does not give
// is asked of another; a peer that wastes our time pays and is asked less; all
// it holds is bounded, in all and for each peer. It leaves to the caller: what
// the objects mean, sending the asks, and telling what came of them.
//
// It is passive: time is an argument, peers are taken in sorted order, and no
// result depends on the order of a map.
package syncer

import (
	"fmt"
	"slices"
	"time"

	"tweedle/values/types"
)

// Peer names a connected host.
type Peer string

// Kind tells what an object is. The values are on the wire.
type Kind uint8

// The kinds of objects that are asked for by name.
const (
	ATX         Kind = 1
	PoetProof   Kind = 2
	ActiveSet   Kind = 3
	Ballot      Kind = 4
	Block       Kind = 5
	Transaction Kind = 6
	Malfeasance Kind = 7 // a proof, named by its smesher
)

func (k Kind) String() string {
	names := [...]string{"", "ATX", "PoET proof", "active set", "ballot", "block", "transaction", "malfeasance proof"}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return names[k]
}

// Name names an object by its hash. Ids of 20 bytes leave the rest zero.
type Name struct {
	Kind Kind
	ID   [32]byte
}

// Name20 names an object whose id has 20 bytes.
func Name20(k Kind, id [20]byte) Name {
	n := Name{Kind: k}
	copy(n.ID[:], id[:])
	return n
}

// Size returns the length of the id in bytes.
func (n Name) Size() int {
	if n.Kind == Ballot || n.Kind == Block {
		return 20
	}
	return 32
}

func (n Name) String() string { return fmt.Sprintf("%s %x", n.Kind, n.ID[:5]) }

// Limits of a machine.
const (
	MaxObjects      = 128    // names in one ask
	MaxCertificates = 64     // in one answer
	MaxEpochs       = 1024   // in one ask
	MaxIDs          = 50_000 // ids in one answer; with so many, there may be more
	MaxMalicious    = 16_384 // smeshers in one answer; the same
	MaxOpen         = 16     // decisions in one answer that are not certified
	MaxWants        = 65_536 // objects that are wanted at a time
	MaxWantsPerPeer = 16_384 // of them, named by one peer
	MaxAsksPerPeer  = 4      // open asks for objects to one peer, half of them for what it did not name itself
)

// What a peer is charged (p2p.Host.Penalise: a hundred points are a ban).
const (
	PointsGarbage = 50  // an answer that no honest peer gives
	PointsWaste   = 5   // an answer that proves nothing, or not what it was asked for
	PointsTimeout = 2   // no answer in time, twice in a row
	PointsMissing = 0.5 // what it referred to itself, it does not have
)

// Ask is a request to one peer. Exactly one of Objects, Epochs and Layers is
// set. The caller answers with Answered, by the deadline at the latest.
type Ask struct {
	ID      uint64
	Peer    Peer
	Objects []Name
	Epochs  *Epochs
	Layers  *Layers
	Until   time.Time
	slow    bool // others are asked for its objects too
}

// Epochs asks for the ids of the ATXs published from one epoch to another, of the
// first only those after an id, and for the malicious smeshers after one.
type Epochs struct {
	From, To types.Epoch
	After    types.ATXID
	Evil     types.NodeID
}

// Layers asks for the certified decisions from a layer on, and for the ids of ballots from another one on,
// if that is not zero.
type Layers struct{ From, Ballots types.Layer }

// Failure says why an ask has no answer.
type Failure uint8

// The failures.
const (
	None    Failure = iota // it has one
	Timeout                // or the peer broke off
	Busy                   // it or we have too much to do: later
	Gone                   // it is not connected, or does not serve this
	Garbage                // what it sent is not an answer
)

func (f Failure) String() string {
	return [...]string{"none", "timeout", "busy", "not connected", "garbage"}[f]
}

// Penalty is what a peer is charged.
type Penalty struct {
	Peer   Peer
	Points float64
	Reason string
}

// Output says what is to be done.
type Output struct {
	Asks      []Ask
	Penalties []Penalty
	GaveUp    []Name    // nobody has them, or the time is over
	Wake      time.Time // when to call Step at the latest
}

// Config has the times, which follow from the network's layers.
type Config struct{ Layer time.Duration }

// Timeout is how long a peer may take to answer.
func (c Config) Timeout() time.Duration { return min(max(c.Layer/2, time.Second), 10*time.Second) }

// patience is how long a peer alone is asked for an object. After that one other is
// asked too, and only one: who withholds does not make us ask all.
func (c Config) patience() time.Duration { return c.Timeout() / 4 }

// Standing is what a peer's last answer about the history proved.
type Standing uint8

// The standings.
const (
	Unknown  Standing = iota
	Behind            // it has nothing from our tip on
	Confirms          // its newest certified layer is ours
	Ahead             // it gave certificates beyond our tip
	Differs           // it has another decision where we have ours
)

// peer is what we know of a connected peer.
type peer struct {
	objects  int // open asks for objects
	late     int // asks for objects that it let time out, less those that it answered since
	mute     int // asks about the history that came to nothing since it answered one, and one more if it never did
	history  bool
	epochs   bool
	wants    int
	backoff  time.Time
	pause    time.Duration
	standing Standing
	stood    time.Time
	lower    types.Layer   // how far below our tip its history is looked for
	clock    time.Duration // how far its clock is ahead of ours
	told     time.Time     // when it said so
	more     *Epochs       // what its last list did not come to
}

// silent is how much a peer left unanswered of late.
func (p *peer) silent() int { return p.mute + p.late }

type want struct {
	name  Name
	hint  Peer
	only  bool // nobody but the hint is asked
	until time.Time
	tried map[Peer]bool
	asked uint64
	slow  Peer // was asked before and may still answer
	gone  bool // it is not wanted any more
}

// Machine is the state of one node's asking.
type Machine struct {
	cfg    Config
	peers  map[Peer]*peer
	names  []Peer  // sorted
	list   []*peer // of the names, in their order
	turn   int
	wants  map[Name]*want
	order  []*want // of wants that were looked at, in the order of their coming
	fresh  []*want // and of those that came since
	asks   map[uint64]Ask
	next   uint64
	round  time.Time // of the last regular asking
	urge   bool
	dirty  bool      // something may be asked for now that was not before
	expiry time.Time // when open asks are looked through again
	hurry  time.Time // when the first of them is slow; zero: none will be
	due    time.Time // when that may be so again by itself
	sweep  time.Time // when the others are asked for what its hint did not give
	out    Output
}

// New returns a machine that knows nobody.
func New(cfg Config) *Machine {
	return &Machine{cfg: cfg, peers: make(map[Peer]*peer), wants: make(map[Name]*want), asks: make(map[uint64]Ask)}
}

// SetPeers tells who is connected.
func (m *Machine) SetPeers(peers []Peer) {
	sorted := slices.Clone(peers)
	slices.Sort(sorted)
	m.names = slices.Compact(sorted)
	m.dirty = true
	for p := range m.peers {
		if _, ok := slices.BinarySearch(m.names, p); !ok {
			delete(m.peers, p)
		}
	}
	m.list = m.list[:0]
	for _, p := range m.names {
		if m.peers[p] == nil {
			m.peers[p] = &peer{mute: 1} // who has answered is known better
			m.urge = true
		}
		m.list = append(m.list, m.peers[p])
	}
}

// Peers returns how many peers are connected.
func (m *Machine) Peers() int { return len(m.names) }

// Want asks for an object until a time, of the peer that named it first. It
// returns false when too much is wanted already.
func (m *Machine) Want(n Name, hint Peer, until time.Time) bool { return m.want(n, hint, until, false) }

// WantFrom asks one peer only: nobody else has named the object.
func (m *Machine) WantFrom(n Name, p Peer, until time.Time) bool { return m.want(n, p, until, true) }

func (m *Machine) want(n Name, hint Peer, until time.Time, only bool) bool {
	if w := m.wants[n]; w != nil {
		w.only = w.only && only
		if until.After(w.until) {
			w.until = until
		}
		m.named(w, hint)
		return true
	}
	p := m.peers[hint]
	if len(m.wants) >= MaxWants || p != nil && p.wants >= MaxWantsPerPeer {
		return false
	}
	if p != nil {
		p.wants++
	}
	w := &want{name: n, hint: hint, only: only, until: until, tried: make(map[Peer]bool)}
	m.wants[n] = w
	m.fresh = append(m.fresh, w)
	return true
}

// named notes that one more peer names an object: who answers takes the place of
// a hint that does not. Who was asked before and names it now has come by it since, or had lost the ask.
func (m *Machine) named(w *want, by Peer) {
	if w.tried[by] {
		delete(w.tried, by)
		m.dirty = true
	}
	p, hint := m.peers[by], m.peers[w.hint]
	if p == nil || hint == nil || p.late >= hint.late || w.tried[by] || p.wants >= MaxWantsPerPeer {
		return
	}
	hint.wants--
	p.wants++
	w.hint, m.dirty = by, true
}

// Wants returns how many objects are wanted.
func (m *Machine) Wants() int { return len(m.wants) }

// Most returns the most objects that are wanted because one peer named them, and the
// most open asks for objects to one peer.
func (m *Machine) Most() (wants, asks int) {
	for _, p := range m.list {
		wants, asks = max(wants, p.wants), max(asks, p.objects)
	}
	return wants, asks
}

// Have tells that an object is here, whatever way it came.
func (m *Machine) Have(n Name) {
	if w := m.wants[n]; w != nil {
		m.forget(w)
	}
}

func (m *Machine) forget(w *want) {
	delete(m.wants, w.name)
	w.gone = true
	if p := m.peers[w.hint]; p != nil {
		p.wants--
	}
}

// Urge asks about the history at once: something beyond it is certified.
func (m *Machine) Urge() { m.urge = true }

// Find returns an open ask; false if its time is over or it never was.
func (m *Machine) Find(id uint64) (Ask, bool) {
	a, ok := m.asks[id]
	return a, ok
}

// Answered tells what came of an ask. given is how many of the names asked for
// the answer covers, in their order, and got tells for each of those whether it
// has the object. For other asks both are empty.
func (m *Machine) Answered(now time.Time, id uint64, f Failure, got []bool) {
	a, ok := m.asks[id]
	if !ok {
		return
	}
	delete(m.asks, id)
	m.dirty = true
	p := m.peers[a.Peer]
	if p != nil {
		m.settle(now, a, p, f, got)
	}
	for i, n := range a.Objects {
		w := m.wants[n]
		switch {
		case w != nil && w.asked == id:
			w.asked = 0
		case w != nil && a.slow && w.slow == a.Peer:
			w.slow = ""
		default:
			continue
		}
		switch {
		case f == Busy:
		case f != None || i < len(got) && !got[i]:
			w.tried[a.Peer] = true
			if f == None && w.hint == a.Peer && p != nil {
				m.charge(a.Peer, PointsMissing, "it does not have what it refers to")
			}
		}
	}
	if f == None && len(a.Objects) > 0 && len(got) == 0 {
		for _, n := range a.Objects {
			if w := m.wants[n]; w != nil {
				w.tried[a.Peer] = true
			}
		}
	}
}

// settle counts an answer for or against its peer.
func (m *Machine) settle(now time.Time, a Ask, p *peer, f Failure, got []bool) {
	switch {
	case a.Objects != nil:
		p.objects--
		if f == Timeout {
			if !a.slow { // it was counted then
				p.late++
			}
		} else if p.late > 0 && slices.Contains(got, true) {
			p.late--
		}
	default:
		if a.Epochs != nil {
			p.epochs = false
		} else {
			p.history = false
		}
		switch f {
		case None:
			p.mute = 0
		case Busy: // it is there
		default:
			p.mute++
		}
	}
	switch f {
	case None:
		p.pause = 0
		return
	case Garbage:
		m.charge(a.Peer, PointsGarbage, "its answer cannot be read, or is not what it was asked for")
	case Timeout:
		if p.pause > 0 { // one lost answer is the weather
			m.charge(a.Peer, PointsTimeout, "it does not answer in time, and not for the first time")
		}
	}
	p.pause = min(max(2*p.pause, m.cfg.Timeout()/4), 8*m.cfg.Layer)
	p.backoff = now.Add(p.pause)
}

// Waste charges a peer for an answer that was well formed and of no use.
func (m *Machine) Waste(now time.Time, p Peer, reason string) {
	m.charge(p, PointsWaste, reason)
	if s := m.peers[p]; s != nil {
		s.pause = min(max(2*s.pause, m.cfg.Timeout()), 8*m.cfg.Layer)
		s.backoff = now.Add(s.pause)
	}
}

func (m *Machine) charge(p Peer, points float64, reason string) {
	m.out.Penalties = append(m.out.Penalties, Penalty{p, points, reason})
}

// Stands notes what a peer's answer about the history proved.
func (m *Machine) Stands(now time.Time, p Peer, s Standing) {
	q := m.peers[p]
	if q == nil {
		return
	}
	q.standing, q.stood = s, now
	switch s {
	case Ahead:
		m.urge = true
	case Differs:
		q.lower = max(2*q.lower, 1)
		m.urge = true
	default:
		q.lower = 0
	}
}

// More asks a peer for the rest of a list, at once.
func (m *Machine) More(p Peer, rest Epochs) {
	if q := m.peers[p]; q != nil {
		q.more, m.urge = &rest, true
	}
}

// Told notes how far a peer's clock is ahead of ours.
func (m *Machine) Told(now time.Time, p Peer, ahead time.Duration) {
	if q := m.peers[p]; q != nil {
		q.clock, q.told = ahead, now
	}
}

// Clock returns how far the clock of the middle one of those peers is ahead of
// ours that said so since a time, of two in the middle the one nearer to ours,
// and how many they are.
func (m *Machine) Clock(since time.Time) (ahead time.Duration, n int) {
	var all []time.Duration
	for _, p := range m.peers {
		if !p.told.IsZero() && !p.told.Before(since) {
			all = append(all, p.clock)
		}
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	low, high := all[(len(all)-1)/2], all[len(all)/2]
	if low.Abs() < high.Abs() {
		return low, len(all)
	}
	return high, len(all)
}

// Count returns how many peers confirm our tip, and how many are ahead of it, by
// standings that are not older than since.
func (m *Machine) Count(since time.Time) (confirms, ahead int) {
	for _, p := range m.list {
		if p.stood.Before(since) {
			continue
		}
		switch p.standing {
		case Confirms:
			confirms++
		case Ahead:
			ahead++
		}
	}
	return confirms, ahead
}

// View is what the machine must know of the node.
type View struct {
	Tip     types.Layer // newest applied
	Ballots types.Layer // the first whose ballots are asked for, 0: none
	Epoch   types.Epoch // by the clock
	From    types.Epoch // the first publish epoch whose ATXs are asked for
	Synced  bool
	Busy    func(Peer) bool // what a peer answered is in work: no more is asked of it; nil: of nobody
}

// Step returns what is to be asked now.
func (m *Machine) Step(now time.Time, v View) Output {
	if now.After(m.expiry) {
		m.expiry = now.Add(m.cfg.Timeout())
		for _, id := range m.sortedAsks() {
			if a := m.asks[id]; now.After(a.Until.Add(m.cfg.Timeout())) { // the caller forgot it
				m.Answered(now, id, Timeout, nil)
			}
		}
	}
	m.hasten(now)
	m.objects(now)
	m.history(now, v)
	out := m.out
	m.out = Output{}
	out.Wake = m.wake(now, v)
	return out
}

// hasten lets the objects of asks that take long be asked of one more peer each.
// Who takes so long counts as late until it answers.
func (m *Machine) hasten(now time.Time) {
	if m.hurry.IsZero() || now.Before(m.hurry) {
		return
	}
	m.hurry = time.Time{}
	for _, id := range m.sortedAsks() {
		a := m.asks[id]
		at := a.Until.Add(m.cfg.patience() - m.cfg.Timeout())
		if a.slow || a.Objects == nil {
			continue
		}
		if now.Before(at) {
			m.hastenAt(at)
			continue
		}
		a.slow, m.dirty = true, true
		m.asks[id] = a
		if p := m.peers[a.Peer]; p != nil {
			p.late++
		}
		for _, n := range a.Objects {
			if w := m.wants[n]; w != nil && w.asked == id && w.slow == "" {
				w.asked, w.slow = 0, a.Peer
			}
		}
	}
}

func (m *Machine) hastenAt(t time.Time) {
	if m.hurry.IsZero() || t.Before(m.hurry) {
		m.hurry = t
	}
}

func (m *Machine) sortedAsks() []uint64 {
	ids := make([]uint64, 0, len(m.asks))
	for id := range m.asks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (m *Machine) pause(v View) time.Duration {
	if v.Synced {
		return m.cfg.Layer
	}
	return min(m.cfg.Layer/4, time.Second)
}

func (m *Machine) wake(now time.Time, v View) time.Time {
	at := m.round.Add(m.pause(v))
	if len(m.order) > 0 && m.due.Before(at) {
		at = m.due
	}
	if !m.hurry.IsZero() && m.hurry.Before(at) {
		at = m.hurry
	}
	if least := now.Add(m.cfg.Layer / 100); at.Before(least) {
		at = least
	}
	return at
}

// objects asks for what is wanted and not asked for: what came since it was
// called last, and all when something has changed for the others too.
func (m *Machine) objects(now time.Time) {
	sweep := !now.Before(m.sweep)
	all := m.dirty || len(m.order) > 0 && !now.Before(m.due) || len(m.order) > 2*len(m.wants)+64
	if !all && len(m.fresh) == 0 {
		return
	}
	old := len(m.order)
	m.order = append(m.order, m.fresh...)
	m.fresh = m.fresh[:0]
	look, keep := m.order[old:], m.order[:old]
	if all || old == 0 {
		look, keep = m.order, m.order[:0]
		m.dirty = false
		if sweep {
			m.sweep = now.Add(m.cfg.Timeout() / 4)
		}
		m.due = m.sweep
	}
	batches := make(map[Peer][]Name)
	for _, w := range look {
		if w.gone {
			continue
		}
		p, left := Peer(""), now.Before(w.until)
		if left && w.asked == 0 {
			p, left = m.choose(now, w, sweep && all)
		}
		if !left {
			m.out.GaveUp = append(m.out.GaveUp, w.name)
			m.forget(w)
			continue
		}
		if w.until.Before(m.due) {
			m.due = w.until
		}
		keep = append(keep, w)
		if p == "" {
			continue
		}
		w.asked = chosen
		batches[p] = append(batches[p], w.name)
		if len(batches[p]) == MaxObjects {
			m.askObjects(now, p, batches[p])
			batches[p] = nil
		}
	}
	m.order = keep
	for _, p := range m.names {
		if len(batches[p]) > 0 {
			m.askObjects(now, p, batches[p])
		}
	}
}

// chosen stands for the ask that a want is about to be part of.
const chosen = ^uint64(0)

// choose returns whom to ask, or tells whether there is anybody left. What its
// hint does not give may be made up: the others are asked for all of that
// together, and only at a sweep; first those that let nothing time out.
func (m *Machine) choose(now time.Time, w *want, sweep bool) (best Peer, left bool) {
	hint := m.peers[w.hint]
	able := hint != nil && !w.tried[w.hint] && w.slow != w.hint && !now.Before(hint.backoff)
	switch {
	case able && hint.objects < MaxAsksPerPeer && (hint.late == 0 || w.only):
		return w.hint, true
	case w.only:
		return "", hint != nil && !w.tried[w.hint]
	case hint != nil && (!able || hint.late > 0) && !sweep && w.slow == "":
		return "", true
	}
	left = len(m.names) == 0 // somebody may come
	for i := range m.names {
		name := m.names[(i+m.turn)%len(m.names)]
		if w.tried[name] {
			continue
		}
		left = true
		if name == w.slow {
			continue
		}
		if p := m.peers[name]; p.objects < MaxAsksPerPeer/2 && !now.Before(p.backoff) && (best == "" || p.late < m.peers[best].late) {
			best = name
		}
	}
	return best, left
}

func (m *Machine) askObjects(now time.Time, p Peer, names []Name) {
	if m.peers[p].objects >= MaxAsksPerPeer { // the rest waits for a place
		for _, n := range names {
			m.wants[n].asked = 0
		}
		return
	}
	m.peers[p].objects++
	a := m.ask(now, Ask{Peer: p, Objects: names})
	for _, n := range names {
		m.wants[n].asked = a
	}
	m.turn++
}

func (m *Machine) ask(now time.Time, a Ask) uint64 {
	m.next++
	a.ID, a.Until = m.next, now.Add(m.cfg.Timeout())
	m.asks[a.ID] = a
	if a.Objects != nil {
		m.hastenAt(now.Add(m.cfg.patience()))
	}
	m.out.Asks = append(m.out.Asks, a)
	return a.ID
}

// history asks two peers about ATXs and certificates: once a layer, more often
// while we are not synced, at once when urged.
func (m *Machine) history(now time.Time, v View) {
	if !m.urge && now.Before(m.round.Add(m.pause(v))) {
		return
	}
	m.urge = false
	m.round = now
	var free []Peer
	for i := range m.names {
		name := m.names[(i+m.turn)%len(m.names)]
		if p := m.peers[name]; now.Before(p.backoff) || p.history || p.epochs || v.Busy != nil && v.Busy(name) {
			continue
		}
		free = append(free, name)
	}
	// One is whoever's turn it is, so that nobody is judged by his past alone. The other
	// answers, if anybody does: many that are silent do not keep us from the few.
	if len(free) > 2 {
		rest := free[1:]
		best := slices.IndexFunc(rest, func(p Peer) bool {
			return !slices.ContainsFunc(rest, func(q Peer) bool { return m.peers[q].silent() < m.peers[p].silent() })
		})
		rest[0], rest[best] = rest[best], rest[0]
	}
	for _, name := range free[:min(2, len(free))] {
		p, from := m.peers[name], v.Tip
		if p.lower > 0 {
			from -= min(p.lower, from)
		}
		p.history, p.epochs = true, true
		m.ask(now, Ask{Peer: name, Layers: &Layers{From: from, Ballots: v.Ballots}})
		epochs := Epochs{From: v.From, To: min(v.Epoch+1, v.From+MaxEpochs-1)}
		if epochs.To <= v.Epoch && m.turn%2 == 1 { // what is between is had by following references
			epochs = Epochs{From: v.Epoch - 1, To: v.Epoch + 1}
		}
		if p.more != nil {
			epochs, p.more = *p.more, nil
		}
		m.ask(now, Ask{Peer: name, Epochs: &epochs})
	}
	m.turn++
}
