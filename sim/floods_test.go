package sim

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"tweedle/protocol/beacon"
	"tweedle/protocol/core"
	"tweedle/protocol/malfeasance"
	"tweedle/protocol/syncer"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// flooders are so many that what all together may fill is less than their shares.
const flooders = 9

// floods is one core, and strangers who send it more than it may keep.
type floods struct {
	t     *testing.T
	w     *world
	n     *node
	peers []core.Peer
	made  uint64 // ids so far, and peers
	have  offers // what strangers give when they are asked
	most  map[string]int
}

// id is one that nobody has seen.
func (f *floods) id() (id [32]byte) {
	f.made++
	binary.BigEndian.PutUint64(id[:], f.made)
	id[31] = 77
	return id
}

func (f *floods) layer() types.Layer { return f.w.cfg.Schedule.LayerAt(f.n.now()) }

// meet connects strangers in the place of the last ones: who left a question open is
// asked no other for long.
func (f *floods) meet() {
	f.made++
	f.peers = nil
	for i := range flooders {
		f.peers = append(f.peers, core.Peer(fmt.Sprint("flooder ", f.made, " ", i)))
	}
	f.n.give(f.t, core.Peers{Connected: f.peers})
}

// hear gives a message as gossip would, and answers what it makes the core ask.
func (f *floods) hear(from core.Peer, topic core.Topic, raw []byte) (all []core.Output) {
	return f.n.feed(f.t, f.have, f.n.hearRaw(f.t, from, topic, raw))
}

// look fails if the core holds more of anything than its limit.
func (f *floods) look(when string) {
	f.t.Helper()
	for _, h := range f.n.m.Held() {
		if f.most[h.What] = max(f.most[h.What], h.Now); h.Now > h.Max {
			f.t.Fatalf("after %s it holds %d %s, at most %d may be", when, h.Now, h.What, h.Max)
		}
	}
}

// proposal refers to an ATX that is not there, and names so many transactions.
func (f *floods) proposal(txs int) []byte {
	key := cheapKey(f.id())
	p := &types.Proposal{Ballot: types.Ballot{Layer: f.layer(), ATX: f.id(), Smesher: key.NodeID()}, Txs: make([]types.TransactionID, txs)}
	p.Ballot.Eligibilities = make([]types.Eligibility, txs/f.w.cfg.TxsPerProposal+1)
	signProposal(key, p)
	return codec.Encode(p)
}

func (f *floods) decision(electorate types.Hash32) []byte {
	key := cheapKey(f.id())
	return codec.Encode(core.Seal(key, types.ATXID{}, types.Decision{Layer: f.layer(), Electorate: electorate}))
}

// atx is signed, and rests on a PoET proof and builds on an ATX.
func (f *floods) atx(poet types.PoetProofRef, positioning types.ATXID) []byte {
	key := cheapKey(f.id())
	a := &types.ATX{
		PublishEpoch: f.w.cfg.Schedule.EpochOf(f.layer()), PositioningATX: positioning, SmesherID: key.NodeID(),
		Initial: &types.InitialATX{CommitmentATX: f.w.cfg.Activation.Golden},
		NIPosts: []types.NIPost{{NumMembers: 1, PoetProof: poet, Posts: []types.SubPost{{NumUnits: 2}}}},
	}
	id := a.ID()
	a.Signature = key.Sign(signing.ATX, id[:])
	return codec.Encode(a)
}

func (f *floods) poet() *types.PoetProofMessage {
	m := &types.PoetProofMessage{Statement: f.id(), PoetID: types.NodeID{1}, RoundID: "1"}
	m.Proof.NumLeaves = f.w.cfg.Activation.TickSize
	m.Proof.Root = poetRoot(m.Statement, m.Proof.NumLeaves)
	return m
}

// votes have every smesher vote for something else in every round, again and again.
func (f *floods) votes(from core.Peer) {
	target := f.w.cfg.Schedule.EpochOf(f.layer()) + 1
	for _, n := range f.w.nodes {
		for round := range uint8(beacon.MaxRounds) {
			for range 20 {
				id := f.id()
				m := &beacon.Message{Kind: beacon.Vote, Target: target, Smesher: n.key.NodeID(), Round: round, Yes: []beacon.Value{beacon.Value(id[4:8])}}
				m.Signature = n.key.Sign(m.Domain(), m.SignedBytes())
				f.hear(from, core.TopicBeacon, codec.Encode(m))
			}
		}
	}
}

