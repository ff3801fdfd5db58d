package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/protocol/eligibility"
	"tweedle/protocol/mesh"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Reasons why a proposal is refused.
var (
	errNotNow      = errors.New("proposal is not of this layer")
	errBallotSig   = errors.New("ballot has a wrong signature")
	errProposalSig = errors.New("proposal has a wrong signature")
	errBallotATX   = errors.New("ballot's ATX does not count for its smesher in its epoch")
	errReference   = errors.New("ballot's reference is of another smesher, ATX or epoch")
	errBeacon      = errors.New("ballot has another beacon")
	errActiveSet   = errors.New("ballot's active set is not of its epoch, or too small")
	errSlots       = errors.New("ballot claims another number of slots than its weight gives")
	errTaken       = errors.New("proposal is known, or its smesher has too many in the layer")
)

// maxProposals is how many proposals of an ATX in a layer are taken: two prove
// that its smesher cheats, more would be a flood.
const maxProposals = 2

// taken remembers the proposals that came by gossip in the newest layers.
type taken struct {
	mu sync.Mutex
	of map[types.Layer]map[types.ATXID][]types.ProposalID
}

// take tells whether a valid proposal is to be taken; it says so once. What
// came before with the same id has another signature of the same smesher.
func (t *taken) take(p proposal) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.of { // only the running layer and its neighbours come here
		if l+1 < p.layer {
			delete(t.of, l)
		}
	}
	ids := t.of[p.layer][p.share.ATX]
	if len(ids) >= maxProposals || slices.Contains(ids, p.id) {
		return false
	}
	if t.of == nil {
		t.of = make(map[types.Layer]map[types.ATXID][]types.ProposalID)
	}
	if t.of[p.layer] == nil {
		t.of[p.layer] = make(map[types.ATXID][]types.ProposalID)
	}
	t.of[p.layer][p.share.ATX] = append(ids, p.id)
	return true
}

// proposal is a valid proposal as the loop needs it.
type proposal struct {
	id    types.ProposalID
	layer types.Layer
	share mesh.Share
	txs   []types.TransactionID
}

// onProposal judges a gossiped proposal.
func (n *Node) onProposal(ctx context.Context, from p2p.PeerID, msg []byte) p2p.Verdict {
	var p types.Proposal
	if err := codec.Decode(msg, &p); err != nil {
		return p2p.Reject("malformed proposal")
	}
	valid, err := n.checkProposal(ctx, from, &p)
	if err != nil {
		return n.judge("proposal", err)
	}
	if err := n.fetchTxs(ctx, from, p.Txs); err != nil {
		return n.judge("proposal", err)
	}
	if !n.taken.take(valid) {
		return n.judge("proposal", errTaken)
	}
	if err := n.db.AddBallot(&p.Ballot); err != nil {
		return n.judge("proposal", err)
	}
	if !n.input(ctx, inputProposal{valid}) {
		return p2p.Ignore("busy")
	}
	return p2p.Accept()
}

// checkProposal validates a proposal (reference/protocol.md A5, A6), cheap
// rules first.
func (n *Node) checkProposal(ctx context.Context, from p2p.PeerID, p *types.Proposal) (proposal, error) {
	b := &p.Ballot
	if now := n.now(); b.Layer != n.schedule.LayerAt(now) && b.Layer != n.schedule.LayerAt(now.Add(n.skew())) {
		return proposal{}, errNotNow
	}
	switch {
	case !n.verifier.Verify(signing.Ballot, b.Smesher, b.SignedBytes(), b.Signature):
		return proposal{}, errBallotSig
	case !n.verifier.Verify(signing.Proposal, b.Smesher, p.SignedBytes(), p.Signature):
		return proposal{}, errProposalSig
	}
	if err := n.wantATXs(ctx, from, []types.ATXID{b.ATX}); err != nil {
		return proposal{}, err
	}
	epoch := n.schedule.EpochOf(b.Layer)
	atx, err := n.db.ATXRecord(b.ATX)
	if err != nil {
		return proposal{}, err
	}
	if atx.Smesher != b.Smesher || atx.PublishEpoch+1 != epoch {
		return proposal{}, errBallotATX
	}
	data, err := n.epochData(ctx, from, b, atx)
	if err != nil {
		return proposal{}, err
	}
	err = eligibility.Verify(n.params.Eligibility(), eligibility.Claim{
		Smesher: b.Smesher, Layer: b.Layer, Beacon: data.Beacon, VRFNonce: atx.VRFNonce,
		Slots: data.Eligibilities, Proofs: b.Eligibilities,
	}, signing.VerifyVRF)
	if err != nil {
		return proposal{}, err
	}
	share := mesh.Share{
		ATX: b.ATX, Weight: atx.Weight, BaseHeight: atx.BaseHeight,
		Slots: data.Eligibilities, Proofs: len(b.Eligibilities),
	}
	return proposal{p.ID(), b.Layer, share, p.Txs}, nil
}

