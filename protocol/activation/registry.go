package activation

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"tweedle/values/types"
)

// Entry is a valid ATX and when this node received it first.
type Entry struct {
	Info
	Received time.Time
}

// Source has the ATXs that are stored.
type Source interface {
	// EpochEntries returns all valid ATXs published in an epoch, in any order.
	EpochEntries(published types.Epoch) []Entry
	// HighestEntry returns the highest ATX published in an epoch or before;
	// of equals, the one with the lowest id.
	HighestEntry(last types.Epoch) (Entry, bool)
}

// MaxKept is how many ATXs of a smesher in an epoch are kept: two prove that it
// cheats. More are kept only when an ATX of another smesher refers to them.
const MaxKept = 2

// maxLoaded is how many publish epochs the registry holds in memory: those whose
// electorates are in use, and the one that is being filled.
const maxLoaded = 6

// Registry knows every valid ATX, and what each weighs.
//
// The rules: a smesher that published twice for an epoch, or is proved
// malicious, has no weight in the electorates that are made from then on. What
// a node declares for an epoch is what it had received by a cut before the
// epoch began. What comes later can be referred to and changes nothing that
// was decided, with one exception: a set that turns out to hold less than two
// thirds of the weight of its epoch was made on one side of a split network.
type Registry struct {
	schedule types.Schedule
	cut      time.Duration // before the start of the epoch
	source   Source
	epochs   map[types.Epoch]*published
	evil     map[types.NodeID]time.Time // when the proof came
}

// published has the ATXs of one epoch.
type published struct {
	atxs map[types.ATXID]*Entry
	by   map[types.NodeID][]*Entry // in the order of their arrival
	own  *Electorate
	// plausible has what was found for electorates of the epoch after; it is
	// forgotten when an ATX or a proof comes.
	plausible map[*Electorate]bool
}

// Cut returns how long before an epoch its electorate is fixed: 1/20 of an
// epoch, at most half an hour (reference/protocol.md A15, ATX grade delay).
func Cut(s types.Schedule) time.Duration { return min(s.EpochDuration()/20, 30*time.Minute) }

// NewRegistry returns a registry over stored ATXs. evil has when each proof of
// malfeasance was received.
func NewRegistry(s types.Schedule, source Source, evil map[types.NodeID]time.Time) *Registry {
	r := &Registry{schedule: s, cut: Cut(s), source: source, epochs: make(map[types.Epoch]*published), evil: make(map[types.NodeID]time.Time)}
	for id, at := range evil {
		r.evil[id] = at
	}
	return r
}

// in returns the ATXs published in an epoch.
func (r *Registry) in(e types.Epoch) *published {
	if p := r.epochs[e]; p != nil {
		return p
	}
	for len(r.epochs) >= maxLoaded {
		oldest := e
		for k := range r.epochs {
			oldest = min(oldest, k)
		}
		if oldest == e { // older than all that is loaded: the newest goes
			for k := range r.epochs {
				oldest = max(oldest, k)
			}
		}
		delete(r.epochs, oldest)
	}
	p := &published{atxs: make(map[types.ATXID]*Entry), by: make(map[types.NodeID][]*Entry)}
	records := r.source.EpochEntries(e)
	slices.SortFunc(records, func(a, b Entry) int {
		if c := a.Received.Compare(b.Received); c != 0 {
			return c
		}
		return bytes.Compare(a.ID[:], b.ID[:])
	})
	for i := range records {
		p.add(&records[i])
	}
	r.epochs[e] = p
	return p
}

func (p *published) add(rec *Entry) {
	if p.atxs[rec.ID] == nil {
		p.plausible = nil
		p.atxs[rec.ID] = rec
		p.by[rec.Smesher] = append(p.by[rec.Smesher], rec)
	}
}

// Load takes the ATXs of an epoch into memory, and returns how many were read for it.
func (r *Registry) Load(published types.Epoch) int {
	if r.epochs[published] != nil {
		return 0
	}
	return len(r.in(published).atxs)
}

// Has tells whether an ATX published in an epoch is known.
func (r *Registry) Has(published types.Epoch, id types.ATXID) bool {
	return r.in(published).atxs[id] != nil
}

// Full tells whether a smesher has so many ATXs in an epoch that one more is
// kept only if another smesher's ATX refers to it.
func (r *Registry) Full(published types.Epoch, smesher types.NodeID) bool {
	return len(r.in(published).by[smesher]) >= MaxKept
}