// all are the floods by what they send.
func (f *floods) all() map[string]func(from core.Peer) {
	return map[string]func(from core.Peer){
		"unknown references": func(from core.Peer) {
			for range core.MaxParkedPerPeer + 50 {
				f.hear(from, core.TopicProposal, f.proposal(0))
			}
		},
		"large messages": func(from core.Peer) {
			for range core.MaxParkedBytesPerPeer/(32*types.MaxProposalTxs) + 2 {
				f.hear(from, core.TopicProposal, f.proposal(types.MaxProposalTxs))
			}
		},
		"a set of nobodies": func(from core.Peer) {
			var set types.ActiveSet
			for range 12_000 {
				set = append(set, f.id())
			}
			name := syncer.Name{Kind: syncer.ActiveSet, ID: set.Hash()}
			f.have[name] = codec.Encode(set)
			for range 1_200 {
				f.hear(from, core.TopicDecision, f.decision(set.Hash()))
			}
			delete(f.have, name)
		},
		"sets of somebody": func(from core.Peer) {
			for range core.MaxSets {
				set := types.ActiveSet{f.id()}
				name := syncer.Name{Kind: syncer.ActiveSet, ID: set.Hash()}
				f.have[name] = codec.Encode(set)
				f.hear(from, core.TopicDecision, f.decision(set.Hash()))
				delete(f.have, name)
			}
		},
		"ATXs that build on nothing": func(from core.Peer) {
			for range 300 {
				f.hear(from, core.TopicATX, f.atx(f.id(), f.id()))
			}
		},
		"PoET proofs": func(from core.Peer) {
			for range core.MaxUnreferredPoets / 4 {
				f.hear(from, core.TopicPoet, codec.Encode(f.poet()))
			}
		},
		"PoET proofs of ATXs that are not valid": func(from core.Peer) {
			for range 100 {
				m := f.poet()
				name := syncer.Name{Kind: syncer.PoetProof, ID: m.Proof.Ref()}
				f.have[name] = codec.Encode(m)
				f.hear(from, core.TopicATX, f.atx(m.Proof.Ref(), f.w.cfg.Activation.Golden))
				delete(f.have, name)
			}
		},
		"proofs against nobody": func(from core.Peer) {
			for range 200 {
				key := cheapKey(f.id())
				half := func() malfeasance.Signed {
					h := types.Hash32(f.id())
					return malfeasance.Signed{Hash: h, Signature: key.Sign(signing.Ballot, types.LayerAndHash(f.layer(), h))}
				}
				f.hear(from, core.TopicMalfeasance, codec.Encode(malfeasance.FromHashes(malfeasance.TwoBallots, key.NodeID(), f.layer(), half(), half())))
			}
		},
		"junk transactions": func(from core.Peer) {
			for range 20 {
				key, err := signing.NewSigner(signing.SeedFrom(fmt.Sprint(f.id())), f.w.cfg.Activation.Network)
				if err != nil {
					f.t.Fatal(err)
				}
				f.hear(from, core.TopicTx, vm.Spawn(key, 0, 1))
			}
		},
	}
}

// lies are what strangers answer when they are asked about the history and about
// ATXs: certificates of nobody, and made-up ids.
func (f *floods) lies(a syncer.Ask) any {
	if a.Epochs != nil {
		list := &core.EpochsAnswer{ATXs: [][]types.ATXID{nil}}
		for range syncer.MaxWantsPerPeer + 100 {
			list.ATXs[0] = append(list.ATXs[0], f.id())
		}
		return list
	}
	var answer core.LayersAnswer
	for i := range syncer.MaxCertificates {
		d := types.Decision{Layer: a.Layers.From + types.Layer(i), Electorate: f.id(), Parent: f.id(), StateRoot: f.id()}
		key := cheapKey(f.id())
		answer.Certs = append(answer.Certs, types.Certificate{Decision: d, Signatures: []types.CertifySignature{core.Seal(key, types.ATXID{}, d).By}})
	}
	return &answer
}

// asked answers what a step makes the core ask, with lies.
func (f *floods) asked(out core.Output) {
	for _, a := range out.Asks {
		if a.Objects != nil {
			continue // they withhold it
		}
		answer, err := core.CheckAnswer(f.n.crypto, a, codec.Encode(f.lies(a).(codec.Encodable)))
		if err != nil {
			f.t.Fatal(err)
		}
		f.n.give(f.t, core.Answered{Ask: a.ID, Answer: answer})
	}
}

// pass lets time pass, in steps in which everything due comes up.
func (f *floods) pass(d time.Duration, each func(core.Output)) {
	for end := f.w.now.Add(d); f.w.now.Before(end); {
		f.w.now = f.w.now.Add(f.w.cfg.Schedule.LayerDuration / 10)
		each(f.n.give(f.t, core.Tick{}))
	}
}

