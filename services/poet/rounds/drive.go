package rounds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tweedle/base/clock"
	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/services/poet/work"
	"tweedle/values/types"
)

const (
	// sealRetry is the time between tries to compute a membership root.
	sealRetry = 10 * time.Second

	// storeRetry is the time between tries to store what the disk did not take.
	storeRetry = time.Second
)

// call is what another goroutine has the driver do; done, with room for one, is told
// what became of it.
type call struct {
	do   func(*driver) error
	done chan error
}

// driver owns the machine: it turns the clock and what others report into steps,
// and does what the steps say. Its methods run on one goroutine but for seal, which
// ends before group.
//
// The order that nothing may break: the round that is open is published before
// anything else is done about one that has closed, so that nobody joins it any more;
// what is open then is stored as soon as the disk takes it, with every proof at the
// latest; a proof is told only when it is stored.
type driver struct {
	*Service
	ctx   context.Context
	group *sync.WaitGroup

	due     time.Time // of the next step
	unsaved bool      // the open round is not stored yet
	failed  bool      // the last try to store it did, which was told
	strayed bool      // a later round is open than should be, which was told
}

// drive runs the machine until ctx ends.
func (d *driver) drive() {
	timer := time.NewTimer(d.clock.Until(d.due))
	retry := time.NewTicker(storeRetry)
	defer timer.Stop()
	defer retry.Stop()
	for {
		timer.Reset(d.clock.Until(d.due))
		select {
		case <-d.ctx.Done():
			return
		case <-timer.C:
			d.step(nil) // only time passed
		case c := <-d.calls:
			c.done <- c.do(d)
		case <-retry.C:
			_ = d.saveOpen() // it was told
		}
	}
}

// step does one step of the machine and what it says.
func (d *driver) step(in Input) {
	now := d.clock.Now()
	out := d.machine.Step(now, in)
	right, strayed := d.machine.Strayed(now)
	members := d.book.Members(d.machine.Open())
	d.publish(strayed && members > 0)
	if out.Open != nil {
		// If we stop before it is stored, the next start closes the round again.
		d.unsaved = true
		_ = d.saveOpen() // it is tried again
	}
	for _, n := range out.Seal {
		d.group.Go(func() { d.seal(n) })
	}
	for _, job := range out.Execute {
		d.jobs <- job // never full, see Open
	}
	for _, e := range out.Events {
		d.told(e)
	}
	d.due = out.Timer
	switch {
	case !strayed:
		d.strayed = false
	case members == 0:
		d.emit(poet.Event{Kind: poet.EventStrayed, Round: poet.RoundID(d.machine.Open()),
			Text: fmt.Sprintf("round was opened by a clock that was ahead, and has no members: round %d is opened in its place", right)})
		d.step(Reopen{})
	case !d.strayed:
		d.strayed = true
		d.emit(poet.Event{Kind: poet.EventStrayed, Round: poet.RoundID(d.machine.Open()),
			Text: "registrations are refused until the clock is right or an administrator decides: `tweedle poet rounds reopen`",
			Err:  fmt.Errorf("round %d is open and has %d members, but by the clock, %s, it should be round %d", d.machine.Open(), members, now.UTC().Format(time.RFC3339), right)})
	}
}

// told passes an event on to those who wait for it.
func (d *driver) told(e poet.Event) {
	d.emit(e)
	number, _ := poet.ParseRoundID(e.Round) // the machine made it
	switch {
	case e.Kind == poet.EventClosed:
		d.metrics.forget(number)
	case e.Kind == poet.EventProved && d.cfg.OnProof != nil:
		d.cfg.OnProof(e.Round)
	}
}

// saveOpen stores the open round, if that is not done, and tells of the first of some
// failures in a row.
func (d *driver) saveOpen() error {
	if !d.unsaved {
		return nil
	}
	err := d.book.WriteOpen(d.machine.Open())
	if err != nil && !d.failed {
		d.emit(poet.Event{Kind: poet.EventWriteFailed, Text: "state could not be stored, it is tried again every second", Err: err})
	}
	d.failed, d.unsaved = err != nil, err != nil
	return err
}