// skew is how far another node's clock may be ahead of ours.
func (n *Node) skew() time.Duration { return n.params.LayerDuration / 4 }

// epochData returns what a ballot's reference ballot, or the ballot itself,
// declares for the epoch.
func (n *Node) epochData(ctx context.Context, from p2p.PeerID, b *types.Ballot, atx store.ATXRecord) (*types.EpochData, error) {
	if b.EpochData != nil {
		return b.EpochData, n.checkEpochData(ctx, from, b, atx)
	}
	ref, err := n.db.Ballot(b.Reference)
	if errors.Is(err, store.ErrNotFound) {
		got, err := n.fetch(ctx, from, objectsRequest{name20(store.KindBallot, b.Reference)})
		if err != nil {
			return nil, err
		}
		ref = &types.Ballot{}
		if err := codec.Decode(got[0], ref); err != nil {
			return nil, err
		}
		if err := n.checkReference(ctx, from, b, ref, atx); err != nil {
			return nil, err
		}
		return ref.EpochData, n.db.AddBallot(ref)
	}
	if err != nil {
		return nil, err
	}
	if !refersTo(b, ref, n.schedule) {
		return nil, errReference
	}
	return ref.EpochData, nil
}

func refersTo(b, ref *types.Ballot, s types.Schedule) bool {
	return ref.EpochData != nil && ref.Smesher == b.Smesher && ref.ATX == b.ATX && s.EpochOf(ref.Layer) == s.EpochOf(b.Layer)
}

// checkReference validates a reference ballot that we have not seen gossiped.
func (n *Node) checkReference(ctx context.Context, from p2p.PeerID, b, ref *types.Ballot, atx store.ATXRecord) error {
	switch {
	case !refersTo(b, ref, n.schedule):
		return errReference
	case !n.verifier.Verify(signing.Ballot, ref.Smesher, ref.SignedBytes(), ref.Signature):
		return errBallotSig
	}
	return n.checkEpochData(ctx, from, ref, atx)
}

// checkEpochData validates what a reference ballot declares: our beacon, an
// active set that we know and that is most of what we know, and the slots that
// follow from it.
func (n *Node) checkEpochData(ctx context.Context, from p2p.PeerID, b *types.Ballot, atx store.ATXRecord) error {
	epoch := n.schedule.EpochOf(b.Layer)
	value, err := n.epochs.Beacon(epoch)
	if err != nil {
		return err
	}
	if b.EpochData.Beacon != value {
		return fmt.Errorf("%w: %s, ours is %s", errBeacon, b.EpochData.Beacon, value)
	}
	total, err := n.activeWeight(ctx, from, epoch, b.EpochData.ActiveSet)
	if err != nil {
		return err
	}
	if eligibility.Slots(n.params.Eligibility(), atx.Weight, total) != b.EpochData.Eligibilities {
		return errSlots
	}
	return nil
}

// activeWeight returns the weight of a declared active set. The set must have
// more than two thirds of the weight that we know of: a smaller one would give
// its smesher more slots than its share.
func (n *Node) activeWeight(ctx context.Context, from p2p.PeerID, epoch types.Epoch, hash types.Hash32) (uint64, error) {
	el, err := n.epochs.Electorate(epoch)
	if err != nil {
		return 0, err
	}
	if el.ids.Hash() == hash {
		return el.total, nil
	}
	set, err := n.db.ActiveSet(hash)
	if errors.Is(err, store.ErrNotFound) {
		got, err := n.fetch(ctx, from, objectsRequest{name(store.KindActiveSet, hash)})
		if err != nil {
			return 0, err
		}
		if err := codec.Decode(got[0], &set); err != nil {
			return 0, err
		}
	} else if err != nil {
		return 0, err
	}
	if err := n.wantATXs(ctx, from, set); err != nil {
		return 0, err
	}
	if el, err = n.epochs.Electorate(epoch); err != nil {
		return 0, err
	}
	var sum uint64
	for i, id := range set {
		h, ok := el.atxs[id]
		if !ok || i > 0 && string(set[i-1][:]) >= string(id[:]) {
			return 0, errActiveSet
		}
		sum += h.Weight
	}
	if sum < el.total-el.total/3 {
		return 0, errActiveSet
	}
	return sum, n.db.AddActiveSet(set)
}

// wantATXs fetches and adds those ATXs that we do not have.
func (n *Node) wantATXs(ctx context.Context, from p2p.PeerID, ids []types.ATXID) error {
	var want objectsRequest
	for _, id := range ids {
		known, err := n.db.Has(store.KindATX, id[:])
		if err != nil {
			return err
		}
		if !known {
			want = append(want, name(store.KindATX, id))
		}
	}
	got, err := n.fetch(ctx, from, want)
	if err != nil {
		return err
	}
	for _, b := range got {
		var a types.ATX
		if err := codec.Decode(b, &a); err != nil {
			return err
		}
		if _, err := n.addATXFrom(ctx, from, &a); err != nil {
			return err
		}
	}
	return nil
}