// Add registers a valid ATX that has just been received. It returns the ATX
// that the smesher has already in that epoch, if there is one: the two are
// malfeasance.
func (r *Registry) Add(rec Entry) (other *Entry) {
	p := r.in(rec.PublishEpoch)
	if p.atxs[rec.ID] != nil {
		return nil
	}
	if before := p.by[rec.Smesher]; len(before) > 0 {
		other = before[0]
	}
	p.add(&rec)
	r.unsettle(rec.PublishEpoch + 1)
	return other
}

// Convict takes a smesher's weight. It tells whether that is new.
func (r *Registry) Convict(id types.NodeID, at time.Time) bool {
	if _, known := r.evil[id]; known {
		return false
	}
	r.evil[id] = at
	for e, p := range r.epochs {
		p.plausible = nil
		r.unsettle(e + 1)
	}
	return true
}

// Convicted tells whether a smesher is proved malicious.
func (r *Registry) Convicted(id types.NodeID) bool {
	_, yes := r.evil[id]
	return yes
}

// unsettle forgets what we declare for an epoch unless the clock has fixed it
// and it still stands.
func (r *Registry) unsettle(epoch types.Epoch) {
	p := r.epochs[epoch-1]
	if p.own != nil && !r.Plausible(p.own) {
		p.own = nil
	}
}

// honest tells whether a smesher has one ATX in an epoch and no proof against
// it, as far as was known at a time; the zero time means now.
func (r *Registry) honest(records []*Entry, at time.Time) (*Entry, bool) {
	var one *Entry
	for _, rec := range records {
		if !at.IsZero() && rec.Received.After(at) {
			continue
		}
		if one != nil {
			return nil, false
		}
		one = rec
	}
	if one == nil {
		return nil, false
	}
	if since, evil := r.evil[one.Smesher]; evil && (at.IsZero() || !since.After(at)) {
		return nil, false
	}
	return one, true
}

// Own returns the electorate that this node declares for an epoch, nil while
// the clock has not fixed it. It has what came before the cut; if that turns
// out to be less than two thirds of the weight, as in a node that was away, it
// has all that is known.
func (r *Registry) Own(epoch types.Epoch, now time.Time) *Electorate {
	if epoch == 0 {
		return nil
	}
	at := r.schedule.EpochStart(epoch).Add(-r.cut)
	if now.Before(at) {
		return nil
	}
	p := r.in(epoch - 1)
	if p.own == nil {
		p.own = r.collect(epoch, at)
		if !r.Plausible(p.own) {
			p.own = r.collect(epoch, time.Time{})
		}
	}
	return p.own
}

func (r *Registry) collect(epoch types.Epoch, at time.Time) *Electorate {
	var members []*Entry
	// An electorate is brought in order when it is made.
	for _, records := range r.in(epoch - 1).by {
		if one, ok := r.honest(records, at); ok {
			members = append(members, one)
		}
	}
	return newElectorate(epoch, members)
}

// Plausible tells whether an electorate holds at least two thirds of the weight
// of its epoch that we know of. What came after the cut counts with no more
// ticks than the electorate's highest: work that went on for longer than the
// round of the others makes nobody heavier.
func (r *Registry) Plausible(el *Electorate) bool {
	if el.Epoch == 0 {
		return false
	}
	p := r.in(el.Epoch - 1)
	yes, known := p.plausible[el]
	if !known {
		yes = r.weigh(p, el)
		if p.plausible == nil || len(p.plausible) >= maxWeighed {
			p.plausible = make(map[*Electorate]bool)
		}
		p.plausible[el] = yes
	}
	return yes
}

// maxWeighed bounds the electorates of an epoch whose plausibility is remembered.
const maxWeighed = 64

func (r *Registry) weigh(p *published, el *Electorate) bool {
	var most uint64
	for _, m := range el.Members {
		most = max(most, m.Ticks)
	}
	var known, has uint64
	for _, records := range p.by {
		one, ok := r.honest(records, time.Time{})
		if !ok {
			continue
		}
		w := one.Weight
		if _, member := el.Member(one.ID); member {
			has += w
		} else if len(el.Members) > 0 {
			w = uint64(one.Effective) * min(one.Ticks, most)
		}
		known += w
	}
	return has >= known-known/3
}

// Errors of a declared set.
var (
	ErrSetOrder = errors.New("active set is not in strictly ascending order")
	ErrSetEpoch = errors.New("active set has an ATX of another epoch")
	ErrSetTwice = errors.New("active set has two ATXs of one smesher")
	ErrSetEmpty = errors.New("active set is empty")
)

// MaxMissing is how many ATXs of a list a *Missing error names, as many as one peer
// is asked for at a time: whoever waits for them comes back for the others.
const MaxMissing = 512

