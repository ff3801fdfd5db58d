package sim

import (
	"slices"
	"testing"
	"time"

	"tweedle/protocol/core"
	"tweedle/protocol/syncer"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// lab is a calm network that a script plays with: it runs to a time, and then
// one core gets what the script gives it.
func lab(t *testing.T, nodes int) *world {
	t.Helper()
	w := newWorld(Options{Seed: 3, Nodes: nodes, Epochs: 4, Hostile: []string{}, Strangers: []string{}, Faults: calm()})
	t.Cleanup(func() {
		for _, v := range w.result.Violations {
			t.Error(v)
		}
	})
	return w
}

// run plays until a time after the start of a layer.
func (w *world) run(l types.Layer, after time.Duration) {
	until := w.cfg.Schedule.LayerStart(l).Add(after)
	w.play(until)
	w.now = until
}

// give gives a core one input and returns what it says; the script is the
// driver, so that nothing of it is done but the writes.
func (n *node) give(t *testing.T, in core.Input) core.Output {
	t.Helper()
	out, err := n.m.Step(n.now(), in)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.store.commit(out.Writes); err != nil {
		t.Fatal(err)
	}
	return out
}

// hearRaw gives a core a message of a peer, as gossip would.
func (n *node) hearRaw(t *testing.T, from core.Peer, topic core.Topic, raw []byte) core.Output {
	t.Helper()
	m, err := core.Check(n.crypto, topic, raw)
	if err != nil {
		t.Fatal(err)
	}
	n.token++
	return n.give(t, core.Heard{From: from, Token: n.token, Message: m})
}

// proposal is what a smesher proposes in a layer, with transactions of the
// script's choice.
func (n *node) proposal(t *testing.T, l types.Layer, txs []types.TransactionID) *types.Proposal {
	t.Helper()
	for _, b := range n.store.ballots {
		if b.Smesher != n.key.NodeID() || b.EpochData == nil || n.w.cfg.Schedule.EpochOf(b.Layer) != n.w.cfg.Schedule.EpochOf(l) {
			continue
		}
		if b.Layer != l {
			continue
		}
		p := &types.Proposal{Ballot: *b, Txs: txs}
		p.Ballot.Opinion[0]++ // another ballot than the one that is known
		signProposal(n.key, p)
		return p
	}
	return nil
}

// A stranger sends references to nothing, as fast as it can. What it sends
// waits within its limits, costs it, and delays nobody's message.
func TestAStrangerFillsItsOwnShareAndNobodyElses(t *testing.T) {
	w := lab(t, 5)
	w.run(10, time.Second)
	n := w.nodes[0]
	stranger := w.key("stranger")
	for i := range 3 * core.MaxParkedPerPeer {
		p := &types.Proposal{Ballot: types.Ballot{Layer: 10, ATX: types.ATXID{1, byte(i), byte(i >> 8)}, Smesher: stranger.NodeID()}}
		signProposal(stranger, p)
		n.hearRaw(t, "stranger", core.TopicProposal, codec.Encode(p))
	}
	if parked := n.m.Snapshot().Parked; parked > core.MaxParkedPerPeer+10 {
		t.Errorf("%d messages of one stranger wait", parked)
	}
	// An honest message is judged in the same step.
	tx := vm.Spend(w.rich, types.Address{23: 1}, 5, w.nonce, 7)
	out := n.hearRaw(t, "n01", core.TopicTx, tx)
	if len(out.Verdicts) != 1 || out.Verdicts[0].Class != core.Accept {
		t.Errorf("an honest transaction got %+v", out.Verdicts)
	}
	// When their time is over, all get a verdict that blames nobody.
	w.now = w.now.Add(20 * time.Second)
	ended := 0
	for _, v := range n.give(t, core.Tick{}).Verdicts {
		if v.From == "stranger" {
			ended++
			if v.Class != core.Ignore {
				t.Fatalf("verdict %v", v)
			}
		}
	}
	if ended < core.MaxParkedPerPeer-10 {
		t.Errorf("%d of %d messages were ended", ended, core.MaxParkedPerPeer)
	}
}

// Nothing is stored before it is judged: what a proposal names is fetched into
// memory, and a proposal that is not taken leaves nothing on the disk.
func TestWhatIsNotTakenIsNotStored(t *testing.T) {
	w := lab(t, 5)
	var l types.Layer
	var p *types.Proposal
	var by, n *node
	junk := vm.Spawn(w.rich, 0, 99) // the account is spawned: it cannot wait
	for l = 9; p == nil && l < 20; l++ {
		w.run(l, 3*time.Second)
		for _, s := range w.nodes {
			if p = s.proposal(t, l, []types.TransactionID{junk.ID()}); p != nil {
				by, n = s, w.nodes[(s.i+1)%len(w.nodes)]
				break
			}
		}
	}
	if p == nil {
		t.Fatal("no reference ballot in ten layers")
	}
	l = p.Ballot.Layer
	w.run(l, 4*time.Second)
	before := len(n.store.txs)
	out := n.hearRaw(t, by.peer, core.TopicProposal, codec.Encode(p))
	for _, k := range out.Writes {
		if _, evil := k.(core.WriteMalfeasance); !evil {
			t.Errorf("a second proposal made the core write %T", k)
		}
	}
	if len(n.store.txs) != before {
		t.Error("its transactions are stored")
	}
	if !n.m.Snapshot().Synced {
		t.Error("it unsettled the node")
	}
}

// A peer's word about the history counts for nothing without its proof.
func TestACertificateOfNobodyUnsettlesNothingAndCosts(t *testing.T) {
	w := lab(t, 5)
	w.run(12, 10*time.Second)
	n := w.nodes[0]
	tip := n.m.Snapshot().Tip
	stranger := w.key("stranger")
	c := types.Certificate{Decision: types.Decision{Layer: tip.Layer + 1, Electorate: tip.Electorate, Beacon: tip.Beacon, Parent: tip.StateRoot, StateRoot: types.Hash32{1}}}
	c.Signatures = []types.CertifySignature{core.Seal(stranger, types.ATXID{}, c.Decision).By}
	ask, found := syncer.Ask{}, false
	for range 40 {
		w.now = w.now.Add(w.cfg.Schedule.LayerDuration / 4)
		for _, a := range n.give(t, core.Tick{}).Asks {
			if a.Layers != nil {
				ask, found = a, true
			}
		}
		if found {
			break
		}
	}
	if !found {
		t.Fatal("nobody was asked about the history")
	}
	out := n.give(t, n.shown(t, ask, c))
	points := 0.0
	for _, k := range out.Penalties {
		if k.Peer == ask.Peer {
			points += k.Points
		}
	}
	if points == 0 {
		t.Error("the lie cost nothing")
	}
	if s := n.m.Snapshot(); s.Tip != tip {
		t.Errorf("the tip went from layer %d to %d", tip.Layer, s.Tip.Layer)
	}
}

// A transaction that another one takes the place of is said to leave, and why. It
// is kept for a while, as a block of others may name it.
func TestAReplacedTransactionIsNamedAndKeptForAWhile(t *testing.T) {
	w := lab(t, 5)
	w.run(10, 10*time.Second)
	n := w.nodes[0]
	submit := func(price uint64) (types.Transaction, core.Output) {
		raw := vm.Spend(w.rich, types.Address{23: 9}, 5, w.nonce+50, price)
		return raw, n.hearRaw(t, "n01", core.TopicTx, raw)
	}
	old, _ := submit(1)
	_, out := submit(5)
	var left []core.Left
	for _, e := range out.Events {
		if l, ok := e.(core.Left); ok {
			left = append(left, l)
		}
	}
	if len(left) != 1 || left[0].Tx.ID != old.ID() || left[0].Cause != core.Replaced {
		t.Errorf("the replaced transaction left with %+v", left)
	}
	if n.m.Transaction(old.ID()) == nil {
		t.Error("a block of others that names it could not be executed")
	}
	w.run(17, 0)
	if n.m.Transaction(old.ID()) != nil {
		t.Error("it is kept for ever")
	}
}

// The same inputs give the same outputs, also to a machine that was rebuilt
// from its store in between.
func TestAMachineThatIsRebuiltGoesOnWhereItWas(t *testing.T) {
	w := lab(t, 5)
	w.run(13, 12*time.Second)
	n := w.nodes[2]
	before := n.m.Snapshot()
	cfg := w.cfg
	cfg.Crypto, cfg.Identities = n.crypto, n.identities()
	m, err := core.New(cfg, n.now(), n.store)
	if err != nil {
		t.Fatal(err)
	}
	after := m.Snapshot()
	if after.Tip != before.Tip || after.State.Root() != before.State.Root() {
		t.Errorf("rebuilt at layer %d, was at %d", after.Tip.Layer, before.Tip.Layer)
	}
}

// A node with nothing joins a network of sixty epochs, among a liar and a peer
// that has nothing either. What it verifies in one step counts in that step,
// also when the registry has let its epoch go in between.
func TestAFreshNodeCatchesUpSixtyEpochs(t *testing.T) {
	w := newWorld(Options{Seed: 5, Nodes: 6, Epochs: 60, Late: 1, Hostile: []string{}, Strangers: []string{"lying-peer", "empty-peer"}, Faults: calm()})
	joins := types.Epoch(45)
	w.run(w.cfg.Schedule.First(joins), 31*time.Second)
	s := w.nodes[5].m.Snapshot()
	if clock := w.cfg.Schedule.LayerAt(w.now); s.Tip.Layer+4 < clock || !s.Synced {
		t.Errorf("half a minute after it joined it is at layer %d of %d: %s", s.Tip.Layer, clock, s.Reason)
	}
	for _, v := range w.result.Violations {
		t.Error(v)
	}
}

// A node that was cut off until what it missed is final for the others has only
// fallen behind: it disputes nothing, and catches up.
func TestWhoWasCutOffForTwoEpochsDisputesNothing(t *testing.T) {
	w := newWorld(Options{Seed: 5, Nodes: 6, Epochs: 8, Hostile: []string{}, Strangers: []string{}, Faults: calm()})
	n, s := w.nodes[5], w.cfg.Schedule
	w.run(s.First(4)+2, time.Second)
	w.cut = func(a, b *node) bool { return a == n || b == n }
	w.run(s.First(6)+2, time.Second)
	behind := n.m.Snapshot()
	if behind.Tip.Layer >= s.First(5) || behind.Synced {
		t.Fatalf("it is at layer %d, synced %v", behind.Tip.Layer, behind.Synced)
	}
	w.cut = nil
	w.run(s.First(6)+6, time.Second)
	if now := n.m.Snapshot(); now.Tip.Layer < s.First(6)+2 || !now.Synced || now.Dispute.Layer != 0 {
		t.Errorf("it is at layer %d, synced %v: %s; dispute %+v", now.Tip.Layer, now.Synced, now.Reason, now.Dispute)
	}
	for _, v := range w.result.Violations {
		t.Error(v)
	}
}

// A node that caught up has all that the next one needs for it: those who made
// the history may be gone.
func TestWhoCaughtUpCanTeachTheNext(t *testing.T) {
	w := newWorld(Options{Seed: 5, Nodes: 7, Epochs: 30, Late: 2, Hostile: []string{"withheld-atx"}, Strangers: []string{}, Faults: calm()})
	teacher, pupil := w.nodes[5], w.nodes[6]
	for _, n := range w.nodes {
		n.links = slices.DeleteFunc(n.links, func(o *node) bool { return o == pupil || n == pupil })
	}
	teacher.links, pupil.links = append(teacher.links, pupil), []*node{teacher}
	w.run(w.cfg.Schedule.First(26), 61*time.Second)
	for _, n := range []*node{teacher, pupil} {
		s := n.m.Snapshot()
		if clock := w.cfg.Schedule.LayerAt(w.now); s.Tip.Layer+4 < clock || !s.Synced {
			t.Errorf("%s is at layer %d of %d: %s", n.peer, s.Tip.Layer, clock, s.Reason)
		}
	}
	for _, v := range w.result.Violations {
		t.Error(v)
	}
}

// A smesher that publishes three ATXs gives each to others. Who has two of them
// must take the third when an honest ATX builds on it, and keeps nothing more
// of that smesher otherwise.
func TestWhatBuildsOnAThirdATXOfACheatIsTaken(t *testing.T) {
	w := lab(t, 5)
	cheat, n := w.nodes[0], w.nodes[3]
	s := w.cfg.Schedule
	closes := w.poetry.Start(1).Add(-100 * time.Millisecond) // the PoET round for epoch 2
	w.play(closes)
	w.now = closes
	first := *cheat.store.atxs[cheat.made[1]]
	var variants []*types.ATX
	for i := byte(1); i <= 3; i++ {
		v := first
		v.Coinbase[21] = i
		cheat.seal(&v)
		variants = append(variants, &v)
	}
	// Somebody new positions its first ATX on the third.
	key := w.key("new")
	c := types.PoetChallenge{PublishEpoch: 2, PositioningATX: variants[2].ID(), InitialPost: &types.PostProof{Nonce: 9}}
	w.poets[0].register(key.NodeID(), c.Hash())
	round := w.poets[0].rounds[1]
	w.run(s.First(2), 5*time.Second) // the PoET has delivered
	hear := func(topic core.Topic, raw []byte) core.Output {
		out := n.hearRaw(t, "n04", topic, raw)
		for len(out.Work) > 0 {
			out = n.give(t, out.Work[0].Do(n.crypto))
		}
		return out
	}
	hear(core.TopicATX, codec.Encode(variants[0]))
	if out := hear(core.TopicATX, codec.Encode(variants[1])); len(out.Verdicts) != 1 || out.Verdicts[0].Class != core.Ignore {
		t.Errorf("one more ATX that nobody refers to: %+v", out.Verdicts)
	}
	var proof types.PoetProofMessage
	if err := codec.Decode(round.raw, &proof); err != nil {
		t.Fatal(err)
	}
	last := slices.Index(round.members, [32]byte(c.Hash()))
	a := &types.ATX{
		PublishEpoch: 2, PositioningATX: c.PositioningATX, SmesherID: key.NodeID(),
		Initial: &types.InitialATX{CommitmentATX: w.cfg.Activation.Golden, Post: *c.InitialPost},
		NIPosts: []types.NIPost{{
			NumMembers: uint64(len(round.members)), PoetProof: proof.Proof.Ref(), Membership: path(round.members, last),
			Posts: []types.SubPost{{MembershipLeafIndex: uint64(last), NumUnits: 2, Post: types.PostProof{Nonce: 1}}},
		}},
	}
	id := a.ID()
	a.Signature = key.Sign(signing.ATX, id[:])
	out := hear(core.TopicATX, codec.Encode(a))
	var ask syncer.Ask
	for _, k := range out.Asks {
		if k.Objects != nil && k.Objects[0].ID == [32]byte(variants[2].ID()) {
			ask = k
		}
	}
	if ask.ID == 0 {
		t.Fatalf("what the honest ATX builds on is not asked for: %+v", out)
	}
	answer, err := core.CheckAnswer(n.crypto, ask, codec.Encode(core.ObjectsAnswer{codec.Encode(variants[2])}))
	if err != nil {
		t.Fatal(err)
	}
	out = n.give(t, core.Answered{Ask: ask.ID, Answer: answer})
	for len(out.Work) > 0 {
		out = n.give(t, out.Work[0].Do(n.crypto))
	}
	if _, ok := n.store.entries[a.ID()]; !ok {
		t.Errorf("the honest ATX is not taken: %+v", out)
	}
}

// A node whose clock was ahead, and is right again, has a history that has not
// happened yet: it says so, and takes no part.
func TestATipBeyondTheClockIsNotSynced(t *testing.T) {
	w := lab(t, 5)
	w.run(13, 12*time.Second)
	n := w.nodes[2]
	cfg := w.cfg
	cfg.Crypto, cfg.Identities, cfg.Alone = n.crypto, n.identities(), true
	for _, behind := range []types.Layer{0, 8} {
		now := n.now().Add(-time.Duration(behind) * w.cfg.Schedule.LayerDuration)
		m, err := core.New(cfg, now, n.store)
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(4 * w.cfg.Schedule.LayerDuration) // as long as one that is alone waits for peers
		if _, err := m.Step(now, core.Tick{}); err != nil {
			t.Fatal(err)
		}
		if s := m.Snapshot(); s.Synced != (behind == 0) {
			t.Errorf("clock %d layers back: synced %v, %s", behind, s.Synced, s.Reason)
		}
	}
}
