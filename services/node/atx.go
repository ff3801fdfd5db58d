package node

import (
	"context"
	"errors"
	"fmt"

	"tweedle/edges/api"
	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/proofs/post"
	"tweedle/protocol/activation"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// errSecondATX is what a smesher gets who publishes twice in an epoch.
var errSecondATX = errors.New("smesher has another ATX in this epoch")

// maxDependencies bounds the unknown ATXs that validating one may pull in.
const maxDependencies = 4096

// view answers package activation from the store.
type view struct{ n *Node }

// ATX implements activation.View.
func (v view) ATX(id types.ATXID) (*activation.Info, error) {
	r, err := v.n.db.ATXRecord(id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return &r.Info, err
}

// Poet implements activation.View.
func (v view) Poet(ref types.PoetProofRef) (*activation.Poet, error) { return v.n.poetView(ref) }

// Highest implements activation.Positions.
func (n *Node) Highest(before types.Epoch) (types.ATXID, bool) {
	if before == 0 {
		return types.ATXID{}, false
	}
	h, err := n.db.HighestATX(before - 1)
	return h.ID, err == nil
}

// addATX validates an ATX and stores it. A *activation.Missing error names
// what must be added first. An ATX that comes from several sides at once is
// verified once; the id does not cover the signature, so it is not enough to
// tell that two are the same.
func (n *Node) addATX(a *types.ATX) (*activation.Info, error) {
	whole := types.Sum(codec.Encode(a))
	info, err, _ := n.adding.Do(string(whole[:]), func() (any, error) {
		known, err := n.db.ATX(a.ID())
		switch {
		case err == nil:
			return n.knownATX(a, known)
		case !errors.Is(err, store.ErrNotFound):
			return nil, err
		}
		return n.verifyATX(a)
	})
	if err != nil {
		return nil, err
	}
	return info.(*activation.Info), nil
}

// knownATX judges an ATX whose content we have: what we passed on with a wrong
// signature would be refused by whoever does not have it yet.
func (n *Node) knownATX(a, known *types.ATX) (*activation.Info, error) {
	id := a.ID()
	switch {
	case a.Signature == known.Signature:
		return view{n}.ATX(id)
	case !n.verifier.Verify(signing.ATX, a.SmesherID, id[:], a.Signature):
		return nil, activation.ErrSignature
	}
	return nil, fmt.Errorf("%w: %s, signed again", errSecondATX, id.Short())
}

// verifyATX validates and stores. The labels to recompute are chosen by our
// peer id, so that the nodes of a network together check more than each.
func (n *Node) verifyATX(a *types.ATX) (*activation.Info, error) {
	info, err := activation.Validate(n.activation, a, n.epoch(), view{n}, post.Subset([]byte(n.host.ID())))
	if err != nil {
		return nil, err
	}
	n.addingATX.Lock()
	defer n.addingATX.Unlock()
	if other, err := n.db.SmesherATX(a.SmesherID, a.PublishEpoch); err == nil && other.ID != info.ID {
		return nil, fmt.Errorf("%w: %s", errSecondATX, other.ID.Short())
	}
	received := n.now()
	if err := n.db.AddATX(a, info, received); err != nil {
		return nil, err
	}
	n.events.Publish(api.Activated{ATXRecord: store.ATXRecord{Info: *info, Received: received}})
	n.epochs.added(a.PublishEpoch)
	if n.epoch() >= a.TargetEpoch() {
		n.heavier.add(a.TargetEpoch())
	}
	n.log.Info("ATX", "id", info.ID.Short(), "smesher", a.SmesherID.Short(), "epoch", a.PublishEpoch, "weight", info.Weight)
	return info, nil
}

// addATXFrom is addATX of something that peer p sent; what is missing is
// fetched from p first, oldest first.
func (n *Node) addATXFrom(ctx context.Context, p p2p.PeerID, a *types.ATX) (*activation.Info, error) {
	pending := []*types.ATX{a}
	for range maxDependencies {
		last := pending[len(pending)-1]
		info, err := n.addATX(last)
		var missing *activation.Missing
		switch {
		case errors.As(err, &missing):
			more, err := n.fetchDependencies(ctx, p, missing)
			if err != nil {
				return nil, err
			}
			pending = append(pending, more...)
		case err != nil:
			return nil, err
		case len(pending) == 1:
			return info, nil
		default:
			pending = pending[:len(pending)-1]
		}
	}
	return nil, errTooDeep
}

// errTooDeep says that an ATX builds on more unknown ones than we fetch.
var errTooDeep = errors.New("ATX builds on too many unknown ones")

// fetchDependencies gets what an ATX refers to: PoET proofs are stored, ATXs
// are returned to be validated.
func (n *Node) fetchDependencies(ctx context.Context, p p2p.PeerID, m *activation.Missing) ([]*types.ATX, error) {
	var want objectsRequest
	for _, ref := range m.Poets {
		want = append(want, name(store.KindPoetProof, ref))
	}
	for _, id := range m.ATXs {
		want = append(want, name(store.KindATX, id))
	}
	got, err := n.fetch(ctx, p, want)
	if err != nil {
		return nil, err
	}
	for i := range m.Poets {
		var msg types.PoetProofMessage
		if err := codec.Decode(got[i], &msg); err != nil {
			return nil, errPoetForm
		}
		if _, err := n.addPoet(&msg); err != nil {
			return nil, err
		}
	}
	var atxs []*types.ATX
	for i := range m.ATXs {
		var a types.ATX
		if err := codec.Decode(got[len(m.Poets)+i], &a); err != nil {
			return nil, err
		}
		atxs = append(atxs, &a)
	}
	return atxs, nil
}

// onATX judges a gossiped ATX.
func (n *Node) onATX(ctx context.Context, from p2p.PeerID, msg []byte) p2p.Verdict {
	var a types.ATX
	if err := codec.Decode(msg, &a); err != nil {
		return p2p.Reject("malformed ATX")
	}
	_, err := n.addATXFrom(ctx, from, &a)
	if err == nil {
		return p2p.Accept()
	}
	return n.judge("ATX", err)
}

// judge turns the error of a message into a verdict: what no honest peer
// would send costs the sender, what we could not decide does not.
func (n *Node) judge(what string, err error) p2p.Verdict {
	var remote *p2p.RemoteError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.As(err, &remote),
		errors.Is(err, errMissing), errors.Is(err, errTooDeep), errors.Is(err, errSecondATX), errors.Is(err, activation.ErrFuture),
		errors.Is(err, errNotNow), errors.Is(err, errTaken), errors.Is(err, errBeacon), errors.Is(err, errActiveSet), isNetwork(err):
		return p2p.Ignore(err.Error())
	case n.storeFailed(err):
		return p2p.Ignore("we could not store it")
	}
	n.log.Warn("refused "+what, "err", err)
	return p2p.Reject(err.Error())
}

// isNetwork tells an error of asking a peer.
func isNetwork(err error) bool {
	for _, e := range []error{
		p2p.ErrNotRunning, p2p.ErrNotConnected, p2p.ErrUnsupported, p2p.ErrBusy,
		p2p.ErrRateLimited, p2p.ErrTooLarge, p2p.ErrTimeout, p2p.ErrBroken,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
