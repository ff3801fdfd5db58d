package activation

import (
	"time"

	"tweedle/values/types"
)

// answer is what a PoET did when it was asked for a round's proof.
type answer int

const (
	answerNone  answer = iota + 1 // nothing, or nothing of use
	answerWorks                   // its round has no proof yet
	answerProof
)

// fetching is the search for the best proof of a challenge. It is not part of
// the record: after a restart everybody is asked again.
type fetching struct {
	best     *Membership
	chooseAt time.Time // not before
	answers  []answered
}

type answered struct {
	Registration
	answer
}

// offer takes a proof into account.
func (f *fetching) offer(now time.Time, m Membership, patience time.Duration) {
	at := now.Add(patience)
	if f.best == nil || at.Before(f.chooseAt) {
		f.chooseAt = at
	}
	if f.best == nil || m.NumLeaves > f.best.NumLeaves {
		f.best = &m
	}
}

func (f *fetching) answer(r Registration, a answer) {
	for i := range f.answers {
		if f.answers[i].is(r) {
			f.answers[i].answer = a
			return
		}
	}
	f.answers = append(f.answers, answered{r, a})
}

// count tells how many registrations gave an answer.
func (f *fetching) count(a answer) (n int) {
	for _, known := range f.answers {
		if known.answer == a {
			n++
		}
	}
	return n
}

// stored takes a proof that is there into account, if it is of a statement in
// which our challenge has its place. Proofs that are there before the round
// ended are cheap ones; they are looked at again when it has.
func (s *Smesher) stored(now time.Time, p *Pending, in ProofStored) {
	if p.Poet != nil || s.rec.Pending == nil || now.Before(s.cfg.Poet.End(s.round(p.Challenge.PublishEpoch))) {
		return
	}
	for _, r := range p.Registrations {
		if place := r.Place; place != nil && place.Statement == in.Statement {
			s.fetch.offer(now, Membership{
				Ref: in.Ref, NumLeaves: in.NumLeaves, LeafIndex: place.Index, NumMembers: place.Members, Nodes: place.Path,
			}, 2*s.cfg.Patience)
		}
	}
}

// choose takes the best proof once waiting gains nothing: every PoET gave one,
// or the patience is over and none of them still works on one. Who pretends to
// work is waited for until ChooseBy.
func (s *Smesher) choose(now, end time.Time, p *Pending, out *Output) bool {
	f := &s.fetch
	if f.best == nil {
		return false
	}
	if by := end.Add(s.cfg.ChooseBy); f.count(answerProof) < len(p.Registrations) {
		switch {
		case now.Before(f.chooseAt):
			s.wake(out, f.chooseAt)
			return false
		case f.count(answerWorks) > 0 && now.Before(by):
			s.wake(out, by)
			return false
		}
	}
	p.Poet = f.best
	s.fetch = fetching{}
	s.done(WorkFetch)
	out.Save = true
	return true
}

func (p *Pending) hash() types.Hash32 { return p.Challenge.Hash() }

// registration finds one of a challenge, or nil.
func (p *Pending) registration(challenge types.Hash32, like Registration) *Registration {
	if p.hash() != challenge {
		return nil
	}
	for i := range p.Registrations {
		if p.Registrations[i].is(like) {
			return &p.Registrations[i]
		}
	}
	return nil
}

// unplaced returns the registrations whose place is not known.
func (p *Pending) unplaced() (rs []Registration) {
	for _, r := range p.Registrations {
		if r.Place == nil {
			rs = append(rs, r)
		}
	}
	return rs
}
