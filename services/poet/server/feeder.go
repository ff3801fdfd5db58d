package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"tweedle/services/poet"
	"tweedle/services/poet/delivery"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// usefulEpochs is how many epochs after its round's end a proof may still be
// of use: the ATXs that rest on it are published in the first and count in the
// second; nodes that were cut off meanwhile validate them later.
const usefulEpochs = 6

// feedEvery is how often the store is compared with the outbox even if nothing
// was announced, so that a proof which could not be added is tried again.
const feedEvery = 10 * time.Second

// proofs is where stored proofs are found.
type proofs interface {
	Proofs() ([]string, error) // the server's own
	Proof(round string) (poet.ProofRecord, error)
}

// feeder moves stored proofs into the outbox. It works from the store alone:
// whatever stops the process between storing and adding, the next look finds
// it; adding twice changes nothing.
type feeder struct {
	proofs   proofs
	courier  *delivery.Courier
	schedule types.PoetSchedule
	log      *slog.Logger
	wake     chan struct{}
	fed      map[string]bool // rounds that need no further look; owned by run
}

func newFeeder(cfg Config) *feeder {
	return &feeder{schedule: cfg.Poet.Schedule, log: cfg.Log, wake: make(chan struct{}, 1), fed: map[string]bool{}}
}

// poke is rounds.Config.OnProof.
func (f *feeder) poke(string) {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *feeder) run(ctx context.Context) {
	tick := time.NewTicker(feedEvery)
	defer tick.Stop()
	for {
		if err := f.feed(); err != nil {
			f.log.Error("a proof cannot be put into the outbox", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		case <-tick.C:
		}
	}
}

func (f *feeder) feed() error {
	rounds, err := f.proofs.Proofs()
	if err != nil {
		return err
	}
	for _, round := range rounds {
		if f.fed[round] {
			continue
		}
		if err := f.add(round); err != nil {
			return fmt.Errorf("round %s: %w", round, err)
		}
		f.fed[round] = true
	}
	return nil
}

func (f *feeder) add(round string) error {
	until, err := f.usefulUntil(round)
	if err != nil || !until.After(time.Now()) {
		return err
	}
	p, err := f.load(round)
	if errors.Is(err, errNoMembers) {
		return nil
	}
	if err != nil {
		return err
	}
	p.UsefulUntil = until
	return f.courier.Add(p)
}

var errNoMembers = errors.New("the round has no members: nobody waits for its proof")

func (f *feeder) load(round string) (delivery.Proof, error) {
	r, err := f.proofs.Proof(round)
	if err != nil {
		return delivery.Proof{}, err
	}
	if len(r.Members) == 0 {
		return delivery.Proof{}, errNoMembers
	}
	return delivery.Proof{Round: round, Ref: r.Message.Proof.Ref(), Data: codec.Encode(&r.Message)}, nil
}

func (f *feeder) usefulUntil(round string) (time.Time, error) {
	n, err := poet.ParseRoundID(round)
	if err != nil {
		return time.Time{}, err
	}
	return f.schedule.End(n).Add(usefulEpochs * f.schedule.EpochDuration), nil
}

// outbox is the courier as the admin API sees it.
type outbox struct {
	*delivery.Courier
	feeder *feeder
}

// RebroadcastRound offers a stored proof anew, for an epoch at least.
func (o outbox) RebroadcastRound(round string) error {
	p, err := o.feeder.load(round)
	if err != nil {
		return err
	}
	if p.UsefulUntil, err = o.feeder.usefulUntil(round); err != nil {
		return err
	}
	if atLeast := time.Now().Add(o.feeder.schedule.EpochDuration); p.UsefulUntil.Before(atLeast) {
		p.UsefulUntil = atLeast
	}
	return o.Rebroadcast(p)
}
