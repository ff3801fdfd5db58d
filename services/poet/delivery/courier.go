package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Courier drives a Machine: it keeps its state in a database, makes its calls,
// and tells what happens. It is safe for concurrent use.
type Courier struct {
	db      DB
	dial    Dialer
	log     *slog.Logger
	metrics *Metrics
	observe func(Event)

	wake chan struct{}

	mu sync.Mutex // guards machine, and the order of its saves
	m  *Machine
}

// Options are the parts of a Courier that have a default.
type Options struct {
	Log     *slog.Logger // nil: silent
	Metrics *Metrics     // nil: not counted
	Observe func(Event)  // called for each event, in order; must not block nor call back
}

// Open reads the outbox and the pool from db, which stays the caller's, and
// adds the configured gateways. Run makes the deliveries.
func Open(db DB, cfg Config, dial Dialer, gateways []string, opt Options) (*Courier, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	for _, g := range gateways {
		if err := CheckAddress(g); err != nil {
			return nil, err
		}
	}
	saved, err := load(db)
	if err != nil {
		return nil, err
	}
	c := &Courier{db: db, dial: dial, log: opt.Log, metrics: opt.Metrics, observe: opt.Observe, wake: make(chan struct{}, 1)}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	for _, what := range saved.Damaged {
		c.log.Error("damage was found in the database and left out", "what", what)
	}
	now := time.Now()
	c.m = NewMachine(cfg, saved, now)
	if !c.m.Configure(gateways, now) && len(gateways) > 0 {
		c.log.Warn("gateways of the command line are not used: others were set through the admin API since",
			"configured", gateways)
	}
	return c, nil
}

// Add puts a finished proof into the outbox. It is durable when Add returns
// nil. Adding a round again changes nothing.
func (c *Courier) Add(p Proof) error {
	return c.change(func(now time.Time) error { return c.m.AddProof(p, now) })
}

// Rebroadcast offers a proof to every gateway anew.
func (c *Courier) Rebroadcast(p Proof) error {
	return c.change(func(now time.Time) error { return c.m.Rebroadcast(p, now) })
}

// SetGateways replaces all gateways; deliveries to them start at once. It
// outlives a restart, and configured gateways do not come back.
func (c *Courier) SetGateways(addrs []string) error {
	for _, a := range addrs {
		if err := CheckAddress(a); err != nil {
			return err
		}
	}
	if len(addrs) > MaxCandidates {
		return fmt.Errorf("%d gateways are too many: the limit is %d", len(addrs), MaxCandidates)
	}
	return c.change(func(now time.Time) error { c.m.SetGateways(addrs, now); return nil })
}

// AddGateway adds a gateway, which is tried as soon as a slot is free.
func (c *Courier) AddGateway(addr string) error {
	if err := CheckAddress(addr); err != nil {
		return err
	}
	return c.change(func(now time.Time) error { c.m.AddGateway(addr, FromAPI, now); return nil })
}

// RemoveGateway forgets a gateway and tells whether it was known.
func (c *Courier) RemoveGateway(addr string) (bool, error) {
	var known bool
	err := c.change(func(time.Time) error { known = c.m.RemoveGateway(addr); return nil })
	return known, err
}

// Gateways lists the pool, then the candidates in the order of preference.
func (c *Courier) Gateways() []GatewayStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.Gateways()
}

// Slots returns the size of the pool.
func (c *Courier) Slots() int { return c.m.cfg.Slots }

// Proofs lists the records of the outbox, oldest first.
func (c *Courier) Proofs() []Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.Proofs()
}

// change applies an input, makes it durable, and wakes the loop.
func (c *Courier) change(apply func(now time.Time) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := apply(time.Now()); err != nil {
		return err
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return c.persist(c.m.changes())
}

// persist saves what a step asks for; what cannot be saved stays with the
// machine and is tried again at its next step.
func (c *Courier) persist(changes *Changes) error {
	if changes == nil {
		return nil
	}
	if err := save(c.db, changes); err != nil {
		return fmt.Errorf("the outbox cannot be written, free some disk space: %w", err)
	}
	c.m.Persisted(changes)
	return nil
}

// Run delivers until ctx ends. It leaves no goroutine and no connection.
func (c *Courier) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	workers := map[uint64]*worker{} // one for each seat
	results := make(chan Result)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		out := c.step(workers)
		for _, call := range out.Calls {
			w := workers[call.Seat]
			if w == nil {
				w = newWorker(ctx, c.dial)
				workers[call.Seat] = w
				running.Go(func() { w.run(results) })
			}
			w.calls <- call
		}
		timer.Stop()
		if !out.Wake.IsZero() {
			timer.Reset(time.Until(out.Wake))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.wake:
		case r := <-results:
			c.done(r)
		}
	}
}

func (c *Courier) done(r Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m.Done(r, time.Now())
}

// saveRetry is how long a step whose changes could not be saved waits.
const saveRetry = time.Second

func (c *Courier) step(workers map[uint64]*worker) Output {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	out := c.m.Step(now)
	if err := c.persist(out.Save); err != nil {
		// Deliveries go on: what a crash would lose now is asked again.
		c.log.Error("delivery", "err", err)
		if retry := now.Add(saveRetry); out.Wake.IsZero() || out.Wake.After(retry) {
			out.Wake = retry
		}
	}
	for seat, w := range workers {
		if !c.m.Seated(seat) {
			w.stop()
			delete(workers, seat)
		}
	}
	for _, e := range out.Events {
		c.tell(e)
	}
	c.metrics.set(c.m, now)
	return out
}

func (c *Courier) tell(e Event) {
	c.metrics.count(e)
	level := slog.LevelInfo
	switch e.Kind {
	case GatewaySuspect, GatewayDead, GatewayLied, BroadcastFailed:
		level = slog.LevelWarn
	case NoCandidates, ProofExpired:
		level = slog.LevelError
	}
	attrs := []any{"event", string(e.Kind)}
	if e.Gateway != "" {
		attrs = append(attrs, "gateway", e.Gateway)
	}
	if e.Round != "" {
		attrs = append(attrs, "round", e.Round)
	}
	c.log.Log(context.Background(), level, e.Text, attrs...)
	if c.observe != nil {
		c.observe(e)
	}
}
