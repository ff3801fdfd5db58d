package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tweedle/edges/api"
	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/proofs/post"
	"tweedle/protocol/core"
	"tweedle/protocol/syncer"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// maxInputs bounds the inputs that wait for the loop.
const maxInputs = 1024

// driver does what the machine of package core says. The goroutine of loop owns
// the machine; others only read it, under the lock.
type driver struct {
	n       *Node
	inputs  chan core.Input
	work    sync.WaitGroup // asks and checks that run
	checks  *pool
	quick   *pool // of what a round waits for: checks of space take seconds
	spaces  spaces
	mu      sync.RWMutex // held for writing by Step
	machine *core.Machine

	judging  sync.Mutex // guards what follows
	token    uint64
	verdicts map[uint64]*hearing // by token: each ends with its verdict
}

// hearing is a message that the machine has not judged yet.
type hearing struct {
	topic   core.Topic
	verdict chan core.Verdict // nil: nobody waits any more
}

func newDriver(n *Node, m *core.Machine) *driver {
	d := &driver{n: n, inputs: make(chan core.Input, maxInputs), checks: newPool(), quick: newPool(), machine: m, verdicts: make(map[uint64]*hearing)}
	d.spaces.lanes = post.NewLabeler(n.activation.Post.ScryptN).Lanes()
	d.spaces.labels = func(w core.CheckSpace) int { return w.Claim.Labels(n.activation) }
	return d
}

// peersEvery is how often the machine is told who is connected.
func (n *Node) peersEvery() time.Duration { return min(time.Second, n.params.LayerDuration/8) }

// loop feeds the machine until ctx ends, or with an error that the node cannot
// live with. It returns when all that it started has ended.
func (d *driver) loop(ctx context.Context) error {
	defer d.work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ticker := time.NewTicker(d.n.peersEvery())
	defer ticker.Stop()
	peers := []core.Peer(nil)
	wake, err := d.step(ctx, core.Tick{})
	for err == nil {
		timer := time.NewTimer(min(d.n.clock.Until(wake), d.n.params.LayerDuration))
		in := core.Input(core.Tick{})
		select {
		case <-ctx.Done():
			timer.Stop()
			return d.saveWaiting()
		case in = <-d.inputs:
		case <-ticker.C:
			now := d.n.peers()
			if slices.Equal(now, peers) {
				timer.Stop()
				continue
			}
			peers, in = now, core.Peers{Connected: now}
		case <-timer.C:
		}
		timer.Stop()
		wake, err = d.step(ctx, in)
	}
	return err
}

// saveWaiting remembers over a restart what waits for a block. If we stop before,
// others have it: it was gossiped.
func (d *driver) saveWaiting() error {
	var raws []types.Transaction
	for _, tx := range d.machine.Waiting() {
		raws = append(raws, tx.Raw)
	}
	if err := d.n.db.SaveWaiting(raws); err != nil {
		return fmt.Errorf("waiting transactions: %w", err)
	}
	return nil
}

// peers returns who is connected, sorted.
func (n *Node) peers() (out []core.Peer) {
	for _, p := range n.host.Peers() {
		out = append(out, core.Peer(p.ID))
	}
	return out
}

// fewSlots are checked at once, in a millisecond: waiting for a turn would take longer.
const fewSlots = 8

// step gives the machine one input, and what follows from it at once: our own
// messages that the guard let pass. It returns when the machine is to be woken.
func (d *driver) step(ctx context.Context, in core.Input) (wake time.Time, err error) {
	own := []core.Input{in}
	for len(own) > 0 {
		in, own = own[0], own[1:]
		now := d.n.now()
		if err := d.n.trust(now); err != nil {
			return wake, err
		}
		d.mu.Lock()
		out, err := d.machine.Step(now, in)
		d.mu.Unlock()
		if err != nil {
			return wake, fmt.Errorf("state: %w", err)
		}
		// If we stop before this is written, the machine is built again from
		// what was there before, and nothing of the rest has happened.
		if err := d.n.db.Commit(out.Writes); err != nil {
			return wake, fmt.Errorf("write: %w", err)
		}
		d.n.snapshot.Store(d.machine.Snapshot())
		passed, err := d.guard(out.Signs)
		if err != nil {
			return wake, err
		}
		for _, m := range passed {
			own = append(own, core.Heard{From: core.Self, Message: m})
		}
		own = append(own, d.effects(ctx, out)...)
		wake = out.Wake
	}
	return wake, nil
}

// guard asks local.db which messages of ours may go out.
func (d *driver) guard(signs []core.Sign) (passed []core.Message, err error) {
	if len(signs) == 0 {
		return nil, nil
	}
	messages := make([][]store.Slot, len(signs))
	for i, s := range signs {
		for _, k := range s.Slots {
			messages[i] = append(messages[i], store.Slot{Domain: k.Domain, Identity: s.By, Slot: k.Place, Hash: k.Hash})
		}
	}
	refused, err := d.n.db.GuardAll(messages)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	for i, s := range signs {
		if refused[i] != nil {
			d.n.log.Error("we do not sign", "identity", s.By.Short(), "domain", s.Slots[0].Domain, "place", s.Slots[0].Place, "err", refused[i])
			continue
		}
		passed = append(passed, s.Message)
	}
	return passed, nil
}

