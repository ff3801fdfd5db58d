package sim

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"tweedle/protocol/activation"
	"tweedle/protocol/core"
	"tweedle/protocol/syncer"
	"tweedle/protocol/tortoise"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// reads counts the rows that a core has its store look up. On a disk one takes some 20 to 50 us, and nothing
// else is done meanwhile.
type reads struct {
	core.Reader
	n     int
	loads int // of ATXs of whole epochs
	many  int // ATXs that each epoch has beside those that are stored
}

func (r *reads) Ballot(id types.BallotID) (*types.Ballot, error) {
	r.n++
	return r.Reader.Ballot(id)
}

func (r *reads) LayerBallots(l types.Layer) ([]*types.Ballot, error) {
	out, err := r.Reader.LayerBallots(l)
	r.n += 1 + len(out)
	return out, err
}

func (r *reads) ATXEntry(id types.ATXID) (*activation.Entry, error) {
	r.n++
	return r.Reader.ATXEntry(id)
}

func (r *reads) EpochEntries(e types.Epoch) ([]activation.Entry, error) {
	out, err := r.Reader.EpochEntries(e)
	for i := range r.many {
		var a activation.Entry
		a.ID, a.Smesher, a.PublishEpoch = types.ATXID{1, byte(i), byte(i >> 8), byte(e)}, types.NodeID{1, byte(i), byte(i >> 8)}, e
		out = append(out, a)
	}
	r.n += 1 + len(out)
	r.loads += len(out)
	return out, err
}

func (r *reads) ActiveSet(h types.Hash32) (types.ActiveSet, error) {
	r.n++
	return r.Reader.ActiveSet(h)
}

func (r *reads) Block(id types.BlockID) (*types.Block, error) {
	r.n++
	return r.Reader.Block(id)
}

func (r *reads) Transaction(id types.TransactionID) (types.Transaction, error) {
	r.n++
	return r.Reader.Transaction(id)
}

func (r *reads) Decisions(from types.Layer, limit int) ([]types.Decision, error) {
	out, err := r.Reader.Decisions(from, limit)
	r.n += 1 + len(out)
	return out, err
}

// counting starts a node from its store with a core whose reads are counted.
func (n *node) counting(t *testing.T) *reads {
	t.Helper()
	r := &reads{Reader: n.store}
	cfg := n.w.cfg
	cfg.Crypto, cfg.Identities = n.crypto, n.identities()
	m, err := core.New(cfg, n.now(), r)
	if err != nil {
		t.Fatal(err)
	}
	n.m, r.n = m, 0
	return r
}

// maxReads is how many rows may be read because of one answer: some 20 to 40 ms.
const maxReads = 1100

