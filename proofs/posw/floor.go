package posw

import "math/bits"

// Floor spends the time that no prover on this processor can undercut for n SHA-256
// compressions in sequence: it runs their 32 n double-round instructions, each waiting
// for the one before, and nothing else. It returns false, at once, where it is not
// written for the processor; so far it is for x86 with SHA-NI.
func Floor(n int) bool {
	run := chosen().floor
	if run == nil {
		return false
	}
	run(n)
	return true
}

// Sequential returns how many SHA-256 compressions follow one another, without a way
// around, in leaves first to end-1 of a tree under a statement of that many bytes:
// the nested hashes, all blocks of the first one, and of each inner node the blocks
// that hold its right child (reference/poet.md 2.1).
func Sequential(statement int, first, end uint64) uint64 {
	perNode := (padded(statement+2*NodeSize) - (statement+NodeSize)/blockSize*blockSize) / blockSize
	var total uint64
	for i := first; i < end; i++ {
		parked, nodes := bits.OnesCount64(i), bits.TrailingZeros64(^i)
		total += uint64(LeafHashes - 1 + padded(statement+8+parked*NodeSize)/blockSize + nodes*perNode)
	}
	return total
}