// effects does what follows the writes, in the order of Output, and returns the ends of the
// work that it did at once.
func (d *driver) effects(ctx context.Context, out core.Output) (done []core.Input) {
	for _, s := range out.Sends {
		if d.n.cfg.Lies != nil {
			d.n.cfg.Lies(d.n.send, s.Topic, s.Raw)
		} else {
			d.n.send(s.Topic, s.Raw)
		}
	}
	for _, a := range out.Asks {
		d.work.Go(func() { d.ask(ctx, a) })
	}
	for _, v := range out.Verdicts {
		d.end(v)
	}
	for _, p := range out.Penalties {
		d.n.host.Penalise(p2p.PeerID(p.Peer), p.Points, p.Reason)
	}
	for _, w := range out.Work {
		turns := d.checks
		switch w := w.(type) {
		case core.CheckSpace:
			d.spaces.put(w)
			d.work.Go(func() { d.checkSpaces(ctx) })
			continue
		case core.CheckSlots:
			if len(w.Claim.Proofs) <= fewSlots {
				done = append(done, w.Do(d.n.crypto))
				continue
			}
		case core.CheckSeats, core.DrawSeats:
			turns = d.quick
		}
		d.work.Go(func() { d.do(ctx, turns, w) })
	}
	for _, e := range out.Events {
		if own, ok := e.(core.OwnSeen); ok {
			d.n.seen(own)
			continue
		}
		d.n.happened(e)
	}
	return done
}

// do waits for a turn and does work.
func (d *driver) do(ctx context.Context, turns *pool, w core.Work) {
	leave, ok := turns.enter(ctx, core.Self)
	if !ok {
		return
	}
	done := w.Do(d.n.crypto)
	leave()
	d.input(ctx, done)
}

// checkSpaces waits for a turn and checks what waits then, which others may have done.
func (d *driver) checkSpaces(ctx context.Context) {
	leave, ok := d.checks.enter(ctx, core.Self)
	if !ok {
		return
	}
	done := core.CheckSpaces(d.n.crypto, d.spaces.take())
	leave()
	for _, verified := range done {
		d.input(ctx, verified)
	}
}

// input hands something to the loop; false if ctx ended first.
func (d *driver) input(ctx context.Context, in core.Input) bool {
	select {
	case d.inputs <- in:
		return true
	case <-ctx.Done():
		return false
	}
}

// ask brings a request to a peer, and tells the machine what came of it.
func (d *driver) ask(ctx context.Context, a syncer.Ask) {
	out := core.Answered{Ask: a.ID}
	request, cancel := context.WithTimeout(ctx, a.Until.Sub(d.n.now()))
	raw, err := d.n.host.Request(request, p2p.PeerID(a.Peer), protocolAsk, codec.Encode(core.RequestOf(a)))
	cancel()
	if err != nil {
		out.Failure = failure(err)
		d.input(ctx, out)
		return
	}
	leave, ok := d.checks.enter(ctx, a.Peer)
	if !ok {
		return
	}
	if out.Answer, err = core.CheckAnswer(d.n.crypto, a, raw); err != nil {
		out.Failure = syncer.Garbage
	}
	leave()
	d.input(ctx, out)
}

