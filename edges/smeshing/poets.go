package smeshing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"tweedle/base/clock"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/protocol/activation"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// What a smesher cannot do without.
var (
	ErrNoCoinbase = errors.New("smeshing needs an account for its rewards: give one with --coinbase")
	ErrNoPoet     = errors.New("smeshing needs a PoET to register at: give at least one with --poet http://HOST:PORT")
)

// clients makes a client of every configured address.
func (s *Smesher) clients() ([]*client, error) {
	switch n := len(s.cfg.Poets); {
	case n == 0:
		return nil, ErrNoPoet
	case n > activation.MaxRegistrations:
		return nil, fmt.Errorf("%d PoETs are given, at most %d can be registered at", n, activation.MaxRegistrations)
	}
	var all []*client
	for _, address := range s.cfg.Poets {
		u, err := url.Parse(strings.TrimRight(address, "/"))
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" || len(address) > activation.MaxPoetName {
			return nil, fmt.Errorf("--poet %q is no address of a PoET: give it as http://HOST:PORT", address)
		}
		all = append(all, &client{base: u.String(), http: &http.Client{Transport: s.cfg.HTTP}, timeout: callTimeout(s.params)})
	}
	return all, nil
}

func (s *Smesher) client(base string) *client {
	for _, c := range s.poets {
		if c.base == base {
			return c
		}
	}
	return nil
}

// atAll does something at every PoET of some registrations, side by side.
func (s *Smesher) atAll(rs []activation.Registration, do func(c *client, r activation.Registration)) {
	var all sync.WaitGroup
	for _, r := range rs {
		if c := s.client(r.Poet); c != nil { // else it is not configured any more
			all.Go(func() { do(c, r) })
		}
	}
	all.Wait()
}

