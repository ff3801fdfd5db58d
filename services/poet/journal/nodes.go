package journal

import (
	"slices"

	"tweedle/proofs/posw"
)

// blockSize is the unit of memory for nodes, in bytes.
const blockSize = 1 << 20

// list holds nodes in blocks, so that it grows without being copied. Every block
// but the last is full.
type list struct{ blocks [][]byte }

// put stores nodes from index at on, over what is there. What it skips is zero.
func (l *list) put(at uint64, nodes []byte) {
	for off := at * posw.NodeSize; len(nodes) > 0; {
		block, in := int(off/blockSize), int(off%blockSize)
		end := min(in+len(nodes), blockSize)
		l.grow(block, end)
		n := copy(l.blocks[block][in:end], nodes)
		nodes, off = nodes[n:], off+uint64(n)
	}
}

// grow makes a block at least size bytes long, and those before it full. The
// first block grows as it needs: most journals of test networks have no second.
func (l *list) grow(block, size int) {
	for len(l.blocks) <= block {
		if last := len(l.blocks) - 1; last >= 0 {
			l.blocks[last] = resize(l.blocks[last], blockSize)
			l.blocks = append(l.blocks, make([]byte, 0, blockSize))
		} else {
			l.blocks = append(l.blocks, nil)
		}
	}
	l.blocks[block] = resize(l.blocks[block], size)
}

func resize(b []byte, size int) []byte {
	if n := size - len(b); n > 0 {
		return slices.Grow(b, n)[:size]
	}
	return b
}

// slice appends the nodes from and before to onto b.
func (l *list) slice(b []byte, from, to uint64) []byte {
	for first, end := from*posw.NodeSize, to*posw.NodeSize; first < end; {
		rest := l.blocks[first/blockSize][first%blockSize:]
		n := min(end-first, uint64(len(rest)))
		b = append(b, rest[:n]...)
		first += n
	}
	return b
}
