package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tweedle/services/poet"
)

// Courier drives a Machine: it keeps its state in a database, makes its calls,
// and tells what happens. It is safe for concurrent use.
type Courier struct {
	Options
	db    DB
	shelf Shelf
	dial  Dialer
	wake  chan struct{}

	mu      sync.Mutex // guards what follows, and the order of the saves; held for a write at most
	m       *Machine
	failing bool // a save failed, and that was told
	blind   bool // the Shelf could not be listed, and that was told
}

// Options are the parts of a Courier that have a default.
type Options struct {
	Metrics *Metrics         // nil: not counted
	Tell    func(poet.Event) // called for each event, in order; must not block nor call back
	// Stored is told when the Shelf may have another proof; nil: it is looked at
	// every lookEvery.
	Stored <-chan struct{}
	// Date is the hour that is believed; nil: time.Now.
	Date func() time.Time
}

// lookEvery is how often the Shelf is looked at even if nothing was told: for a
// proof that could not be read.
const lookEvery = 10 * time.Second

// Open reads acknowledgements and gateways from db, which stays the caller's,
// and adds the configured gateways. Run makes the deliveries.
func Open(db DB, shelf Shelf, cfg Config, dial Dialer, gateways []string, opt Options) (*Courier, error) {
	if err := cmp.Or(cfg.validate(), checkAll(gateways)); err != nil {
		return nil, err
	}
	saved, damaged, err := load(db)
	if err != nil {
		return nil, err
	}
	if opt.Date == nil {
		opt.Date = time.Now
	}
	c := &Courier{Options: opt, db: db, shelf: shelf, dial: dial, wake: make(chan struct{}, 1)}
	now := time.Now()
	c.m = NewMachine(cfg, saved, now, c.Date())
	if damaged != nil {
		c.m.event(poet.Event{Kind: poet.EventDamage, Text: "a part of the state of the deliveries is left out", Err: damaged})
	}
	if unused := c.m.Configure(gateways, now); len(unused) > 0 {
		c.m.event(poet.Event{Kind: GatewaysIgnored, Err: fmt.Errorf("%q", unused),
			Text: "gateways of the command line are not used: others were set through the admin API since, or there are too many"})
	}
	c.look()
	return c, nil
}

// Rebroadcast offers the stored proof of a round to every gateway anew. What the
// Shelf says if it has none is passed on.
func (c *Courier) Rebroadcast(round string) error {
	p, err := c.read(round)
	if err != nil {
		return err
	}
	return c.change(func(now time.Time) error { return c.m.Rebroadcast(p, now, c.Date()) })
}

// SetGateways replaces all gateways; deliveries to them start at once. It
// outlives a restart, and configured gateways do not come back.
func (c *Courier) SetGateways(addrs []string) error {
	return c.change(func(now time.Time) error { return c.m.SetGateways(addrs, now) })
}

// AddGateway adds a gateway behind the others.
func (c *Courier) AddGateway(addr string) error {
	return c.change(func(now time.Time) error { return c.m.AddGateway(addr, FromAPI, now) })
}

// RemoveGateway forgets a gateway and tells whether it was known.
func (c *Courier) RemoveGateway(addr string) (known bool, err error) {
	err = c.change(func(time.Time) error { known = c.m.RemoveGateway(addr); return nil })
	return known, err
}

// Gateways lists the gateways by rank.
func (c *Courier) Gateways() []GatewayStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.Gateways()
}

// Slots returns how many gateways are used at a time.
func (c *Courier) Slots() int { return c.m.cfg.Slots }

// Proofs lists what is known of the proofs' deliveries, oldest round first.
func (c *Courier) Proofs() []Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.Proofs(c.Date())
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
	return c.persist(c.m.unsaved())
}

// persist saves what a step asks for; what cannot be saved stays with the
// machine and is tried again at its next step.
func (c *Courier) persist(state *Saved) error {
	if state == nil {
		return nil
	}
	if err := save(c.db, state); err != nil {
		return fmt.Errorf("the deliveries' state cannot be written, free some disk space: %w", err)
	}
	c.m.Persisted()
	return nil
}

// read reads a proof that can be sent.
func (c *Courier) read(round string) (Proof, error) {
	p, err := c.shelf.Load(round)
	if err == nil && (len(p.Data) == 0 || len(p.Data) > MaxProofSize) {
		err = fmt.Errorf("a proof of %d bytes cannot be delivered: the limit is %d", len(p.Data), MaxProofSize)
	}
	return p, err
}