// register submits the challenge to every PoET until its round starts. Each
// success is told to the machine at once.
func (s *Smesher) register(ctx context.Context, w activation.Work) error {
	deadline := s.schedule.EpochStart(s.schedule.EpochOf(s.schedule.LayerAt(w.Until)) + 2)
	errs := make([]error, len(s.poets))
	var all sync.WaitGroup
	for i, c := range s.poets {
		all.Go(func() { errs[i] = s.registerAt(ctx, c, w.Of, deadline) })
	}
	all.Wait()
	for _, err := range errs {
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("no PoET takes our challenge: %w", errors.Join(errs...))
}

// registerAt tries one PoET again and again until ctx ends.
func (s *Smesher) registerAt(ctx context.Context, c *client, challenge types.Hash32, deadline time.Time) error {
	var last error
	s.checkTimes(ctx, c)
	for {
		round, signed, err := c.register(ctx, s.rules.Network, s.cfg.Signer, challenge, deadline)
		if err == nil {
			if err := s.receive(ctx, c, round, signed, challenge); err != nil {
				return err
			}
			s.log.Info("registered", "poet", c.base, "round", round)
			s.tell(activation.Registered{Challenge: challenge, Registration: activation.Registration{Poet: c.base, Round: round}})
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = fmt.Errorf("PoET %s: %w", c.base, err) // not the one that only says that the time is over
		}
		if errors.Is(err, errRefused) || !clock.Sleep(ctx, s.params.LayerDuration/4) {
			return last
		}
		s.complain(c, last)
	}
}

// checkTimes names a PoET whose rounds are not those of the network.
func (s *Smesher) checkTimes(ctx context.Context, c *client) {
	info, err := c.info(ctx)
	if err != nil {
		return // the registration will say why
	}
	if why := s.otherTimes(info); why != "" && c.times.due(why) {
		s.log.Warn("PoET has other times than the network: its proofs are used if they fit", "poet", c.base, "reason", why)
	}
}

// otherTimes tells in which way a PoET's rounds differ from the network's.
// Times that it does not tell are taken for right: the reference has fewer.
func (s *Smesher) otherTimes(info *poetpb.InfoResponse) string {
	if t := info.GetGenesisTime(); t != nil && !t.AsTime().Equal(s.poet.Genesis) {
		return fmt.Sprintf("its genesis is %s, the network's is %s", t.AsTime().UTC().Format(time.RFC3339), s.poet.Genesis.UTC().Format(time.RFC3339))
	}
	for _, d := range []struct {
		name      string
		said      time.Duration
		there     bool
		networkIs time.Duration
	}{
		{"epochs last", info.GetEpochDuration().AsDuration(), info.GetEpochDuration() != nil, s.poet.EpochDuration},
		{"phase shift is", info.GetPhaseShift().AsDuration(), info.GetPhaseShift() != nil, s.poet.PhaseShift},
		{"cycle gap is", info.GetCycleGap().AsDuration(), info.GetCycleGap() != nil, s.poet.CycleGap},
	} {
		if d.there && d.said != d.networkIs {
			return fmt.Sprintf("its %s %v, the network's %v", d.name, d.said, d.networkIs)
		}
	}
	return ""
}

// place asks for our places in the statements while the PoETs work, so that a
// proof is of use from whoever it comes. Those who do not tell are asked again
// until the round ends.
func (s *Smesher) place(ctx context.Context, w activation.Work) {
	s.atAll(w.Registrations, func(c *client, r activation.Registration) {
		for {
			place, err := c.place(ctx, r.Round, s.id)
			if err == nil {
				r.Place = place
				s.tell(activation.Placed{Challenge: w.Of, Registration: r})
				return
			}
			if !clock.Sleep(ctx, s.params.LayerDuration) {
				return
			}
		}
	})
}

// fetch asks all PoETs for the proof, and looks for it among what is stored,
// until the machine has chosen one. With NoPull it only looks.
func (s *Smesher) fetch(ctx context.Context, w activation.Work) {
	s.findStored(w.Registrations)
	if s.cfg.NoPull {
		for clock.Sleep(ctx, s.pause()) {
			s.findStored(w.Registrations)
		}
		return
	}
	s.atAll(w.Registrations, func(c *client, r activation.Registration) {
		pause := s.pause()
		for {
			m, err := s.membership(ctx, c, r, w.Of)
			if err == nil {
				c.judge(nil)
				s.tell(activation.Fetched{Challenge: w.Of, Registration: r, Membership: *m})
				return
			}
			if ctx.Err() != nil {
				return
			}
			works := errors.Is(err, errNotReady)
			if !works {
				pause = min(2*pause, callTimeout(s.params)) // what it sends may cost us something
				err = fmt.Errorf("round %s: %w", r.Round, err)
				c.judge(err)
				s.complain(c, err)
			}
			s.tell(activation.Answered{Challenge: w.Of, Registration: r, Works: works})
			if !clock.Sleep(ctx, pause) {
				return
			}
			s.findStored([]activation.Registration{r})
		}
	})
}

// findStored tells the machine of proofs that were stored while it did not
// look for them.
func (s *Smesher) findStored(rs []activation.Registration) {
	for _, r := range rs {
		if r.Place == nil {
			continue
		}
		if m, err := s.cfg.Store.PoetProofOf(r.Place.Statement); err == nil {
			s.tell(activation.ProofStored{Ref: m.Proof.Ref(), Statement: m.Statement, NumLeaves: m.Proof.NumLeaves})
		}
	}
}

// membership gets a valid proof of a registration's round from its PoET.
func (s *Smesher) membership(ctx context.Context, c *client, r activation.Registration, challenge types.Hash32) (*activation.Membership, error) {
	p, err := c.proof(ctx, r.Round)
	if err != nil {
		return nil, err
	}
	for i, member := range p.members {
		if member != challenge {
			continue
		}
		if err := s.cfg.Node.AddPoet(&p.msg); err != nil {
			return nil, err
		}
		m := &activation.Membership{
			Ref: p.msg.Proof.Ref(), NumLeaves: p.msg.Proof.NumLeaves, LeafIndex: uint64(i), NumMembers: uint64(len(p.members)),
		}
		for _, h := range merkle.Proof(p.members, uint64(i)) {
			m.Nodes = append(m.Nodes, h)
		}
		return m, nil
	}
	return nil, s.omitted(r, challenge, p)
}

// complain names a PoET that cannot be used, with the reason.
func (s *Smesher) complain(c *client, err error) {
	if c.trouble.due(err.Error()) {
		s.log.Warn("PoET cannot be used now", "poet", c.base, "err", err)
	}
}
