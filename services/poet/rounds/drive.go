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
	"tweedle/services/poet/book"
	"tweedle/services/poet/work"
	"tweedle/values/types"
)

// sealRetry is the time between tries to compute a membership root.
const sealRetry = 10 * time.Second

// retryInterval is the time between tries to write what the disk did not take.
const retryInterval = time.Second

// input is one for the machine; done, if not nil, is told when the writes that
// follow from it are durable.
type input struct {
	in   Input
	done chan<- error
}

// pendingWrite is a write that waits for room on the disk; after is what had to
// wait for it.
type pendingWrite struct {
	write Write
	after func()
}

// driver owns the machine: it turns the clock and what others report into steps,
// and does what the steps say. Work that the machine gives out ends before group.
type driver struct {
	*Service
	ctx     context.Context
	group   *sync.WaitGroup
	pending []pendingWrite
	full    bool // and told
}

// drive runs the machine until ctx ends; next is when its next step is due.
func (d *driver) drive(next time.Time) {
	timer := time.NewTimer(d.clock.Until(next))
	retry := time.NewTicker(retryInterval)
	defer timer.Stop()
	defer retry.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case in := <-d.inputs:
			timer.Reset(d.clock.Until(d.step(in)))
		case <-timer.C:
			timer.Reset(d.clock.Until(d.step(input{}))) // only time passed
		case <-retry.C:
			d.flush()
		}
	}
}

// step does one step of the machine and what it says, and returns when the next
// is due.
func (d *driver) step(in input) time.Time {
	out := d.machine.Step(d.clock.Now(), in.in)
	// No registration begins for a round from here on that the machine has
	// closed; those that began are stored before the write below.
	d.publish()
	mustWait := false
	for _, w := range out.Writes {
		p := pendingWrite{write: w}
		mustWait = mustWait || isProof(p)
		d.pending = append(d.pending, p)
	}
	tell := func() {
		for _, e := range out.Events {
			d.tellRound(e)
		}
		if in.done != nil {
			in.done <- nil
		}
	}
	if mustWait {
		d.pending[len(d.pending)-1].after = tell
	}
	d.flush()
	for _, w := range out.Work {
		d.start(w)
	}
	if !mustWait {
		tell()
	}
	return out.Timer
}

func (d *driver) tellRound(e poet.Event) {
	d.emit(e)
	if e.Kind == poet.EventProved && d.cfg.OnProof != nil {
		d.cfg.OnProof(e.Round)
	}
}

// flush does the pending writes, in order, as far as there is room. The ballast is
// for a proof only, and for what must be written before it.
func (d *driver) flush() {
	for len(d.pending) > 0 {
		p := d.pending[0]
		err := d.write(p.write)
		if errors.Is(err, poet.ErrDiskFull) && slices.ContainsFunc(d.pending, isProof) && d.releaseBallast() {
			err = d.write(p.write)
		}
		if err != nil {
			if !d.full {
				d.full = true
				d.emit(poet.Event{Kind: poet.EventWriteFailed, Text: "state could not be stored, it is tried again every second", Err: err})
			}
			return
		}
		d.full = false
		d.pending = d.pending[1:]
		if p.after != nil {
			p.after()
		}
	}
}

func isProof(p pendingWrite) bool {
	_, proof := p.write.(WriteProof)
	return proof
}

func (d *driver) write(w Write) error {
	switch w := w.(type) {
	case WriteRound:
		return d.store.WriteRound(w.Round, w.Open)
	case WriteProof:
		return d.writeProof(w)
	}
	panic(fmt.Sprintf("poet: %T is not a write", w))
}

func (d *driver) writeProof(w WriteProof) error {
	m := types.PoetProofMessage{
		Proof: w.Proof, PoetID: d.Info().PoetID, RoundID: w.Round.ID(), Statement: types.Hash32(w.Round.Statement),
	}
	pow := *d.pow.Load()
	pow.Previous = pow.Current
	pow.Current.Challenge = w.Proof.Root[:]
	if err := d.store.WriteProof(w.Round, &m, pow); err != nil {
		return err
	}
	// If we stop here, the next start finds the proof, removes the round's
	// data, and delivery finds it too.
	d.pow.Store(&pow)
	return nil
}

// start begins heavy work.
func (d *driver) start(w Work) {
	switch w := w.(type) {
	case Seal:
		d.group.Go(func() { d.seal(w.Round) })
	case Execute:
		d.dropReserve() // the journal takes its place
		d.jobs <- w.Job
	default:
		panic(fmt.Sprintf("poet: %T is not work", w))
	}
}

// seal computes the membership root of a closed round.
func (d *driver) seal(number uint32) {
	for d.ctx.Err() == nil {
		tree, err := d.trees.Get(d.ctx, d.store, number)
		if err == nil {
			var root [32]byte
			if root, err = tree.Root(d.store, number); err == nil {
				d.send(d.ctx, Sealed{Round: number, Statement: root, Members: tree.Count})
				return
			}
		}
		if d.ctx.Err() != nil {
			return
		}
		d.emit(poet.Event{Kind: poet.EventDamage, Round: poet.RoundID(number), Text: "membership root cannot be computed", Err: err})
		sleep(d.ctx, sealRetry)
	}
}

// send gives an input to the machine and waits until what follows is durable.
func (s *Service) send(ctx context.Context, in Input) error {
	done := make(chan error, 1)
	select {
	case s.inputs <- input{in, done}:
	case <-s.stopped:
		return poet.ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-s.stopped:
		return poet.ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// source is the seam to the work: the worker asks it for rounds and gives it their
// proofs.
type source struct{ *Service }

func (l source) Next(ctx context.Context) (work.Job, error) {
	select {
	case job := <-l.jobs:
		return job, nil
	case <-ctx.Done():
		return work.Job{}, ctx.Err()
	}
}

func (l source) Stored(_ context.Context, round uint32) (bool, error) {
	_, err := l.store.Proof(round)
	if errors.Is(err, poet.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (l source) Finish(ctx context.Context, r work.Result) error {
	if stored, err := l.Stored(ctx, r.Round); stored || err != nil {
		return err
	}
	var found *book.Round
	for _, round := range l.snapshot() {
		if round.Number == r.Round && round.State != poet.StateClosed {
			found = &round
		}
	}
	if found == nil {
		return fmt.Errorf("round %d does not execute: %w", r.Round, poet.ErrNotFound)
	}
	about := poet.Statement(found.Statement, found.Members)
	if err := posw.Verify(about, &r.Proof, l.cfg.Work.ProveWorkers); err != nil {
		return fmt.Errorf("%w: %w", poet.ErrBadProof, err)
	}
	if err := l.send(ctx, ProofMade{r.Round, r.Proof}); err != nil {
		return err
	}
	// The caller deletes the round's data next, so look at what is stored. It is
	// missing if another call's proof waits for room on the disk.
	if stored, err := l.Stored(ctx, r.Round); !stored || err != nil {
		return fmt.Errorf("proof of round %d is not stored yet: %w", r.Round, errors.Join(poet.ErrBusy, err))
	}
	return nil
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
