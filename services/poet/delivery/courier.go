package delivery

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"tweedle/services/poet"
)

// Courier drives a Machine: it keeps its state in a database, makes its calls,
// and tells what happens. It is safe for concurrent use.
type Courier struct {
	Options
	db    DB
	shelf Shelf
	wake  chan struct{}

	mu sync.Mutex // guards m, and the order of the saves; held for a write at most
	m  *Machine

	failing bool // Run's: a save failed, and that was told
	blind   bool // Run's: the Shelf could not be listed, and that was told
}

// Options are the parts of a Courier that have a default.
type Options struct {
	Metrics *Metrics         // nil: not counted
	Tell    func(poet.Event) // called for each event, in order; must not block nor call back
	// Stored is told when the Shelf may have another proof; nil: it is looked at
	// every probeEvery.
	Stored <-chan struct{}
	// Date is the hour that is believed; nil: time.Now.
	Date func() time.Time
	Dial []grpc.DialOption // virtual networks have their own
}

// Open reads what was saved from db, which stays the caller's. The configured
// gateways count unless others were set since. Run makes the deliveries.
func Open(db DB, shelf Shelf, cfg Config, configured []string, opt Options) (*Courier, error) {
	configured, err := distinct(configured)
	if err = cmp.Or(cfg.validate(), err); err != nil {
		return nil, err
	}
	saved, damaged, err := load(db)
	if err != nil {
		return nil, err
	}
	if cfg.Seed == 0 { // servers that start together must not stay together
		cfg.Seed = rand.Uint64()
	}
	if opt.Date == nil {
		opt.Date = time.Now
	}
	c := &Courier{Options: opt, db: db, shelf: shelf, wake: make(chan struct{}, 1)}
	c.m = NewMachine(cfg, saved, configured, time.Now(), c.Date())
	if damaged != nil {
		c.m.event(poet.Event{Kind: poet.EventDamage, Text: "a part of the state of the deliveries is left out", Err: damaged})
	}
	unused := slices.DeleteFunc(configured, func(a string) bool { return slices.Contains(c.m.addresses(), a) })
	if len(unused) > 0 {
		c.m.event(poet.Event{Kind: GatewaysIgnored, Err: fmt.Errorf("%q", unused),
			Text: "gateways of the command line are not used: others were set through the admin API since"})
	}
	return c, nil
}

// Rebroadcast offers the stored proof of a round to every gateway anew. What the
// Shelf says if it has none is passed on.
func (c *Courier) Rebroadcast(round string) error {
	m, err := c.shelf.Load(round)
	if err != nil {
		return err
	}
	return c.change(func(now time.Time) error {
		c.m.Rebroadcast(round, m.Proof.Ref(), now, c.Date())
		return nil
	})
}

// SetGateways replaces all gateways; deliveries to them start at once. From then
// on those of the command line do not count. A list that cannot be used is
// ErrAddresses, and changes nothing.
func (c *Courier) SetGateways(addrs []string) error {
	return c.change(func(now time.Time) error { return c.m.SetGateways(addrs, now) })
}

// AddGateway is SetGateways with one more.
func (c *Courier) AddGateway(addr string) error {
	return c.change(func(now time.Time) error { return c.m.SetGateways(append(c.m.addresses(), addr), now) })
}

// RemoveGateway is SetGateways without one, or poet.ErrNotFound.
func (c *Courier) RemoveGateway(addr string) error {
	return c.change(func(now time.Time) error {
		addrs := c.m.addresses()
		i := slices.Index(addrs, addr)
		if i < 0 {
			return fmt.Errorf("%.*q is not a gateway of this server: %w", MaxAddress, addr, poet.ErrNotFound)
		}
		return c.m.SetGateways(slices.Delete(addrs, i, i+1), now)
	})
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
	return c.persist()
}

// persist saves what is unsaved; what cannot be saved is tried again at the next
// step.
func (c *Courier) persist() error {
	if !c.m.dirty {
		return nil
	}
	if err := save(c.db, c.m.saved()); err != nil {
		return fmt.Errorf("the deliveries' state cannot be written, free some disk space: %w", err)
	}
	c.m.dirty = false
	return nil
}

// Run delivers until ctx ends. It leaves no goroutine and no connection.
func (c *Courier) Run(ctx context.Context) error {
	var running sync.WaitGroup // a call for each gateway at most
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan Result)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		out := c.step()
		for _, call := range out.Calls {
			running.Go(func() {
				r := c.make(ctx, call)
				select {
				case results <- r:
				case <-ctx.Done():
				}
			})
		}
		timer.Reset(time.Until(out.Wake))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.wake:
		case <-c.Stored:
		case r := <-results:
			c.mu.Lock()
			c.m.Done(r, time.Now())
			c.mu.Unlock()
		}
	}
}

// make makes one call.
func (c *Courier) make(ctx context.Context, call Call) (r Result) {
	r.Call = call
	if call.Round == "" {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		r.Health, r.Err = c.check(ctx, call.Addr)
		return r
	}
	m, err := c.shelf.Load(call.Round)
	if err != nil {
		r.Err = fmt.Errorf("%w: %w", errUnreadable, err)
		return r
	}
	r.Ref = m.Proof.Ref()
	r.Err = c.deliver(ctx, call.Addr, &m)
	return r
}

// saveRetry is how long a step whose changes could not be saved waits.
const saveRetry = time.Second

func (c *Courier) step() Output {
	now, date := time.Now(), c.Date()
	due, unlisted := c.shelf.Due(date) // an operator who asks does not wait for the disk
	c.mu.Lock()
	c.m.Due(due, now)
	out := c.m.Step(now, date)
	unsaved := c.persist()
	if unsaved != nil && out.Wake.After(now.Add(saveRetry)) {
		out.Wake = now.Add(saveRetry)
	}
	c.Metrics.set(c.m, date)
	c.mu.Unlock()
	if unlisted != nil && !c.blind {
		out.Events = append(out.Events, poet.Event{Kind: ProofUnreadable, Text: "the stored proofs cannot be listed", Err: unlisted})
	}
	if unsaved != nil && !c.failing {
		// What a crash would lose now is asked again.
		out.Events = append(out.Events, poet.Event{Kind: WriteFailed, Text: "deliveries go on, and it is tried again every second", Err: unsaved})
	}
	c.blind, c.failing = unlisted != nil, unsaved != nil
	for _, e := range out.Events {
		c.Metrics.count(e)
		if c.Tell != nil {
			c.Tell(e)
		}
	}
	return out
}