// Strangers send one core more of everything than it may keep, layer after layer,
// and lie when they are asked. What it holds stays within its limits, in counts and
// in bytes, of all together and of each; and goes when they do.
func TestFloodsFillNoMoreThanTheLimits(t *testing.T) {
	w := lab(t, 5)
	w.run(12, time.Second)
	f := &floods{t: t, w: w, n: w.nodes[0], have: make(offers), most: make(map[string]int)}
	evil := len(f.n.store.evil)
	all := f.all()
	f.meet()
	for _, p := range f.peers { // at once, as the beacon is looked for by whoever is synced
		f.votes(p)
		f.look("votes about the beacon")
	}
	for range nightly(1, 20) {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			f.meet()
			for _, p := range f.peers {
				all[name](p)
				f.look(name)
			}
			f.pass(9*w.cfg.Schedule.LayerDuration/4, func(core.Output) { f.look(name) }) // room for the next
		}
		f.meet()
		f.pass(w.cfg.Schedule.LayerDuration, func(out core.Output) {
			f.asked(out)
			f.look("lies")
		})
	}
	for what, least := range map[string]int{ // else nothing was shown
		"parked messages": core.MaxParked, "bytes of parked messages of one peer": core.MaxParkedBytesPerPeer * 9 / 10, "parked messages of one peer": core.MaxParkedPerPeer,
		"bytes of parked messages": core.MaxParkedBytes * 9 / 10, "objects that one peer named": syncer.MaxWantsPerPeer, "objects that are wanted": syncer.MaxWants,
		"PoET proofs that no ATX refers to": core.MaxUnreferredPoets, "active sets that nothing was decided by": core.MaxSets,
		"different votes for a beacon": len(w.nodes), "proofs against smeshers without an ATX": 1000, "PoET proofs of ATXs that are not judged": 500,
	} {
		if f.most[what] < least {
			t.Errorf("at most %d %s: it was to be %d", f.most[what], what, least)
		}
	}
	if len(f.n.store.evil) != evil {
		t.Errorf("%d proofs against nobody are stored", len(f.n.store.evil)-evil)
	}
	f.n.give(t, core.Peers{Connected: []core.Peer{"n01"}})
	f.pass(6*w.cfg.Schedule.EpochDuration(), func(core.Output) {})
	for _, h := range f.n.m.Held() {
		if h.Now > 0 && slices.Contains([]string{
			"parked messages", "bytes of parked messages", "names that parked messages wait for", "messages of ATXs and ballots that are checked",
			"objects that are wanted", "PoET proofs that no ATX refers to", "PoET proofs of ATXs that are not judged", "answers about the history in work",
		}, h.What) {
			t.Errorf("when all is over it still holds %d %s", h.Now, h.What)
		}
	}
	junk := 0
	for _, m := range f.n.store.poets {
		if m.PoetID == (types.NodeID{1}) {
			junk++
		}
	}
	if junk > 0 {
		t.Errorf("%d PoET proofs that no valid ATX refers to are stored for ever", junk)
	}
	w.result.Violations = nil // a core whose messages nobody delivers follows nobody
}

// The same ATX may come from everybody, and with as many signatures as its smesher
// likes: a few copies of it wait for the end of its check.
func TestTheSameATXWaitsAFewTimes(t *testing.T) {
	w := lab(t, 5)
	cheat, n := w.nodes[0], w.nodes[3]
	w.run(w.cfg.Schedule.First(2)-1, 0)
	a := *cheat.store.atxs[cheat.made[1]]
	a.Coinbase[20]++
	cheat.seal(&a)
	raw := codec.Encode(&a)
	ended, first := 0, n.hearRaw(t, "n04", core.TopicATX, raw)
	for range 1000 {
		ended += len(n.hearRaw(t, "n04", core.TopicATX, raw).Verdicts)
	}
	if len(first.Work) != 1 || ended < 900 {
		t.Errorf("%d of 1000 copies were ended at once", ended)
	}
	out := n.give(t, first.Work[0].Do(n.crypto))
	if ended+len(out.Verdicts) != 1001 || out.Verdicts[0].Class != core.Accept {
		t.Errorf("%d verdicts for 1001 messages, the first %+v", ended+len(out.Verdicts), out.Verdicts[0])
	}
	for _, h := range n.m.Held() {
		if h.What == "messages of ATXs and ballots that are checked" && h.Now != 0 {
			t.Errorf("%d messages still wait", h.Now)
		}
	}
}

// A proof against somebody whose ATX comes later is not lost: it counts from the
// moment at which it came.
func TestAProofWaitsForTheATXOfItsSmesher(t *testing.T) {
	w := lab(t, 5)
	cheat, n := w.nodes[0], w.nodes[3]
	w.run(w.cfg.Schedule.First(1), 0)
	if cheat.made[1] != (types.ATXID{}) {
		t.Fatal("it has an ATX already: begin sooner")
	}
	half := func(i byte) malfeasance.Signed {
		h := types.Hash32{i}
		return malfeasance.Signed{Hash: h, Signature: cheat.key.Sign(signing.Ballot, types.LayerAndHash(4, h))}
	}
	proof := malfeasance.FromHashes(malfeasance.TwoBallots, cheat.key.NodeID(), 4, half(1), half(2))
	at := n.now()
	out := n.hearRaw(t, "n04", core.TopicMalfeasance, codec.Encode(proof))
	if len(out.Verdicts) != 1 || out.Verdicts[0].Class != core.Ignore || len(out.Writes) != 0 {
		t.Fatalf("without an ATX: %+v", out)
	}
	w.run(w.cfg.Schedule.First(2), 5*time.Second)
	if since, ok := n.store.evil[cheat.key.NodeID()]; !ok || !since.Equal(at) {
		t.Errorf("convicted %v, since %v; the proof came at %v", ok, since, at)
	}
	w.result.Violations = nil // the script convicts an honest node
}
