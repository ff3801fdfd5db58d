package book

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/services/poet"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// keptTrees bounds the trees that are kept, in bytes: those of a hundred rounds of
// mainnet. A larger one is kept alone.
const keptTrees = 64 << 20

// tree is a round's membership tree, with the public keys of its leaves.
type tree struct {
	ids []types.NodeID
	merkle.Tree
}

// size is what it takes in memory, in bytes: a member's key, leaf and inner node.
func (t *tree) size() int { return 3 * 32 * len(t.ids) }

// buildTree reads a round's members, or stops when ctx ends.
func (b *Book) buildTree(ctx context.Context, number uint32) (*tree, error) {
	t := &tree{}
	leaves := make([][32]byte, 0, b.Members(number))
	err := b.eachMember(number, func(id types.NodeID, m Member) error {
		t.ids, leaves = append(t.ids, id), append(leaves, m.Challenge)
		return ctx.Err()
	})
	t.Tree = merkle.NewTree(leaves)
	return t, err
}

// Root returns the membership root of a round that takes no more members, and
// their number; no members have no root. It waits for no reader.
func (b *Book) Root(ctx context.Context, number uint32) (root [32]byte, members uint64, err error) {
	t, err := b.buildTree(ctx, number)
	if err != nil {
		return root, 0, err
	}
	b.trees.Keep(number, t)
	return t.Root(), uint64(len(t.ids)), nil
}

// Prove returns a member of a round that takes no more members, or
// poet.ErrNotFound. Damage of what it reads is found.
func (b *Book) Prove(ctx context.Context, number uint32, id types.NodeID) (p poet.MembershipProof, err error) {
	if b.Members(number) == 0 {
		return p, poet.ErrNotFound
	}
	// Whoever asks for many old rounds keeps a core busy until each was built once,
	// and holds up nobody but other readers of such.
	t, err := b.trees.Get(ctx, number, func() (*tree, error) { return b.buildTree(ctx, number) })
	if err != nil {
		return p, err
	}
	at, found := slices.BinarySearchFunc(t.ids, id, func(a, b types.NodeID) int { return bytes.Compare(a[:], b[:]) })
	if !found {
		return p, poet.ErrNotFound
	}
	var m Member
	err = b.View(func(tx *bbolt.Tx) error {
		v, err := membersOf(tx, number).Get(id[:])
		if err == nil {
			m, err = decodeMember(id[:], v)
		}
		return err
	})
	if err != nil {
		return p, err
	}
	p = poet.MembershipProof{
		Round: poet.RoundID(number), NodeID: id, Challenge: m.Challenge, Time: time.UnixMilli(m.Time),
		Index: uint64(at), Members: uint64(len(t.ids)), Statement: t.Root(), Proof: t.Proof(uint64(at)),
	}
	if merkle.Verify(p.Statement, p.Challenge, p.Index, p.Members, p.Proof) != nil {
		return poet.MembershipProof{}, fmt.Errorf("%s: members of round %d have changed: %w: restore the file from a copy", DatabaseName, number, poet.ErrDamaged)
	}
	return p, nil
}
