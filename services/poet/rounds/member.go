package rounds

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tweedle/services/poet"
	"tweedle/services/poet/book"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// Member returns a registration with its membership proof, once its round is
// closed; ErrNotFound before, and if there is no such member.
func (s *Service) Member(round string, nodeID []byte) (poet.MembershipProof, error) {
	number, err := poet.ParseRoundID(round)
	if err != nil {
		return poet.MembershipProof{}, err
	}
	if len(nodeID) != len(types.NodeID{}) {
		return poet.MembershipProof{}, fmt.Errorf("public key has %d bytes: %w", len(nodeID), poet.ErrInvalid)
	}
	r, found, err := s.store.Round(number)
	if err != nil {
		return poet.MembershipProof{}, err
	}
	if !found || r.State < poet.StateExecuting {
		return poet.MembershipProof{}, fmt.Errorf("round %s has no membership root yet: %w", round, poet.ErrNotFound)
	}
	tree, err := s.trees.Get(context.Background(), s.store, number)
	if err != nil {
		return poet.MembershipProof{}, err
	}
	m, index, proof, err := tree.Prove(s.store, number, [32]byte(nodeID))
	if errors.Is(err, poet.ErrNotFound) {
		return poet.MembershipProof{}, fmt.Errorf("%x is no member of round %s: %w", nodeID, round, poet.ErrNotFound)
	}
	if err != nil {
		return poet.MembershipProof{}, err
	}
	out := poet.MembershipProof{
		Round: round, NodeID: types.NodeID(nodeID), Challenge: m.Challenge, Time: time.UnixMilli(m.Time),
		Index: index, Members: tree.Count, Statement: r.Statement, Proof: proof,
	}
	if merkle.Verify(out.Statement, out.Challenge, out.Index, out.Members, out.Proof) != nil {
		return poet.MembershipProof{}, fmt.Errorf("%s: members of round %s do not give its root: %w: restore the file from a copy", book.DatabaseName, round, poet.ErrDamaged)
	}
	return out, nil
}