// A node that is behind with what is final asks for lists of ballots. Who lists as many as fit, of old
// layers that are stored here or made up, has nothing read for it; and those of an honest list that are not here are
// asked for.
func TestALongListOfBallotsIsReadForNothing(t *testing.T) {
	w := newWorld(Options{Seed: 11, Nodes: 4, Epochs: 2, Layers: 40, Hostile: []string{}, Strangers: []string{}, Poets: []string{}, Clients: []string{}, Faults: calm()})
	s := w.cfg.Schedule
	cut := s.FirstBallotLayer() + 2*w.cfg.Tortoise.Window
	w.run(cut, -time.Second)
	w.split(map[*node]bool{w.nodes[0]: true, w.nodes[1]: true})
	w.run(cut+w.cfg.Tortoise.Zdist+6, time.Second)
	n, other := w.nodes[3], w.nodes[0]
	stored, err := n.store.BallotIDs(0, syncer.MaxIDs)
	if err != nil {
		t.Fatal(err)
	}
	final := stored[0] // of a layer that is final; the node has forgotten the ballot
	body, err := n.store.Object(syncer.Name20(syncer.Ballot, final))
	if err != nil {
		t.Fatal(err)
	}
	delete(n.store.ballots, final)
	n.store.byLayer[other.store.ballots[final].Layer] = nil
	old, made := syncer.MaxIDs/2, syncer.MaxIDs/4
	for i := range old {
		n.store.ballots[types.BallotID{1, byte(i), byte(i >> 8)}] = &types.Ballot{Layer: 1}
	}
	r := n.counting(t)
	n.give(t, core.Peers{Connected: []core.Peer{"n00"}})
	ask := n.historyAsk(t)
	if ask.Layers.Ballots == 0 {
		t.Fatal("it is not behind")
	}
	theirs, err := other.store.BallotIDs(ask.Layers.Ballots, syncer.MaxIDs)
	if err != nil {
		t.Fatal(err)
	}
	list := append(append([]types.BallotID{}, stored...), theirs...)
	for i := range old {
		list = append(list, types.BallotID{1, byte(i), byte(i >> 8)})
	}
	for i := range made {
		list = append(list, types.BallotID{2, byte(i), byte(i >> 8)})
	}
	answer, err := core.CheckAnswer(n.crypto, ask, codec.Encode(&core.LayersAnswer{Ballots: list}))
	if err != nil {
		t.Fatal(err)
	}
	r.n = 0
	out := n.give(t, core.Answered{Ask: ask.ID, Answer: answer})
	if r.n > maxReads {
		t.Errorf("%d rows are read for a list of %d ballots", r.n, len(list))
	}
	asked := make(map[types.BallotID]bool)
	for _, a := range out.Asks {
		for _, name := range a.Objects {
			if name.Kind == syncer.Ballot {
				asked[types.BallotID(name.ID[:20])] = true
			}
		}
	}
	for _, id := range stored {
		if b := n.store.ballots[id]; b != nil && asked[id] && b.Layer >= ask.Layers.Ballots {
			t.Errorf("a ballot of layer %d is asked for that is here", b.Layer)
		}
	}
	for _, id := range theirs {
		if n.store.ballots[id] == nil && !asked[id] {
			t.Errorf("a ballot of layer %d is not asked for", other.store.ballots[id].Layer)
		}
	}
	// One that is final is not worth the proofs of its slots.
	if !asked[final] {
		t.Fatal("the ballot that is not here is not asked for")
	}
	for _, out := range n.feed(t, offers{syncer.Name20(syncer.Ballot, final): body}, out) {
		for _, work := range out.Work {
			if c, ok := work.(core.CheckSlots); ok && c.Ballot == final {
				t.Error("an old ballot is checked")
			}
		}
	}
	w.result.Violations = nil // the script stored what nobody signed
}

// A node that begins its votes anew, as its records are too old or gone, has to know what its whole history is about. It
// reads that in parts, and others have their turn in between.
func TestALongHistoryIsReadInParts(t *testing.T) {
	w := newWorld(Options{Seed: 11, Nodes: 4, Epochs: 2, Layers: 160, Hostile: []string{}, Strangers: []string{}, Poets: []string{}, Clients: []string{}, Faults: calm()})
	s := w.cfg.Schedule
	w.run(s.FirstBallotLayer()+230, 10*time.Second)
	n, other := w.nodes[3], w.nodes[0]
	clear(n.store.votes)
	r := n.counting(t)
	var said *tortoise.Record
	step := func(in core.Input) core.Output {
		r.n = 0
		out := n.give(t, in)
		if r.n > maxReads {
			t.Errorf("%d rows are read for a %T", r.n, in)
		}
		for _, write := range out.Writes {
			if o, ok := write.(core.WriteOpinion); ok && o.Anew {
				said = &o.Record
			}
		}
		return out
	}
	var parts int
	for queue := []core.Input{core.Peers{Connected: []core.Peer{"n00"}}}; said == nil && w.now.Before(s.LayerStart(s.FirstBallotLayer()+232)); queue = queue[1:] {
		out := step(queue[0])
		if r.n > 64 {
			parts++
		}
		for _, a := range out.Asks {
			if a.Objects != nil {
				continue
			}
			lib := other.store.library()
			lib.now = w.now
			raw, err := core.Serve(lib, codec.Encode(core.RequestOf(a)))
			if err != nil {
				t.Fatal(err)
			}
			answer, err := core.CheckAnswer(n.crypto, a, raw)
			if err != nil {
				t.Fatal(err)
			}
			queue = append(queue, core.Answered{Ask: a.ID, Answer: answer})
		}
		if len(queue) == 1 {
			w.now = out.Wake
			queue = append(queue, core.Tick{})
		}
	}
	if said == nil {
		t.Fatalf("it does not vote: %s", n.m.Snapshot().Reason)
	}
	if parts < 3 {
		t.Errorf("the history was read in %d parts", parts)
	}
	var opinion types.Hash32
	for l := s.FirstBallotLayer(); l <= said.Layer; l++ {
		var c tortoise.Choice
		if i := n.store.at(l); i < len(n.store.layers) && n.store.layers[i].decision.Layer == l {
			c.Block = n.store.layers[i].decision.Block
			c.Height = n.store.blocks[c.Block].TickHeight
		}
		opinion = c.After(opinion)
	}
	if said.Opinion != opinion {
		t.Errorf("it says %v of the layers up to %d, and its history is %v", said.Opinion, said.Layer, opinion)
	}
}