// look finds the proofs that are new on the Shelf. One that cannot be read is
// told of and tried again at the next look; the others are found.
func (c *Courier) look() {
	due, err := c.shelf.Due(c.Date())
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && !c.blind {
		c.m.event(poet.Event{Kind: ProofUnreadable, Text: "the stored proofs cannot be listed", Err: err})
	}
	c.blind = err != nil
	for _, d := range due {
		if c.m.Lacks(d.Round) {
			c.mu.Unlock() // an operator who asks does not wait for the disk
			p, err := c.read(d.Round)
			c.mu.Lock()
			c.m.Found(d, p, err, time.Now())
		}
	}
}

// Run delivers until ctx ends. It leaves no goroutine and no connection.
func (c *Courier) Run(ctx context.Context) error {
	lines := map[*gateway]Gateway{} // the open connections
	hangUp := func(g *gateway) {
		if line := lines[g]; line != nil {
			_ = line.Close() // nothing is left to lose
			delete(lines, g)
		}
	}
	defer func() {
		for g := range lines {
			hangUp(g)
		}
	}()
	var running sync.WaitGroup // a call for each gateway at most
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan Result)
	timer, tick := time.NewTimer(0), time.NewTicker(lookEvery)
	defer timer.Stop()
	defer tick.Stop()
	for {
		out := c.step()
		for g := range lines {
			if !slices.Contains(out.table, g) {
				hangUp(g) // its call ends with it
			}
		}
		for _, call := range out.Calls {
			line, err := lines[call.to], error(nil)
			if line == nil {
				if line, err = c.dial(call.Addr); err == nil {
					lines[call.to] = line
				}
			}
			running.Go(func() {
				r := Result{Call: call, Err: err}
				if err == nil {
					r = c.make(ctx, line, call)
				}
				select {
				case results <- r:
				case <-ctx.Done():
				}
			})
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
		case <-c.Stored:
			c.look()
		case <-tick.C:
			c.look()
		case r := <-results:
			// A connection that failed is not used again: what waits behind its own
			// backoff would come later than ours.
			if r.Err != nil && !errors.Is(r.Err, ErrRejected) && !errors.Is(r.Err, ErrMissing) && !errors.Is(r.Err, errUnreadable) {
				hangUp(r.Call.to)
			}
			c.mu.Lock()
			c.m.Done(r, time.Now())
			c.mu.Unlock()
		}
	}
}

// make makes one call.
func (c *Courier) make(ctx context.Context, g Gateway, call Call) Result {
	ctx, cancel := context.WithTimeout(ctx, call.Timeout)
	defer cancel()
	r := Result{Call: call}
	switch call.Kind {
	case CallCheck:
		r.Health, r.Err = g.Check(ctx)
	case CallPush:
		p, err := c.read(call.Round)
		if err == nil && p.Ref != call.Ref {
			err = fmt.Errorf("it is %s, and was %s", p.Ref.Short(), call.Ref.Short())
		}
		if err != nil {
			r.Err = fmt.Errorf("%w: %w", errUnreadable, err)
			return r
		}
		r.Answer, r.Err = g.Publish(ctx, p.Data)
	case CallFetch:
		r.Err = g.Fetch(ctx, call.Ref)
	}
	return r
}

// saveRetry is how long a step whose changes could not be saved waits.
const saveRetry = time.Second

func (c *Courier) step() Output {
	c.mu.Lock()
	now, date := time.Now(), c.Date()
	out := c.m.Step(now, date)
	err := c.persist(out.Save)
	if err != nil {
		// Deliveries go on: what a crash would lose now is asked again.
		if !c.failing {
			out.Events = append(out.Events, poet.Event{Kind: WriteFailed, Text: "deliveries go on, and it is tried again every second", Err: err})
		}
		if retry := now.Add(saveRetry); out.Wake.IsZero() || out.Wake.After(retry) {
			out.Wake = retry
		}
	}
	c.failing = err != nil
	c.Metrics.set(c.m, date)
	c.mu.Unlock()
	for _, e := range out.Events {
		c.Metrics.count(e)
		if c.Tell != nil {
			c.Tell(e)
		}
	}
	return out
}