// fetchTxs gets and stores the transactions that we do not have.
func (n *Node) fetchTxs(ctx context.Context, from p2p.PeerID, ids []types.TransactionID) error {
	var want objectsRequest
	for _, id := range ids {
		known, err := n.db.Has(store.KindTransaction, id[:])
		if err != nil {
			return err
		}
		if !known {
			want = append(want, name(store.KindTransaction, id))
		}
	}
	got, err := n.fetch(ctx, from, want)
	if err != nil {
		return err
	}
	for _, raw := range got {
		if len(raw) > types.MaxTransactionSize {
			return errTxSize
		}
		if err := n.storeTx(raw); err != nil {
			return err
		}
	}
	return nil
}

// propose publishes our proposal for a layer, if we have a slot in it.
func (n *Node) propose(now time.Time, layer types.Layer) error {
	epoch := n.schedule.EpochOf(layer)
	el, err := n.epochs.Electorate(epoch)
	if err != nil {
		return err
	}
	atx, ok := el.of(n.signer.NodeID())
	if !ok {
		return nil
	}
	ballot, slots, err := n.ballot(layer, el, atx)
	if err != nil || ballot == nil {
		return err
	}
	p := &types.Proposal{
		Ballot:   *ballot,
		Txs:      n.offer(ballot),
		MeshHash: n.chain.Tip().State.Root(),
	}
	p.Signature = n.signer.Sign(signing.Proposal, p.SignedBytes())
	// If we stop before the guard holds, nothing was sent; the next start may
	// propose something else for a later layer, never for this one.
	if err := n.guard(signing.Ballot, layer, types.Sum(ballot.SignedBytes())); err != nil {
		return err
	}
	if err := n.guard(signing.Proposal, layer, types.Sum(p.SignedBytes())); err != nil {
		return err
	}
	if err := n.db.AddBallot(ballot); err != nil {
		return err
	}
	n.send(topicProposal, codec.Encode(p))
	share := mesh.Share{ATX: atx.ID, Weight: atx.Weight, BaseHeight: atx.BaseHeight, Slots: slots, Proofs: len(ballot.Eligibilities)}
	n.addProposal(now, proposal{p.ID(), layer, share, p.Txs})
	return nil
}

// offer picks the transactions of our proposal; the choice differs from ballot
// to ballot.
func (n *Node) offer(b *types.Ballot) []types.TransactionID {
	id := b.ID()
	limit := min(n.params.TxsPerProposal*len(b.Eligibilities), types.MaxProposalTxs)
	var ids []types.TransactionID
	for _, tx := range n.pool.Select(types.Sum([]byte("proposal"), id[:]), limit) {
		ids = append(ids, tx.Raw.ID())
	}
	return ids
}

// ballot returns our signed ballot for a layer with our slots in the epoch, or
// nil if none of them is in this layer.
func (n *Node) ballot(layer types.Layer, el *electorate, atx store.ATXRecord) (*types.Ballot, uint32, error) {
	first := n.schedule.First(el.epoch)
	ref, err := n.db.ReferenceBallot(n.signer.NodeID(), first, first+types.Layer(n.params.LayersPerEpoch)-1)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, 0, err
	}
	b := &types.Ballot{Layer: layer, ATX: atx.ID, Smesher: n.signer.NodeID(), Opinion: n.chain.Tip().State.Root()}
	var data types.EpochData
	if err == nil && ref.ATX == atx.ID {
		data, b.Reference = *ref.EpochData, ref.ID()
	} else {
		if data.Beacon, err = n.epochs.Beacon(el.epoch); err != nil {
			return nil, 0, err
		}
		data.ActiveSet = el.ids.Hash()
		data.Eligibilities = eligibility.Slots(n.params.Eligibility(), atx.Weight, el.total)
		if err := n.db.AddActiveSet(el.ids); err != nil {
			return nil, 0, err
		}
		b.EpochData = &data
	}
	b.Eligibilities = n.slots(el.epoch, data, atx.VRFNonce)[layer]
	if len(b.Eligibilities) == 0 {
		return nil, 0, nil
	}
	b.Signature = n.signer.Sign(signing.Ballot, b.SignedBytes())
	return b, data.Eligibilities, nil
}

// assigned are our slots of one epoch.
type assigned struct {
	epoch  types.Epoch
	data   types.EpochData
	layers map[types.Layer][]types.Eligibility
}

// slots computes our slots once for an epoch.
func (n *Node) slots(epoch types.Epoch, data types.EpochData, vrfNonce uint64) map[types.Layer][]types.Eligibility {
	if n.assigned.layers == nil || n.assigned.epoch != epoch || n.assigned.data != data {
		n.assigned = assigned{epoch, data, eligibility.Assign(
			n.params.Eligibility(), n.signer, data.Beacon, epoch, vrfNonce, data.Eligibilities)}
	}
	return n.assigned.layers
}