// Electorate returns the electorate of an epoch that a list of ATXs makes. A
// *Missing error names ATXs that are not known yet, at most MaxMissing. Of those that
// the epoch does not have only the first is looked up, as anybody may make a list of a hundred thousand: one that is of
// another epoch is the first when the others are here.
func (r *Registry) Electorate(epoch types.Epoch, set types.ActiveSet, v View) (*Electorate, error) {
	if epoch == 0 || len(set) == 0 {
		return nil, ErrSetEmpty
	}
	p := r.in(epoch - 1)
	missing := &Missing{}
	var members []*Entry
	smeshers := make(map[types.NodeID]bool, min(len(set), len(p.by)))
	for i, id := range set {
		if i > 0 && bytes.Compare(set[i-1][:], id[:]) >= 0 {
			return nil, ErrSetOrder
		}
		rec := p.atxs[id]
		if rec == nil {
			if len(missing.ATXs) == 0 {
				switch info, err := v.ATX(id); {
				case err != nil:
					return nil, err
				case info != nil:
					return nil, ErrSetEpoch
				}
			}
			if missing.ATXs = append(missing.ATXs, id); len(missing.ATXs) == MaxMissing {
				return nil, missing
			}
			continue
		}
		if smeshers[rec.Smesher] {
			return nil, ErrSetTwice
		}
		smeshers[rec.Smesher] = true
		members = append(members, rec)
	}
	if len(missing.ATXs) > 0 {
		return nil, missing
	}
	return newElectorate(epoch, members), nil
}

// Highest implements Positions: the highest ATX of the newest epochs whose
// smesher keeps the rules; of equals, the one with the lowest id.
func (r *Registry) Highest(before types.Epoch) (types.ATXID, bool) {
	var best *Entry
	for back := types.Epoch(1); back <= 2 && back < before; back++ {
		for _, records := range r.in(before - back).by {
			one, ok := r.honest(records, time.Time{})
			if ok && (best == nil || one.Height() > best.Height() ||
				one.Height() == best.Height() && bytes.Compare(one.ID[:], best.ID[:]) < 0) {
				best = one
			}
		}
	}
	if best != nil {
		return best.ID, true
	}
	if before == 0 {
		return types.ATXID{}, false
	}
	rec, ok := r.source.HighestEntry(before - 1)
	return rec.ID, ok
}

// Electorate is who counts in an epoch, and with how much: a value. Its id says
// all of it, so two nodes that name one id count alike, whatever each heard
// first or hears later.
type Electorate struct {
	Epoch   types.Epoch
	ID      types.Hash32 // of the active set
	Members []*Entry     // ascending by ATX id; not to be changed
	by      []*Entry     // the same, ascending by smesher
	total   uint64
}

func newElectorate(epoch types.Epoch, members []*Entry) *Electorate {
	slices.SortFunc(members, func(a, b *Entry) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	el := &Electorate{Epoch: epoch, Members: members, by: slices.Clone(members)}
	slices.SortFunc(el.by, func(a, b *Entry) int { return bytes.Compare(a.Smesher[:], b.Smesher[:]) })
	for _, m := range members {
		el.total += m.Weight
	}
	el.ID = el.Set().Hash()
	return el
}

// Set returns the active set, ascending.
func (e *Electorate) Set() types.ActiveSet {
	set := make(types.ActiveSet, len(e.Members))
	for i, m := range e.Members {
		set[i] = m.ID
	}
	return set
}

// Member returns the record of an ATX that counts.
func (e *Electorate) Member(id types.ATXID) (*Entry, bool) {
	i, ok := slices.BinarySearchFunc(e.Members, id, func(m *Entry, id types.ATXID) int { return bytes.Compare(m.ID[:], id[:]) })
	if !ok {
		return nil, false
	}
	return e.Members[i], true
}

// Of returns the record of a smesher that counts.
func (e *Electorate) Of(smesher types.NodeID) (*Entry, bool) {
	i, ok := slices.BinarySearchFunc(e.by, smesher, func(m *Entry, id types.NodeID) int { return bytes.Compare(m.Smesher[:], id[:]) })
	if !ok {
		return nil, false
	}
	return e.by[i], true
}

// Weight returns what an ATX gives to its smesher, false when it gives nothing.
func (e *Electorate) Weight(atx types.ATXID, smesher types.NodeID) (uint64, bool) {
	m, ok := e.Member(atx)
	if !ok || m.Smesher != smesher {
		return 0, false
	}
	return m.Weight, true
}

// Total returns the weight of all.
func (e *Electorate) Total() uint64 { return e.total }
