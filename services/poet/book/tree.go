package book

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"go.etcd.io/bbolt"
	"golang.org/x/sync/singleflight"

	"tweedle/services/poet"
	"tweedle/values/merkle"
)

// groupHeight is the height of the subtrees that a tree remembers.
const groupHeight = 8

// tree is the part of a round's membership tree that is kept in memory: for each
// group of 2^groupHeight neighbours the first public key and their subtree's root.
// So it takes a quarter of a byte for each member; the rest of a proof is computed
// from the group's members when asked for.
type tree struct {
	count uint64
	root  [32]byte
	first [][32]byte
	roots [][32]byte
}

// buildTree computes the tree in one pass over the members, or stops when ctx ends.
func (s *Book) buildTree(ctx context.Context, number uint32) (*tree, error) {
	t := &tree{}
	group := make([][32]byte, 0, 1<<groupHeight)
	flush := func() {
		t.root = merkle.Root(group) // if it is the only one
		t.roots = append(t.roots, lift(t.root, merkle.Height(uint64(len(group)))))
		group = group[:0]
	}
	err := s.EachMember(number, func(nodeID [32]byte, m Member) error {
		if len(group) == cap(group) {
			flush()
		}
		if len(group) == 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			t.first = append(t.first, nodeID)
		}
		group = append(group, m.Challenge)
		t.count++
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(group) > 0 {
		flush()
	}
	if len(t.roots) > 1 {
		t.root = merkle.Root(t.roots)
	}
	return t, nil
}

// lift returns the node of height groupHeight over a node of the given height
// that has nothing to its right.
func lift(n [32]byte, height int) [32]byte {
	for ; height < groupHeight; height++ {
		n = merkle.Node(n, [32]byte{})
	}
	return n
}

// maxGroups bounds the groups of all trees that are kept, 64 bytes each: enough
// for the rounds of years.
const maxGroups = 1 << 18

// trees keeps the trees that were asked for last. Readers share the work, which is
// for one round at a time: whoever asks for many old rounds keeps a core busy until
// each was built once, and holds up nobody but other readers of them.
type trees struct {
	mu     sync.Mutex
	kept   map[uint32]*tree
	order  []uint32 // least recently used first
	groups int

	build singleflight.Group
	turn  sync.Mutex // of the one that builds
}

func (c *trees) get(number uint32) *tree {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.kept[number]
	if t != nil {
		at := slices.Index(c.order, number)
		c.order = append(slices.Delete(c.order, at, at+1), number)
	}
	return t
}

func (c *trees) keep(number uint32, t *tree) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil {
		c.kept = map[uint32]*tree{}
	}
	if c.kept[number] != nil {
		return
	}
	c.kept[number] = t
	c.order = append(c.order, number)
	for c.groups += len(t.roots); c.groups > maxGroups && len(c.order) > 1; c.order = c.order[1:] {
		c.groups -= len(c.kept[c.order[0]].roots)
		delete(c.kept, c.order[0])
	}
}

// tree returns the tree of a round that takes no more members.
func (s *Book) tree(ctx context.Context, number uint32) (*tree, error) {
	if t := s.trees.get(number); t != nil {
		return t, nil
	}
	built := s.trees.build.DoChan(strconv.Itoa(int(number)), func() (any, error) {
		s.trees.turn.Lock()
		defer s.trees.turn.Unlock()
		t, err := s.buildTree(s.open, number) // for others too: it does not end with ctx
		if err == nil {
			s.trees.keep(number, t)
		}
		return t, err
	})
	select {
	case r := <-built:
		t, _ := r.Val.(*tree)
		return t, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Root returns the membership root of a round that takes no more members, and
// their number; no members have no root. It waits for no reader.
func (s *Book) Root(ctx context.Context, number uint32) (root [32]byte, members uint64, err error) {
	t, err := s.buildTree(ctx, number)
	if err != nil {
		return root, 0, err
	}
	s.trees.keep(number, t)
	return t.root, t.count, nil
}

// Membership is a member with its place in its round's tree:
// merkle.Verify(Root, Challenge, Index, Members, Proof).
type Membership struct {
	Member
	Index, Members uint64
	Root           [32]byte
	Proof          [][32]byte
}

// Prove returns a member of a round that takes no more members, or
// poet.ErrNotFound. Damage of what it reads is found.
func (s *Book) Prove(ctx context.Context, number uint32, nodeID [32]byte) (Membership, error) {
	if s.Members(number) == 0 {
		return Membership{}, poet.ErrNotFound
	}
	t, err := s.tree(ctx, number)
	if err != nil {
		return Membership{}, err
	}
	g, exact := slices.BinarySearchFunc(t.first, nodeID, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	if !exact {
		g--
	}
	if g < 0 {
		return Membership{}, poet.ErrNotFound
	}
	group, at, m, err := s.group(number, t.first[g], nodeID)
	if err != nil {
		return Membership{}, err
	}
	out := Membership{Member: m, Index: uint64(g)<<groupHeight + uint64(at), Members: t.count, Root: t.root}
	out.Proof = merkle.Proof(group, uint64(at))
	if len(t.roots) > 1 {
		for len(out.Proof) < groupHeight {
			out.Proof = append(out.Proof, [32]byte{})
		}
		out.Proof = append(out.Proof, merkle.Proof(t.roots, uint64(g))...)
	}
	if merkle.Verify(out.Root, out.Challenge, out.Index, out.Members, out.Proof) != nil {
		return Membership{}, fmt.Errorf("%s: members of round %d have changed: %w: restore the file from a copy", DatabaseName, number, poet.ErrDamaged)
	}
	return out, nil
}

// group returns the challenges of a group, and the place of a member in it, or
// poet.ErrNotFound.
func (s *Book) group(number uint32, first, nodeID [32]byte) (challenges [][32]byte, at int, m Member, err error) {
	at = -1
	err = s.db.View(func(tx *bbolt.Tx) error {
		key := roundKey(number)
		b := tx.Bucket(bucketMembers).Bucket(key)
		if b == nil {
			return poet.ErrNotFound
		}
		c := b.Cursor()
		for k, v := c.Seek(first[:]); k != nil && len(challenges) < 1<<groupHeight; k, v = c.Next() {
			one, err := decodeMember(key, k, v)
			if err != nil {
				return err
			}
			if bytes.Equal(k, nodeID[:]) {
				at, m = len(challenges), one
			}
			challenges = append(challenges, one.Challenge)
		}
		return nil
	})
	if err == nil && at < 0 {
		err = poet.ErrNotFound
	}
	return challenges, at, m, err
}
