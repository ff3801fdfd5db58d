package sim

import (
	"fmt"
	"math"
	"slices"
	"time"

	"tweedle/edges/p2p"
	"tweedle/protocol/core"
	"tweedle/protocol/hare"
	"tweedle/protocol/syncer"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// node is one core with its store, and what a node's driver does around it.
type node struct {
	w      *world
	i      int
	peer   core.Peer
	key    core.Identity // nil: it does not smesh
	crypto core.Crypto
	bad    strategy // nil: it is honest
	fell   bool     // it crashed once

	smeshers []*smesher // one for key, if it smeshes, and for each other identity
	twin     *node      // whose key it has too
	units    uint32     // of each identity
	skew     time.Duration
	lies     bool // about its clock

	store  *memory
	mirror func([]core.Write) // nil, or gets all writes too
	guard  map[slot]types.Hash32
	m      *core.Machine
	timed  bool          // for benchmarks
	spent  time.Duration // in the machine, by the wall clock, if it is timed
	up     bool
	life   int         // how often it was started; negative: it ends after its next writes
	born   int         // how often it was started
	voted  types.Layer // verified, after its last step
	wake   time.Time

	links  []*node  // connected, unless cut off or banned
	points []points // of each node
	tokens map[uint64]heardMessage
	token  uint64

	acted bool // it did in the open what its strategy is about

	last types.ATXID // newest published
	made map[types.Epoch]types.ATXID
}

type slot struct {
	by     types.NodeID
	domain byte
	place  uint64
}

type heardMessage struct {
	*message
	from *node   // nil: a client
	by   *client // nil: a peer
}

// points are what a peer was charged, as package p2p counts.
type points struct {
	at   time.Time
	then float64
}

func (p *points) add(now time.Time, more float64) {
	p.then = p.then*math.Exp2(-float64(now.Sub(p.at))/float64(p2p.PenaltyHalfLife)) + more
	p.at = now
}

// banned tells whether it was too much: a ban lasts longer than a run.
func (p *points) banned() bool { return p.then >= p2p.BanThreshold }

// boot starts the node from its store.
func (n *node) boot() {
	if n.guard == nil {
		n.guard, n.made = make(map[slot]types.Hash32), make(map[types.Epoch]types.ATXID)
		n.points = make([]points, len(n.w.nodes))
	}
	n.born++
	n.tokens = make(map[uint64]heardMessage)
	cfg := n.w.cfg
	cfg.Crypto, cfg.Identities = n.crypto, n.identities()
	m, err := core.New(cfg, n.now(), n.store)
	if err != nil {
		n.w.violated(n, "does not start: %v", err)
		return
	}
	if v := m.Snapshot().Verified; v != 0 && v != n.voted {
		n.w.violated(n, "had verified layer %d when it ended, and layer %d when it starts", n.voted, v)
	}
	n.m, n.up, n.wake = m, true, time.Time{}
	n.life++
	n.w.logf(n, "starts, newest layer %d", n.store.tip().decision.Layer)
	n.meet()
	for _, o := range n.links {
		if o.up {
			o.meet()
		}
	}
	for _, s := range n.smeshers {
		s.start()
	}
}

func (n *node) now() time.Time { return n.w.now.Add(n.skew) }

// shows is what the node says that its clock shows.
func (n *node) shows() time.Time {
	if n.lies {
		return n.w.now.Add(time.Hour)
	}
	return n.now()
}

// crash ends the node; it comes back after a while. In the middle means: after
// the next writes, before anything that follows from them.
func (n *node) crash(middle bool) {
	if !n.up {
		return
	}
	if middle {
		n.life = -n.life // the next step dies after its writes
		return
	}
	n.die()
}

func (n *node) die() {
	n.up, n.m, n.fell = false, nil, true
	n.life = max(n.life, -n.life)
	n.w.logf(n, "crashes")
	for _, o := range n.links {
		if o.up {
			o.meet()
		}
	}
	n.w.after(time.Duration(1+n.w.rng.IntN(60))*time.Second, n.boot)
}

// reaches tells whether two nodes hear each other.
func (n *node) reaches(o *node) bool {
	return n.up && o.up && slices.Contains(n.links, o) && (n.w.cut == nil || !n.w.cut(n, o)) &&
		!n.points[o.i].banned() && (o.points == nil || !o.points[n.i].banned())
}

// meet tells the machine who is connected.
func (n *node) meet() {
	if !n.up {
		return
	}
	var peers []core.Peer
	for _, o := range n.links {
		if n.reaches(o) {
			peers = append(peers, o.peer)
		}
	}
	n.step(core.Peers{Connected: peers})
}

// step gives the machine one input and does what it says.
func (n *node) step(in core.Input) {
	if !n.up {
		return
	}
	w := n.w
	w.result.Steps++
	var begin time.Time
	if n.timed {
		begin = time.Now()
	}
	out, err := n.m.Step(n.now(), in)
	if n.timed {
		n.spent += time.Since(begin)
	}
	if err == nil {
		err = n.store.commit(out.Writes)
		if n.mirror != nil {
			n.mirror(out.Writes)
		}
	}
	if err != nil {
		w.violated(n, "ends with: %v", err)
		n.up = false
		return
	}
	for _, e := range out.Events {
		n.happened(e)
	}
	n.look(out)
	if n.life < 0 {
		n.die()
		return
	}
	for _, s := range out.Signs {
		if w.opts.unsaid != nil && w.opts.unsaid(s) {
			continue
		}
		if n.bad == nil || !n.bad.signs(n, s) {
			n.sign(s)
		}
	}
	for _, s := range out.Sends {
		n.gossip(w.message(s.Topic, s.Raw), nil, true)
	}
	for _, a := range out.Asks {
		n.ask(a)
	}
	for _, v := range out.Verdicts {
		n.verdict(v)
	}
	for _, p := range out.Penalties {
		n.charge(w.byPeer[p.Peer], p.Points, p.Reason)
	}
	for _, k := range out.Work {
		life := n.life
		n.at(w.now.Add(time.Duration(10+w.rng.IntN(200))*time.Millisecond), func() {
			if n.life == life {
				n.step(w.do(k, n.crypto))
			}
		})
	}
	n.sleep(out.Wake)
}

// do does a machine's work. The seats of a message are the same for all who see the same weight: they
// are computed once, as a message is checked once.
func (w *world) do(k core.Work, c core.Crypto) core.Input {
	s, ok := k.(core.CheckSeats)
	if !ok {
		return k.Do(c)
	}
	out := core.Seated{Seats: make([]uint32, len(s.Proofs)), Errs: make([]error, len(s.Proofs))}
	for i, p := range s.Proofs {
		of := seating{p.Message, p.Draw, p.Weight}
		done, ok := w.seats[of]
		if !ok {
			done.seats, done.err = p.Seats(c)
			w.seats[of] = done
		}
		out.Seats[i], out.Errs[i] = done.seats, done.err
	}
	return out
}

type seating struct {
	message *hare.Message
	draw    hare.Draw
	weight  uint64
}

type seated struct {
	seats uint32
	err   error
}

// sleep has a Tick come at a time of the node's own clock.
func (n *node) sleep(until time.Time) {
	at := until.Add(-n.skew)
	if until.IsZero() || !n.wake.IsZero() && !at.Before(n.wake) && n.wake.After(n.w.now) {
		return
	}
	if !at.After(n.w.now) {
		at = n.w.now.Add(time.Millisecond)
	}
	n.wake = at
	life := n.life
	n.at(at, func() {
		if n.life == life && n.wake.Equal(at) {
			n.wake = time.Time{}
			n.step(core.Tick{})
		}
	})
}

// at has the node do something at a time of the world's clock that has not passed.
func (n *node) at(t time.Time, do func()) { n.w.push(event{at: t.Sub(n.w.start), to: n, do: do}) }

// sign asks the guard, and gives the message back to the machine.
func (n *node) sign(s core.Sign) {
	for _, k := range s.Slots {
		at := slot{s.By, byte(k.Domain), k.Place}
		if old, ok := n.guard[at]; ok && old != k.Hash {
			n.w.violated(n, "would sign twice in domain %d at place %d", k.Domain, k.Place)
			return
		}
		n.guard[at] = k.Hash
	}
	n.step(core.Heard{From: core.Self, Message: s.Message})
}

// gossip gives a message to those who have not seen it.
func (n *node) gossip(m *message, from *node, own bool) {
	m.seen[n.i].born = int32(n.born)
	for _, o := range n.links {
		if o == from || m.seenBy(o) || !n.reaches(o) {
			continue
		}
		delay := n.w.latency()
		if n.bad != nil {
			more, ok := n.bad.passes(n, o, m.topic, m.raw, own)
			if !ok {
				continue
			}
			delay += more
		}
		n.deliver(o, m, delay)
	}
}

func (m *message) seenBy(n *node) bool { return m.seen[n.i].born == int32(n.born) }

// deliver brings a message to a peer.
func (n *node) deliver(o *node, m *message, delay time.Duration) {
	w := n.w
	at := w.now.Sub(w.start) + delay
	if w.opts.grain > 0 {
		before := &m.seen[o.i].comes
		if *before > 0 && *before <= w.grains(at) {
			return // it would come for the second time
		}
		*before = w.grains(at)
	}
	w.push(event{at: at, from: n, to: o, msg: m})
}

// arrives takes a message from a peer.
func (n *node) arrives(from *node, m *message) {
	if m.seenBy(n) || !from.reaches(n) {
		return
	}
	m.seen[n.i].born = int32(n.born)
	n.w.result.Messages++
	checked, err := m.check(n.crypto)
	if err != nil {
		n.blame(from, "refused: "+err.Error())
		return
	}
	n.token++
	n.tokens[n.token] = heardMessage{m, from, nil}
	n.step(core.Heard{From: from.peer, Token: n.token, Message: checked})
}

// verdict ends a message as gossip does.
func (n *node) verdict(v core.Verdict) {
	h, ok := n.tokens[v.Token]
	if !ok {
		n.w.violated(n, "two verdicts for one message, or none was heard")
		return
	}
	delete(n.tokens, v.Token)
	if h.by != nil {
		n.w.logf(n, "tells %s: %s %s", h.by.name, v.Class, v.Reason)
		return
	}
	if v.Class != core.Accept {
		n.w.logf(n, "%ss a %s from %s: %s", v.Class, h.topic, h.from.peer, v.Reason)
	}
	switch v.Class {
	case core.Accept:
		n.gossip(h.message, h.from, false)
	case core.Reject:
		n.blame(h.from, fmt.Sprintf("topic %d: %s", h.topic, v.Reason))
	}
}

// blame is what gossip does to who sends what is wrong.
func (n *node) blame(from *node, reason string) {
	if from.bad == nil && n.bad == nil {
		n.w.violated(n, "blames honest %s: %s", from.peer, reason)
	}
	n.charge(from, 20, reason)
}

func (n *node) charge(o *node, more float64, reason string) {
	if o == nil {
		return
	}
	if o.bad == nil && n.bad == nil && more >= syncer.PointsWaste {
		n.w.violated(n, "charges honest %s: %s", o.peer, reason)
	}
	n.w.logf(n, "charges %s %g points: %s", o.peer, more, reason)
	p := &n.points[o.i]
	before := p.banned()
	p.add(n.w.now, more)
	if !before && p.banned() {
		if o.bad == nil && n.bad == nil {
			n.w.violated(n, "bans honest %s: %s", o.peer, reason)
		}
		n.w.logf(n, "bans %s: %s", o.peer, reason)
		n.meet()
		o.meet()
	}
}

// ask brings a request to a peer, and the answer back.
func (n *node) ask(a syncer.Ask) {
	w, o, life := n.w, n.w.byPeer[a.Peer], n.life
	w.logf(n, "asks %s", describe(a))
	ended := false
	end := func(in core.Answered) {
		if !ended && n.life == life {
			ended = true
			in.Ask = a.ID
			if in.Failure != syncer.None {
				w.logf(n, "has no answer to ask %d: %s", a.ID, in.Failure)
			}
			n.step(in)
		}
	}
	if !n.reaches(o) {
		w.after(0, func() { end(core.Answered{Failure: syncer.Gone}) })
		return
	}
	w.after(a.Until.Sub(n.now()), func() { end(core.Answered{Failure: syncer.Timeout}) })
	if w.lost() {
		return
	}
	w.after(w.latency(), func() {
		if !n.reaches(o) {
			return
		}
		raw, delay, err := o.serve(n, a)
		if err != nil || w.lost() {
			return
		}
		w.after(w.latency()+delay, func() {
			if !n.reaches(o) {
				return
			}
			answer, err := core.CheckAnswer(n.crypto, a, raw)
			if err != nil {
				end(core.Answered{Failure: syncer.Garbage})
				return
			}
			end(core.Answered{Answer: answer})
		})
	})
}

// describe is an ask in a few words.
func describe(a syncer.Ask) string {
	switch {
	case a.Layers != nil:
		return fmt.Sprintf("%s for layers from %d (ask %d)", a.Peer, a.Layers.From, a.ID)
	case a.Epochs != nil:
		return fmt.Sprintf("%s for epochs %d to %d (ask %d)", a.Peer, a.Epochs.From, a.Epochs.To, a.ID)
	}
	return fmt.Sprintf("%s for %d objects, first %s (ask %d)", a.Peer, len(a.Objects), a.Objects[0], a.ID)
}

func (n *node) serve(asker *node, a syncer.Ask) ([]byte, time.Duration, error) {
	if n.bad != nil {
		if raw, delay, handled := n.bad.serves(n, asker, a); handled {
			if raw == nil {
				return nil, 0, errSilent
			}
			return raw, delay, nil
		}
	}
	raw, err := core.Serve(library{n.store, n.m, n.shows()}, codec.Encode(core.RequestOf(a)))
	return raw, 0, err
}

// announce gives an ATX of the node's own to its machine.
func (n *node) announce(a *types.ATX) {
	id := a.ID()
	if a.SmesherID == n.key.NodeID() {
		n.last, n.made[a.PublishEpoch] = id, id
	}
	n.step(core.Heard{From: core.Self, Message: core.Own(a)})
}
