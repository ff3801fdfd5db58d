package merkle

import (
	"bytes"
	"iter"
	"math/bits"

	"github.com/zeebo/blake3"
)

// Key is the address of an account.
type Key = [24]byte

// keyBits is also the place of a leaf in a path: after every bit of the key.
const keyBits = len(Key{}) * 8

// Leaf is a value of the account tree. LeafHash must cover everything that
// the value means; equal values have equal hashes.
type Leaf interface{ LeafHash() [32]byte }

// Accounts is an immutable map from keys to values with a root hash that
// depends on the content only, not on the order in which it came about.
// Changing it returns another map that shares what did not change, so old
// ones stay valid and cost only what differs. The zero value is empty; a key
// cannot be removed.
//
// The rule of the root, which is protocol:
//   - the root of no accounts is 32 zero bytes;
//   - a leaf is BLAKE3(0x02 || key || leaf hash);
//   - the accounts of two or more keys are split at the first bit (counted
//     from the most significant one of the first byte) in which not all keys
//     agree: BLAKE3(0x03 || number of the bit, one byte || root of the keys
//     that have 0 there || root of the keys that have 1 there).
//
// Unlike a tree over all 192 bits it has no node with one child, so the path
// to an account among n random ones has about log2(n) steps.
type Accounts[V Leaf] struct{ root *node[V] }

// node is a leaf when bit is keyBits. Nodes never change.
type node[V Leaf] struct {
	bit         int
	key         Key // of the leaf, or of any leaf below
	hash        [32]byte
	left, right *node[V]
	value       V
}

// Account is one entry of the tree.
type Account[V Leaf] struct {
	Key   Key
	Value V
}

func leafNode[V Leaf](key Key, value V) *node[V] {
	return &node[V]{bit: keyBits, key: key, value: value, hash: accountLeaf(key, value.LeafHash())}
}

func inner[V Leaf](bit int, left, right *node[V]) *node[V] {
	return &node[V]{bit: bit, key: left.key, left: left, right: right, hash: accountNode(bit, left.hash, right.hash)}
}

func accountLeaf(key Key, leaf [32]byte) [32]byte {
	b := make([]byte, 0, 1+len(key)+len(leaf))
	b = append(b, 0x02)
	b = append(b, key[:]...)
	return blake3.Sum256(append(b, leaf[:]...))
}

func accountNode(bit int, left, right [32]byte) [32]byte {
	var b [2 + 2*32]byte
	b[0], b[1] = 0x03, byte(bit)
	copy(b[2:], left[:])
	copy(b[34:], right[:])
	return blake3.Sum256(b[:])
}

// Root returns the hash of the whole content.
func (a Accounts[V]) Root() [32]byte {
	if a.root == nil {
		return [32]byte{}
	}
	return a.root.hash
}

// Get returns the value at key and whether there is one.
func (a Accounts[V]) Get(key Key) (V, bool) {
	var none V
	if a.root == nil {
		return none, false
	}
	n := a.root
	for n.bit < keyBits {
		n = n.child(bitOf(key, n.bit))
	}
	if n.key != key {
		return none, false
	}
	return n.value, true
}

// Set returns the map with the given entries added or replaced. It panics
// unless their keys ascend strictly.
func (a Accounts[V]) Set(entries ...Account[V]) Accounts[V] {
	for i := 1; i < len(entries); i++ {
		if bytes.Compare(entries[i-1].Key[:], entries[i].Key[:]) >= 0 {
			panic("merkle: accounts to set are not in ascending order")
		}
	}
	return Accounts[V]{set(a.root, entries)}
}

// All yields the entries in ascending order of their keys.
func (a Accounts[V]) All() iter.Seq2[Key, V] {
	return func(yield func(Key, V) bool) { a.root.walk(yield) }
}

func (n *node[V]) walk(yield func(Key, V) bool) bool {
	switch {
	case n == nil:
		return true
	case n.bit == keyBits:
		return yield(n.key, n.value)
	}
	return n.left.walk(yield) && n.right.walk(yield)
}

func (n *node[V]) child(bit int) *node[V] {
	if bit == 0 {
		return n.left
	}
	return n.right
}

// set puts ascending entries under n. Every node on the way is made, and
// hashed, once for all entries together.
func set[V Leaf](n *node[V], entries []Account[V]) *node[V] {
	if len(entries) == 0 {
		return n
	}
	first, last := entries[0].Key, entries[len(entries)-1].Key
	// The first bit in which not all keys agree, of old and new together.
	// Entries ascend, so first and last differ first of all.
	bit := firstDifference(first, last)
	if n != nil {
		bit = min(bit, n.bit, firstDifference(first, n.key))
	}
	if bit == keyBits {
		return leafNode(first, entries[0].Value)
	}
	split := 0
	for split < len(entries) && bitOf(entries[split].Key, bit) == 0 {
		split++
	}
	var left, right *node[V]
	switch {
	case n == nil:
	case n.bit == bit:
		left, right = n.left, n.right
	case bitOf(n.key, bit) == 0:
		left = n
	default:
		right = n
	}
	return inner(bit, set(left, entries[:split]), set(right, entries[split:]))
}

func bitOf(key Key, bit int) int { return int(key[bit/8]>>(7-bit%8)) & 1 }

// firstDifference returns the first bit in which the keys differ, or keyBits.
func firstDifference(a, b Key) int {
	for i := range a {
		if x := a[i] ^ b[i]; x != 0 {
			return 8*i + bits.LeadingZeros8(x)
		}
	}
	return keyBits
}

// AccountProof shows what a tree holds at a key: a leaf with that key, or the
// leaf at which the search for it ends, whose other key proves that there is
// none (every key of the tree is found by following its own bits).
type AccountProof struct {
	Steps []AccountStep // from the root down; empty when the tree has one leaf or none
	Key   Key           // of the leaf at the end
	Leaf  [32]byte      // its leaf hash
}

// AccountStep is one split on the way to a leaf.
type AccountStep struct {
	Bit     uint8 // ascends from step to step
	Sibling [32]byte
}

// Prove returns the proof of what the tree holds at key.
func (a Accounts[V]) Prove(key Key) AccountProof {
	var p AccountProof
	if a.root == nil {
		return p
	}
	n := a.root
	for n.bit < keyBits {
		bit := bitOf(key, n.bit)
		p.Steps = append(p.Steps, AccountStep{uint8(n.bit), n.child(1 - bit).hash})
		n = n.child(bit)
	}
	p.Key, p.Leaf = n.key, n.value.LeafHash()
	return p
}

// Verify returns the leaf hash at key and whether there is one in the tree
// with this root. The error is ErrProof.
func (p AccountProof) Verify(root [32]byte, key Key) (leaf [32]byte, present bool, err error) {
	if root == [32]byte{} { // no accounts: nothing to show
		return leaf, false, nil
	}
	if len(p.Steps) > keyBits {
		return leaf, false, ErrProof
	}
	hash := accountLeaf(p.Key, p.Leaf)
	below := keyBits
	for i := len(p.Steps) - 1; i >= 0; i-- {
		step := p.Steps[i]
		bit := int(step.Bit)
		if bit >= below || bitOf(p.Key, bit) != bitOf(key, bit) {
			return leaf, false, ErrProof
		}
		if below = bit; bitOf(key, bit) == 0 {
			hash = accountNode(bit, hash, step.Sibling)
		} else {
			hash = accountNode(bit, step.Sibling, hash)
		}
	}
	if hash != root {
		return leaf, false, ErrProof
	}
	if p.Key != key {
		return leaf, false, nil
	}
	return p.Leaf, true, nil
}
