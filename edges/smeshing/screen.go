package smeshing

import (
	"slices"
	"time"

	"tweedle/base/telemetry"
	"tweedle/protocol/activation"
	"tweedle/values/types"
)

// seen is what others may see of the machine.
type seen struct {
	step          telemetry.SmesherStep
	making        *uint32
	registrations []activation.Registration
}

// ends says what a step waits for.
var ends = map[activation.Step]string{
	activation.StepRegister: "registration closes", activation.StepWait: "the PoET round ends", activation.StepFetch: "the ATX must be heard",
	activation.StepProve: "the ATX must be heard", activation.StepPublish: "the ATX must be heard", activation.StepIdle: "the next challenge",
}

// report shows where the machine is.
func (s *Smesher) report() {
	step, until, trouble := s.machine.Status()
	v := &seen{step: telemetry.SmesherStep{Step: string(step), Error: trouble}}
	if !until.IsZero() {
		v.step.Until, v.step.For = stamp(until), ends[step]
	}
	if p := s.machine.Record().Pending; p != nil {
		epoch := uint32(p.Challenge.PublishEpoch)
		v.making, v.registrations = &epoch, slices.Clone(p.Registrations)
	}
	s.seen.Store(v)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Status tells what the smesher is doing. It may be called from any goroutine.
func (s *Smesher) Status() telemetry.SmesherStep {
	st := s.seen.Load().step
	if p := s.progress.Load(); p != nil && (st.Step == string(activation.StepInit) || st.Step == string(activation.StepProve)) {
		st.Detail, st.Progress = p.detail, p.part
	}
	return st
}

// Deadlines are what a smesher must not miss.
type Deadlines struct {
	Registration time.Time // until when PoETs take registrations for the open round
	Proof        time.Time // when the round that runs, or the next one, ends
	Publish      time.Time // until when an ATX of the running epoch must be heard
}

// deadlinesOf returns the next ones at a time of the node's clock.
func deadlinesOf(poet types.PoetSchedule, schedule types.Schedule, now time.Time) Deadlines {
	open := poet.Open(now)
	d := Deadlines{poet.Start(open), poet.End(open), schedule.EpochStart(schedule.EpochAt(now) + 1).Add(-activation.Cut(schedule))}
	if open > 0 && now.Before(poet.End(open-1)) {
		d.Proof = poet.End(open - 1)
	}
	return d
}

// Screen tells all that the owner of the space asks, at a time of the node's clock. It may be
// called from any goroutine; it reads the store.
func (s *Smesher) Screen(now time.Time) (telemetry.Smesher, error) {
	v, epoch := s.seen.Load(), s.schedule.EpochAt(now)
	t := telemetry.Smesher{
		NodeID: s.id.String(), Coinbase: s.cfg.Coinbase.Bech32(s.params.HRP), Epoch: uint32(epoch), Layer: uint32(s.schedule.LayerAt(now)),
		Step: s.Status(), Making: v.making, Poets: []telemetry.PoetStep{}, Slots: []uint32{},
	}
	d := deadlinesOf(s.poet, s.schedule, now)
	t.RegistrationCloses, t.ProofDue, t.PublishBy = stamp(d.Registration), stamp(d.Proof), stamp(d.Publish)
	if _, last, ok := (positions{s}).Last(); ok {
		published := uint32(last)
		t.LastATX = &published
	}
	for _, c := range s.poets {
		p := telemetry.PoetStep{URL: c.base}
		for _, r := range v.registrations {
			if r.Poet == c.base {
				p.Round, p.Member = r.Round, r.Place != nil
			}
		}
		for _, why := range []*string{c.doubt.Load(), c.last.Load()} {
			if why != nil {
				p.Trouble = *why
			}
		}
		t.Poets = append(t.Poets, p)
	}
	for _, l := range s.cfg.Node.Slots(s.id, epoch) {
		t.Slots = append(t.Slots, uint32(l))
	}
	earned, err := s.cfg.Store.Earned(s.id, s.cfg.Coinbase)
	if err != nil {
		return t, err
	}
	t.Earned = telemetry.Earned{Layers: earned.Layers, Smidges: earned.Total, Last: uint32(earned.Last)}
	return t, nil
}
