package main

import (
	"github.com/spacemeshos/poet/shared"

	"tweedle/values/types"
)

// fromReference and toReference change the form of a proof.
func fromReference(p shared.MerkleProof, leaves uint64) types.PoetProof {
	convert := func(from [][]byte) (to []types.Hash32) {
		for _, b := range from {
			to = append(to, types.Hash32(b))
		}
		return to
	}
	return types.PoetProof{Root: types.Hash32(p.Root), Leaves: convert(p.ProvenLeaves), Nodes: convert(p.ProofNodes), NumLeaves: leaves}
}

func toReference(p *types.PoetProof) shared.MerkleProof {
	convert := func(from []types.Hash32) (to [][]byte) {
		for i := range from {
			to = append(to, from[i][:])
		}
		return to
	}
	return shared.MerkleProof{Root: p.Root[:], ProvenLeaves: convert(p.Leaves), ProofNodes: convert(p.Nodes)}
}
