package main

import (
	"github.com/spacemeshos/poet/shared"

	"tweedle/proofs/posw"
)

// fromReference and toReference change the form of a proof.
func fromReference(p shared.MerkleProof) posw.Proof {
	convert := func(from [][]byte) (to [][32]byte) {
		for _, b := range from {
			to = append(to, [32]byte(b))
		}
		return to
	}
	return posw.Proof{Root: [32]byte(p.Root), Leaves: convert(p.ProvenLeaves), Nodes: convert(p.ProofNodes)}
}

func toReference(p posw.Proof) shared.MerkleProof {
	convert := func(from [][32]byte) (to [][]byte) {
		for i := range from {
			to = append(to, from[i][:])
		}
		return to
	}
	return shared.MerkleProof{Root: p.Root[:], ProvenLeaves: convert(p.Leaves), ProofNodes: convert(p.Nodes)}
}
