package rounds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/services/poet/clock"
	"tweedle/services/poet/work"
	"tweedle/values/types"
)

const (
	// sealRetry is the time between tries to compute a membership root.
	sealRetry = 10 * time.Second

	// storeRetry is the time between tries to store what the disk did not take.
	storeRetry = time.Second
)

// call is an input for the machine from another goroutine; done, with room for one,
// is told whether the round that is open then is stored.
type call struct {
	in   Input
	done chan error
}

// made is a verified proof on its way into the book; done is closed when it is
// there.
type made struct {
	work.Result
	done chan struct{}
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
	proofs  []made    // that are not stored yet, in order
	failed  bool      // the last write did, which was told
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
			d.step(c.in)
			c.done <- d.saveOpen()
		case p := <-d.made:
			d.proofs = append(d.proofs, p)
			d.saveProofs()
		case <-retry.C:
			d.saveProofs()
			d.saveOpen()
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
		d.saveOpen()
	}
	for _, w := range out.Work {
		d.start(w)
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

// saveOpen stores the open round, if that is not done.
func (d *driver) saveOpen() error {
	if !d.unsaved {
		return nil
	}
	err := d.book.WriteOpen(d.machine.Open())
	if d.wrote(err) {
		d.unsaved = false
	}
	return err
}

// saveProofs stores the proofs that wait, as far as there is room. The ballast is
// for them only.
func (d *driver) saveProofs() {
	for len(d.proofs) > 0 {
		p := d.proofs[0]
		err := d.saveProof(p)
		if errors.Is(err, poet.ErrDiskFull) && d.storage.release() {
			err = d.saveProof(p)
		}
		if !d.wrote(err) {
			return
		}
		// If we stop here, the next start finds the proof and removes the round's
		// data; delivery finds it too.
		d.proofs = d.proofs[1:]
		d.step(Stored{p.Round, p.Proof.NumLeaves})
		close(p.done)
	}
}

// saveProof stores a proof, unless it is there already, and rotates the challenge of
// the registration's proof of work.
func (d *driver) saveProof(p made) error {
	r, found := d.executing(p.Round)
	if !found {
		return nil
	}
	pow := *d.registrar.pow.Load()
	pow.Previous, pow.Current = pow.Current, p.Proof.Root[:]
	m := types.PoetProofMessage{Proof: p.Proof, PoetID: d.id(), RoundID: r.ID(), Statement: r.Statement}
	if err := d.book.WriteProof(p.Round, d.machine.Open(), &m, pow); err != nil {
		return err
	}
	d.unsaved = false
	d.registrar.pow.Store(&pow)
	return nil
}

// wrote tells of the first of some failed writes in a row, and whether this one was
// none.
func (d *driver) wrote(err error) bool {
	if err != nil && !d.failed {
		d.emit(poet.Event{Kind: poet.EventWriteFailed, Text: "state could not be stored, it is tried again every second", Err: err})
	}
	d.failed = err != nil
	return err == nil
}

// start begins heavy work.
func (d *driver) start(w Work) {
	switch w := w.(type) {
	case Seal:
		d.group.Go(func() { d.seal(w.Round) })
	case Execute:
		d.jobs <- w.Job // never full, see Open
	default:
		panic(fmt.Sprintf("poet: %T is not work", w))
	}
}

// seal computes the membership root of a closed round. It stands in no line with
// those who ask for memberships.
func (d *driver) seal(number uint32) {
	for {
		// Registrations that began before the round closed end first.
		d.book.Settle()
		root, members, err := d.book.Root(d.ctx, number)
		if err == nil {
			_ = d.ask(d.ctx, Sealed{number, root, members}) // what it could not store is tried again
			return
		}
		if d.ctx.Err() != nil {
			return
		}
		d.emit(poet.Event{Kind: poet.EventDamage, Round: poet.RoundID(number), Text: "membership root cannot be computed", Err: err})
		clock.Sleep(d.ctx, sealRetry)
	}
}

// ask gives an input to the machine and waits for what follows. A full disk is no
// error: what could not be stored is tried again.
func (s *Service) ask(ctx context.Context, in Input) error {
	c := call{in, make(chan error, 1)}
	select {
	case s.calls <- c:
	case <-s.stopped:
		return poet.ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.done:
		if errors.Is(err, poet.ErrDiskFull) {
			return nil
		}
		return err
	case <-s.stopped:
		return poet.ErrStopped
	}
}

// Reopen opens the round of the clock in place of a later one, which was opened by a
// clock that was ahead, and returns the round that is open then: the same as before
// if it was right. A round whose membership root may be known is not opened again.
// Nothing is lost: the later round keeps its members, and is opened when its time
// comes.
func (s *Service) Reopen(ctx context.Context) (round string, err error) {
	if err := s.ask(ctx, Reopen{}); err != nil {
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
	if stored, err := s.Stored(ctx, r.Round); stored || err != nil {
		return err
	}
	about, found := s.executing(r.Round)
	if !found {
		return fmt.Errorf("round %d does not execute: %w", r.Round, poet.ErrNotFound)
	}
	if err := posw.Verify(poet.Statement(about.Statement, about.Members), &r.Proof, s.cfg.Work.ProveWorkers); err != nil {
		return fmt.Errorf("%w: %w", poet.ErrBadProof, err)
	}
	p := made{r, make(chan struct{})}
	select {
	case s.made <- p:
	case <-s.stopped:
		return poet.ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-p.done:
	case <-s.stopped:
		return poet.ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	// The caller deletes the round's data next, so look at what is stored.
	if stored, err := s.Stored(ctx, r.Round); !stored || err != nil {
		return fmt.Errorf("proof of round %d is not stored: %w", r.Round, errors.Join(poet.ErrBusy, err))
	}
	return nil
}
