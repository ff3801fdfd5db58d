package testnet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tweedle/base/telemetry"
	"tweedle/values/types"
)

// observer asks everybody several times a layer, and tells what is new.
type observer struct {
	l      *launcher
	ledger *ledger
	prober *prober
	story  story

	mu sync.Mutex // serialises rounds of questions
}

func newObserver(l *launcher, led *ledger) *observer {
	return &observer{l: l, ledger: led, prober: newProber(l.dir.directory), story: newStory()}
}

func (o *observer) close() { o.prober.close() }

// Bounds of the time between two rounds of questions.
const (
	minPoll = 250 * time.Millisecond
	maxPoll = 5 * time.Second
)

func (o *observer) interval() time.Duration {
	return min(max(o.ledger.schedule.LayerDuration/5, minPoll), maxPoll)
}

// look asks everybody once, and tells what is new.
func (o *observer) look(ctx context.Context) *Status {
	o.mu.Lock()
	defer o.mu.Unlock()
	records := o.l.records()
	answers := o.prober.all(ctx, records, o.ledger.ask)
	now := time.Now()
	s := o.l.status(now)
	s.fill(records, answers)
	if ctx.Err() != nil {
		return s // half of the answers are missing, and it is over anyway
	}
	for _, n := range s.Nodes {
		for _, layer := range answers[n.Name].layers {
			if o.ledger.report(n.Name, layer) {
				o.l.emit.event(Note{n.Name, fmt.Sprintf("has another outcome of layer %d than it had", layer.Layer)})
			}
		}
		if n.ATXEpoch != nil {
			o.ledger.atx(n.Name, types.Epoch(*n.ATXEpoch))
		}
	}
	for _, p := range s.Poets {
		for _, r := range p.rounds {
			if r.State == roundFinished && r.Members > 0 {
				o.ledger.proofs[p.Name+"/"+r.Round] = true
			}
		}
	}
	o.l.seen.Store(s)
	for _, e := range o.story.next(s, o.l.load.sentSoFar()) {
		o.l.emit.event(e)
	}
	for _, layer := range o.ledger.tell(s.running()) {
		o.l.emit.event(layer)
	}
	o.l.emit.status(s)
	return s
}

// show looks on in the background until the returned function is called.
func (o *observer) show(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.every(ctx, func(*Status) bool { return false })
	}()
	return func() { cancel(); <-done }
}

// every looks until f says that it is enough, or ctx ends.
func (o *observer) every(ctx context.Context, f func(*Status) (enough bool)) {
	tick := time.NewTicker(o.interval())
	defer tick.Stop()
	for {
		if f(o.look(ctx)) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Bounds of a run with a target.
const (
	// settleLayers is how long after its end an epoch waits for slow nodes.
	settleLayers = 10
	// maxEmptyEpochs in a row without ballots end the run: a network that did
	// not come back in so many will not.
	maxEmptyEpochs = 8
)

// run looks on until the target is reached, or ctx ends.
func (o *observer) run(ctx context.Context) {
	o.every(ctx, func(*Status) bool {
		return o.l.opts.Epochs > 0 && o.over(time.Now())
	})
}

// over tells whether a run with a target is at its end.
func (o *observer) over(now time.Time) bool {
	sched := o.ledger.schedule
	if !sched.Started(now) {
		return false
	}
	layer := sched.LayerAt(now)
	full := o.ledger.epochs(layer)
	if len(full) >= o.l.opts.Epochs {
		return o.settled(full[o.l.opts.Epochs-1], layer)
	}
	since := o.ledger.firstFullEpoch()
	if len(full) > 0 {
		since = full[len(full)-1] + 1
	}
	return sched.EpochOf(layer) >= since+maxEmptyEpochs
}

// settled tells whether an epoch that is over has nothing more to wait for:
// every node that runs has applied all of it, or had the time to.
func (o *observer) settled(e types.Epoch, layer types.Layer) bool {
	end := o.ledger.schedule.First(e + 1)
	if layer >= end+settleLayers {
		return true
	}
	for _, p := range o.l.of(Node) {
		if r := p.record(); r.State == Running && o.ledger.next(p.Name) < end {
			return false
		}
	}
	return true
}

// reread asks every node once more about all layers that are judged: it may have
// gone back behind what it said. Who does not answer is judged by what it said.
func (o *observer) reread(ctx context.Context, epochs []types.Epoch) {
	if len(epochs) == 0 {
		return
	}
	first, last := o.ledger.schedule.First(epochs[0]), o.ledger.schedule.First(epochs[len(epochs)-1]+1)-1
	for _, r := range o.l.records() {
		if r.Kind != Node || r.State != Running || r.Endpoints.PID != r.PID {
			continue
		}
		var said []telemetry.LayerStatus
		for from := first; from <= last; {
			// The run may have been interrupted; the nodes run on until they are told.
			ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTimeout)
			a := o.prober.node(ask, r.Endpoints, from, true)
			cancel()
			if a.err != nil {
				said = nil
				break
			}
			if len(a.layers) == 0 {
				break
			}
			said = append(said, a.layers...)
			from = types.Layer(a.layers[len(a.layers)-1].Layer) + 1
		}
		if said == nil {
			continue
		}
		o.ledger.forget(r.Name, first, last)
		for _, layer := range said {
			o.ledger.report(r.Name, layer)
		}
	}
}

// verdict judges the run after its end.
func (o *observer) verdict(ctx context.Context) Summary {
	o.mu.Lock()
	defer o.mu.Unlock()
	target := o.l.opts.Epochs
	layer := o.ledger.schedule.LayerAt(time.Now())
	epochs := o.ledger.epochs(layer)
	if target > 0 && len(epochs) > target {
		epochs = epochs[:target]
	}
	if n := len(epochs); n > 0 && !o.settled(epochs[n-1], layer) {
		epochs = epochs[:n-1] // interrupted while the last one settled
	}
	o.reread(ctx, epochs)
	sum := o.ledger.judge(epochs, o.l.members(Node))
	if why := o.ledger.standstill(layer); why != "" && o.ledger.schedule.Started(time.Now()) {
		sum.reason("%s", why)
	}
	for _, r := range o.l.records() {
		switch {
		case r.State == Crashed:
			sum.reason("%s crashed (%s) and was not restarted", r.Name, r.Exit)
		case r.State == Stopped && r.Kind == Node:
			sum.reason("%s is down and was not restarted", r.Name)
		}
	}
	if len(epochs) < target {
		why := fmt.Sprintf("no ballots for %d epochs", maxEmptyEpochs)
		switch {
		case errors.Is(context.Cause(ctx), errDown):
			why = errDown.Error()
		case ctx.Err() != nil:
			why = "interrupted"
		}
		sum.reason("ended after %d of %d epochs with ballots: %s", len(epochs), target, why)
	}
	return sum
}