// saveProof stores a proof and rotates the challenge of the registration's proof of
// work. The ballast is for proofs only. Whoever brings the proof tries again if it
// fails; nobody else waits for that.
func (d *driver) saveProof(p work.Result) error {
	r, found := d.executing(p.Round)
	if !found { // it was stored meanwhile
		return nil
	}
	pow := *d.registrar.pow.Load()
	pow.Previous, pow.Current = pow.Current, p.Proof.Root[:]
	m := types.PoetProofMessage{Proof: p.Proof, PoetID: d.id(), RoundID: r.ID(), Statement: r.Statement}
	err := d.book.WriteProof(p.Round, d.machine.Open(), &m, pow)
	if errors.Is(err, poet.ErrDiskFull) && d.storage.release() {
		err = d.book.WriteProof(p.Round, d.machine.Open(), &m, pow)
	}
	if err != nil {
		return err
	}
	// If we stop here, the next start finds the proof and removes the round's data;
	// delivery finds it too.
	d.unsaved, d.failed = false, false
	d.registrar.pow.Store(&pow)
	d.step(Stored{p.Round, p.Proof.NumLeaves})
	return nil
}

// seal computes the membership root of a closed round. It stands in no line with
// those who ask for memberships.
func (d *driver) seal(number uint32) {
	for {
		// Registrations that began before the round closed end first.
		d.book.Settle()
		root, members, err := d.book.Root(d.ctx, number)
		if err == nil {
			_ = d.ask(d.ctx, func(d *driver) error { // the error is that ctx ended
				d.step(Sealed{number, root, members})
				return nil
			})
			return
		}
		if d.ctx.Err() != nil {
			return
		}
		d.emit(poet.Event{Kind: poet.EventDamage, Round: poet.RoundID(number), Text: "membership root cannot be computed", Err: err})
		clock.Sleep(d.ctx, sealRetry)
	}
}

// ask has the driver do something, and returns what became of it.
func (s *Service) ask(ctx context.Context, do func(*driver) error) error {
	c := call{do, make(chan error, 1)}
	select {
	case s.calls <- c:
		return <-c.done
	case <-s.stopped:
		return poet.ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Reopen opens the round of the clock in place of a later one, which was opened by a
// clock that was ahead, and returns the round that is open then: the same as before
// if it was right. A round whose membership root may be known is not opened again.
// Nothing is lost: the later round keeps its members, and is opened when its time
// comes.
func (s *Service) Reopen(ctx context.Context) (round string, err error) {
	err = s.ask(ctx, func(d *driver) error {
		d.step(Reopen{})
		return d.saveOpen()
	})
	if err != nil && !errors.Is(err, poet.ErrDiskFull) { // it is tried again
		return "", err
	}
	return s.Info().OpenRound, nil
}

// executing returns a round that has a membership root and no stored proof.
func (s *Service) executing(number uint32) (poet.Round, bool) {
	rounds := s.latest.Load().rounds
	i := slices.IndexFunc(rounds, func(r poet.Round) bool { return r.Number == number && r.State == poet.StateExecuting })
	if i < 0 {
		return poet.Round{}, false
	}
	return rounds[i], true
}

// source is the seam to the work: the worker asks it for rounds and gives it their
// proofs.
type source struct{ *Service }

func (s source) Next(ctx context.Context) (work.Job, error) {
	select {
	case job := <-s.jobs:
		return job, nil
	case <-ctx.Done():
		return work.Job{}, ctx.Err()
	}
}

func (s source) Stored(_ context.Context, round uint32) (bool, error) {
	_, err := s.book.Proof(round)
	if errors.Is(err, poet.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (s source) Finish(ctx context.Context, r work.Result) error {
	about, found := s.executing(r.Round)
	if !found {
		stored, err := s.Stored(ctx, r.Round)
		if !stored && err == nil {
			err = fmt.Errorf("round %d does not execute: %w", r.Round, poet.ErrNotFound)
		}
		return err
	}
	if err := posw.Verify(poet.Statement(about.Statement, about.Members), &r.Proof, s.cfg.Work.ProveWorkers); err != nil {
		return fmt.Errorf("%w: %w", poet.ErrBadProof, err)
	}
	return s.ask(ctx, func(d *driver) error { return d.saveProof(r) })
}