// watch makes a node's core say how many rows a Step reads at most, until it asks for nothing more that the script has.
func (r *reads) watch(t *testing.T, n *node, have offers, in core.Input, what string) {
	t.Helper()
	most := 0
	for queue := []core.Input{in}; len(queue) > 0; queue = queue[1:] {
		r.n = 0
		out := n.give(t, queue[0])
		most = max(most, r.n)
		for _, a := range out.Asks {
			if in, ok := n.offered(t, have, a); ok {
				queue = append(queue, in)
			}
		}
	}
	if most > maxReads {
		t.Errorf("%d rows are read in one Step for %s", most, what)
	}
}

// Anybody can sign for an active set that somebody made of ids that there are nowhere, or only in other epochs: when the set comes,
// all that waited for it is judged.
func TestASetOfNobodyIsReadForNothing(t *testing.T) {
	w := lab(t, 5)
	w.run(30, time.Second)
	n := w.nodes[4]
	r := n.counting(t)
	r.watch(t, n, nil, core.Peers{Connected: []core.Peer{"stranger"}}, "a peer")
	var set types.ActiveSet
	for i := range 100_000 {
		set = append(set, types.ATXID{1, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	name := syncer.Name{Kind: syncer.ActiveSet, ID: set.Hash()}
	var asks []syncer.Ask
	for i := range 2000 {
		stranger := w.key(fmt.Sprint("stranger", i))
		d := types.Decision{Layer: 30, Electorate: name.ID, Block: types.BlockID{byte(i), byte(i >> 8)}}
		m := core.Seal(stranger, types.ATXID{}, d)
		asks = append(asks, n.hearRaw(t, "stranger", core.TopicDecision, codec.Encode(m)).Asks...)
	}
	for _, a := range asks {
		if !slices.Contains(a.Objects, name) {
			continue
		}
		answer, err := core.CheckAnswer(n.crypto, a, codec.Encode(core.ObjectsAnswer{codec.Encode(set)}))
		if err != nil {
			t.Fatal(err)
		}
		r.watch(t, n, nil, core.Answered{Ask: a.ID, Answer: answer}, "a set of nobody")
		return
	}
	t.Error("nobody is asked for the set")
}

// In a row of decisions that a peer gives only the last has signatures, and whose they are is seen when it comes to it. What
// blocks before it are said to hold is not looked for all at once.
func TestABlockOfMadeUpTransactionsIsReadForNothing(t *testing.T) {
	w := lab(t, 5)
	w.run(30, time.Second)
	n := w.nodes[4]
	r := n.counting(t)
	n.give(t, core.Peers{Connected: []core.Peer{"n00"}})
	ask := n.historyAsk(t)
	on := n.store.layers[len(n.store.layers)-3].decision
	have := make(offers)
	var certs []types.Certificate
	for l := on.Layer + 1; l <= 30; l++ {
		set := atxsOf(w.cfg.Schedule.EpochOf(l), w.nodes...)
		have[syncer.Name{Kind: syncer.ActiveSet, ID: set.Hash()}] = codec.Encode(set)
		d, b := w.empty(l, on, set)
		for i := range types.MaxBlockTxs {
			b.Txs = append(b.Txs, types.TransactionID{byte(l), byte(i >> 16), byte(i >> 8), byte(i)})
		}
		d.Block = b.ID()
		have[syncer.Name20(syncer.Block, d.Block)] = codec.Encode(b)
		certs = append(certs, types.Certificate{Decision: d})
		on = d
	}
	certs[len(certs)-1] = signed(on, w.nodes[0])
	r.watch(t, n, have, n.shown(t, ask, certs...), "blocks of made-up transactions")
	for range 20 { // it wasted our time, and is not asked for a while
		w.now = w.now.Add(w.cfg.Schedule.LayerDuration / 8)
		r.watch(t, n, have, core.Tick{}, "blocks of made-up transactions")
	}
	for _, h := range n.m.Held() {
		if h.What == "names that parked messages wait for" && h.Now < len(certs)-1 {
			t.Errorf("%d names are waited for: the blocks did not come", h.Now)
		}
	}
	w.result.Violations = nil // the script signs for honest nodes
}

// A node that is far behind asks for the ATXs of many epochs. Of those that it has to read to compare a list with them it reads
// few at a time, and comes to the end of the list all the same.
func TestAListOfManyEpochsIsComparedInParts(t *testing.T) {
	w := newWorld(Options{Seed: 5, Nodes: 5, Epochs: 30, Hostile: []string{}, Strangers: []string{}, Faults: calm()})
	w.run(w.cfg.Schedule.First(30), time.Second)
	n := w.nodes[4]
	n.store.layers = n.store.layers[:1]
	clear(n.store.votes)
	r := n.counting(t)
	r.many = 400
	asks := n.give(t, core.Peers{Connected: []core.Peer{"n00"}}).Asks
	i := slices.IndexFunc(asks, func(a syncer.Ask) bool { return a.Epochs != nil })
	if i < 0 || asks[i].Epochs.To < asks[i].Epochs.From+25 {
		t.Fatalf("it asks for %+v", asks)
	}
	var list core.EpochsAnswer
	for e := asks[i].Epochs.From; e <= asks[i].Epochs.To; e++ {
		ids, err := w.nodes[0].store.EpochATXs(e)
		if err != nil {
			t.Fatal(err)
		}
		list.ATXs = append(list.ATXs, append([]types.ATXID{{31: byte(e)}}, ids...))
	}
	answer, err := core.CheckAnswer(n.crypto, asks[i], codec.Encode(&list))
	if err != nil {
		t.Fatal(err)
	}
	in := core.Input(core.Answered{Ask: asks[i].ID, Answer: answer})
	for range 30 {
		r.loads = 0
		out := n.give(t, in)
		if r.loads > 2000 { // an epoch goes beyond the thousand, and the running one may be read, too
			t.Errorf("%d ATXs of whole epochs are read in one Step", r.loads)
		}
		w.now, in = out.Wake, core.Tick{}
	}
	if wanted := n.m.Snapshot().Wanted; wanted < len(list.ATXs) {
		t.Errorf("%d of %d ATXs that are not here are wanted", wanted, len(list.ATXs))
	}
	w.result.Violations = nil // the script took the history of one away
}

// A peer may show thousands of signatures under a decision that is not certified. If the list of those who may sign is not here, one
// of them asks for it.
func TestSignaturesByAnUnknownSetAreReadForNothing(t *testing.T) {
	w := lab(t, 5)
	w.run(30, time.Second)
	n := w.nodes[4]
	r := n.counting(t)
	n.give(t, core.Peers{Connected: []core.Peer{"n00"}})
	ask := n.historyAsk(t)
	open := types.Certificate{Decision: types.Decision{Layer: 30, Electorate: types.Hash32{1}, Block: types.BlockID{1}}}
	for i := range 2 * maxReads {
		stranger := w.key(fmt.Sprint("stranger", i))
		open.Signatures = append(open.Signatures, core.Seal(stranger, types.ATXID{}, open.Decision).By)
	}
	slices.SortFunc(open.Signatures, func(a, b types.CertifySignature) int { return bytes.Compare(a.Smesher[:], b.Smesher[:]) })
	answer, err := core.CheckAnswer(n.crypto, ask, codec.Encode(&core.LayersAnswer{Open: []types.Certificate{open}}))
	if err != nil {
		t.Fatal(err)
	}
	r.watch(t, n, nil, core.Answered{Ask: ask.ID, Answer: answer}, "signatures by a set that is not here")
	if wanted := n.m.Snapshot().Wanted; wanted == 0 {
		t.Error("the set is not asked for")
	}
}