// failure classes the error of a request.
func failure(err error) syncer.Failure {
	var remote *p2p.RemoteError
	switch {
	case errors.Is(err, p2p.ErrBusy), errors.Is(err, p2p.ErrRateLimited), errors.As(err, &remote):
		return syncer.Busy
	case errors.Is(err, p2p.ErrTooLarge):
		return syncer.Garbage
	case errors.Is(err, p2p.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return syncer.Timeout
	}
	return syncer.Gone
}

// heard gives a checked message to the machine and waits for its verdict, not
// longer than the patience, if it is not 0; false if that or ctx ended first.
// The machine goes on with it all the same.
func (d *driver) heard(ctx context.Context, patience time.Duration, from core.Peer, t core.Topic, m core.Message) (core.Verdict, bool) {
	verdict := make(chan core.Verdict, 1)
	d.judging.Lock()
	d.token++
	token := d.token
	d.verdicts[token] = &hearing{t, verdict}
	d.judging.Unlock()
	given := d.input(ctx, core.Heard{From: from, Token: token, Message: m})
	if given {
		if patience > 0 {
			var cancel func()
			ctx, cancel = context.WithTimeout(ctx, patience)
			defer cancel()
		}
		select {
		case v := <-verdict:
			return v, true
		case <-ctx.Done():
		}
	}
	d.judging.Lock()
	defer d.judging.Unlock()
	if h := d.verdicts[token]; h != nil && given {
		h.verdict = nil
	} else {
		delete(d.verdicts, token)
	}
	return core.Verdict{}, false
}

// end hands a verdict to who waits for it, if somebody still does.
func (d *driver) end(v core.Verdict) {
	d.judging.Lock()
	h := d.verdicts[v.Token]
	delete(d.verdicts, v.Token)
	d.judging.Unlock()
	switch {
	case h == nil:
	case h.verdict != nil:
		h.verdict <- v
	case v.Class == core.Accept:
		d.n.counted(h.topic, v.From)
	}
}

// look reads the machine between two steps.
func look[T any](d *driver, read func(*core.Machine) T) T {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return read(d.machine)
}

// trust lets an old local.db sign again when nothing that it may have signed can
// conflict any more.
func (n *Node) trust(now time.Time) error {
	for _, i := range n.identities {
		if i.trustIn == 0 || n.schedule.EpochAt(now) < i.trustIn {
			continue
		}
		i.trustIn = 0
		if err := n.db.TrustLocal(i.NodeID()); err != nil {
			return fmt.Errorf("trust local.db: %w", err)
		}
		n.log.Info("signing again: nothing that was signed before the rollback can conflict any more", "identity", i.NodeID().Short())
	}
	return nil
}

// seen asks the guard whether a message of one of our identities that came from elsewhere
// is one of ours. If not, a copy of it signs, or did: we do not with it, until what it
// may have signed binds nobody any more. Faults of the store end the node by
// themselves.
func (n *Node) seen(e core.OwnSeen) {
	err, i := n.db.Seen(e.Slot.Domain, e.Smesher, e.Slot.Place, e.Slot.Hash), n.identity(e.Smesher)
	if !errors.Is(err, store.ErrRolledBack) || i.trustIn != 0 {
		return
	}
	until, distrust := n.db.DistrustUntil(e.Smesher, n.schedule.EpochAt(n.now())+2)
	if distrust != nil {
		return
	}
	i.trustIn = until
	n.log.Error("our identity signed what this copy does not know: the directory was restored, or the identity runs twice; nothing is signed with it until it is safe",
		"until_epoch", until, "err", err)
}

// happened tells people and streams.
func (n *Node) happened(e core.Event) {
	n.count(e)
	switch e := e.(type) {
	case core.Activated:
		n.events.Publish(api.Activated{ATXRecord: e.Entry})
		n.log.Info("ATX", "id", e.Entry.ID.Short(), "smesher", e.Entry.Smesher.Short(), "epoch", e.Entry.PublishEpoch, "weight", e.Entry.Weight)
	case core.PoetStored:
		n.log.Info("PoET proof", "poet", e.Message.PoetID.Short(), "round", e.Message.RoundID, "leaves", e.Message.Proof.NumLeaves, "ref", e.Ref.Short())
		n.smeshers.Stored(e.Message)
	case core.Admitted:
		n.events.Publish(api.Accepted{Tx: e.Tx})
	case core.Applied:
		d := e.Certificate.Decision
		n.events.Publish(api.Applied{LayerResult: store.LayerOf(e.WriteLayer)})
		n.log.Info("layer applied", "layer", d.Layer, "block", d.Block.Short(), "txs", len(e.Txs),
			"state", d.StateRoot.Short(), "signatures", len(e.Certificate.Signatures))
	case core.Undone:
		n.log.Warn("applied layers are taken back", "from", e.From, "back_to", e.To, "fault", e.Fault, "signed_against_each_other", len(e.Smeshers))
	case core.Disputed:
		n.log.Error("we disagree with what others certified", "layer", e.Layer, "reason", e.Reason,
			"their_state", e.Theirs.StateRoot.Short(), "our_state", e.Ours.StateRoot.Short())
	case core.Caught:
		if e.Own {
			n.log.Error("our own identity signs somewhere else too: nothing is signed with it here any more, it has no weight from the next epoch on; "+
				"stop one of the two, and use another identity", "identity", e.Proof.Smesher.Short(), "what", e.Proof.Kind)
			return
		}
		n.log.Warn("smesher is malicious and loses its weight", "smesher", e.Proof.Smesher.Short(), "what", e.Proof.Kind)
	case core.Synced:
		n.log.Info("sync", "synced", e.Yes, "why", e.Reason, "applied", n.snapshot.Load().Tip.Layer)
	case core.ClockDiffers:
		if !e.Differs {
			n.log.Info("our clock is that of our peers again")
			return
		}
		n.log.Error("our clock differs from those of most peers: set it, by NTP for example", "theirs_are_ahead_by", e.Ahead.Round(time.Millisecond), "peers", e.Peers)
	case core.Silent:
		n.log.Warn("we do not take part in a layer", "layer", e.Layer, "why", e.Reason)
	case core.Empty:
		n.log.Info("the smeshers of a layer agreed that it has no proposal", "layer", e.Layer)
	case core.BeaconKnown:
		n.log.Info("beacon", "epoch", e.Epoch, "value", e.Beacon)
	case core.BeaconFailed:
		n.log.Warn("the beacon of an epoch was not found here: until ballots of that epoch tell it, no proposal counts", "epoch", e.Epoch)
	case core.Left:
		n.events.Publish(api.Left{Tx: e.Tx, Cause: e.Cause})
		n.log.Debug("transaction left the pool", "id", e.Tx.ID.Short(), "why", e.Cause)
	}
}
