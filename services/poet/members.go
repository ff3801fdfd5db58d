package poet

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/values/merkle"
	"tweedle/values/types"
)

// member is what is stored under a public key: the challenge, and when it was
// registered, in unix milliseconds.
type member struct {
	challenge [32]byte
	time      int64
}

func (m member) encode() []byte {
	return binary.BigEndian.AppendUint64(slices.Clone(m.challenge[:]), uint64(m.time))
}

func decodeMember(round, key, sealed []byte) (member, error) {
	v, err := openValue(round, key, sealed)
	if err != nil {
		return member{}, err
	}
	if len(key) != 32 || len(v) != 40 {
		return member{}, fmt.Errorf("%s: member %x: %w: restore the file from a copy", DatabaseName, key, ErrDamaged)
	}
	return member{challenge: [32]byte(v), time: int64(binary.BigEndian.Uint64(v[32:]))}, nil
}

// entry is a registration on its way into the store: the time in member is set
// there. round, member and err are its answer.
type entry struct {
	nodeID   types.NodeID
	member   member
	deadline time.Time // of the round's end, or zero
	round    uint32
	err      error
}

// register stores registrations in the round that choose returns, all or none of
// them, in one transaction. choose is called when no other write is under way,
// and no round closes before they are stored. An entry whose key is there already
// gets the member that is stored, and ErrExists if the challenge is another. An
// error means that nothing was stored.
func (s *store) register(entries []*entry, limit uint64, choose func() (round uint32, ends, now time.Time)) (added uint64, err error) {
	// Neighbours share pages of the tree.
	slices.SortStableFunc(entries, func(a, b *entry) int { return bytes.Compare(a.nodeID[:], b.nodeID[:]) })
	err = s.update("register", func(tx *bbolt.Tx) error {
		number, ends, now := choose()
		key := roundKey(number)
		b, err := membersOf(tx, key)
		if err != nil {
			return err
		}
		first := b.Sequence()
		for _, e := range entries {
			e.round, e.member.time = number, now.UnixMilli()
			if !e.deadline.IsZero() && ends.After(e.deadline) {
				e.err = fmt.Errorf("%w: round %d ends at %s", ErrTooLate, number, ends.UTC().Format(time.RFC3339))
				continue
			}
			if e.err, err = e.join(b, key, limit); err != nil {
				return err
			}
		}
		added = b.Sequence() - first
		return nil
	})
	return added, err
}

// membersOf returns the bucket of a round's members, making it if there is none.
func membersOf(tx *bbolt.Tx, round []byte) (*bbolt.Bucket, error) {
	all := tx.Bucket(bucketMembers)
	if b := all.Bucket(round); b != nil {
		return b, nil
	}
	if err := all.SetSequence(all.Sequence() + 1); err != nil {
		return nil, err
	}
	return all.CreateBucket(round)
}

// join puts one registration into its round's bucket, unless it is there. refused
// is the answer to its sender; err means that the transaction failed.
func (e *entry) join(b *bbolt.Bucket, round []byte, limit uint64) (refused, err error) {
	sealed := b.Get(e.nodeID[:])
	if sealed == nil {
		if b.Sequence() >= limit {
			return fmt.Errorf("%w: round %d takes no more than %d members", ErrExhausted, e.round, limit), nil
		}
		return nil, put(b, round, e.nodeID[:], e.member.encode())
	}
	old, refused := decodeMember(round, e.nodeID[:], sealed)
	if refused == nil && old.challenge != e.member.challenge {
		refused = fmt.Errorf("%w in round %d with another challenge", ErrExists, e.round)
	}
	e.member = old
	return refused, nil
}

// members returns the number of registrations in a round.
func (s *store) members(number uint32) (n uint64) {
	s.db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucketMembers).Bucket(roundKey(number)); b != nil {
			n = b.Sequence()
		}
		return nil
	})
	return n
}

// eachMember calls fn for every member of a round, in the order of the membership
// tree: ascending public key (reference/poet.md 1.1).
func (s *store) eachMember(number uint32, fn func(nodeID [32]byte, m member) error) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		key := roundKey(number)
		b := tx.Bucket(bucketMembers).Bucket(key)
		if b == nil {
			return nil
		}
		var count uint64
		err := b.ForEach(func(k, sealed []byte) error {
			m, err := decodeMember(key, k, sealed)
			if err != nil {
				return err
			}
			count++
			return fn([32]byte(k), m)
		})
		if err == nil && count != b.Sequence() {
			err = fmt.Errorf("%s: round %d has %d members, %d were acknowledged: %w: restore the file from a copy",
				DatabaseName, number, count, b.Sequence(), ErrDamaged)
		}
		return err
	})
}

// challenges returns the leaves of a round's membership tree.
func (s *store) challenges(number uint32) ([][32]byte, error) {
	leaves := make([][32]byte, 0, s.members(number))
	err := s.eachMember(number, func(_ [32]byte, m member) error {
		leaves = append(leaves, m.challenge)
		return nil
	})
	return leaves, err
}

// groupHeight is the height of the subtrees that a memberTree remembers.
const groupHeight = 8

// memberTree is the part of a round's membership tree that is kept in memory: for
// each group of 2^groupHeight neighbours the first public key and their subtree's
// root. So it takes a quarter of a byte for each member; the rest of a proof is
// computed from the group's members when asked for.
type memberTree struct {
	count uint64
	first [][32]byte
	roots [][32]byte
}

// buildTree computes the tree in one pass over the members, or stops when ctx ends.
func (s *store) buildTree(ctx context.Context, number uint32) (*memberTree, error) {
	t := &memberTree{}
	group := make([][32]byte, 0, 1<<groupHeight)
	flush := func() {
		if len(group) > 0 {
			t.roots = append(t.roots, lift(merkle.Root(group), merkle.Height(uint64(len(group)))))
			group = group[:0]
		}
	}
	err := s.eachMember(number, func(nodeID [32]byte, m member) error {
		if len(group) == 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			t.first = append(t.first, nodeID)
		}
		if group = append(group, m.challenge); len(group) == cap(group) {
			flush()
		}
		t.count++
		return nil
	})
	flush()
	return t, err
}

// lift returns the node of height groupHeight over a node of the given height
// that has nothing to its right.
func lift(n [32]byte, height int) [32]byte {
	for ; height < groupHeight; height++ {
		n = merkle.Node(n, [32]byte{})
	}
	return n
}

// root returns the membership root. s serves the members of a round with a
// single group, whose tree is less high.
func (t *memberTree) root(s *store, number uint32) ([32]byte, error) {
	if len(t.roots) > 1 {
		return merkle.Root(t.roots), nil
	}
	leaves, err := s.challenges(number)
	return merkle.Root(leaves), err
}

// prove returns a member with its place and its siblings, lowest first.
func (t *memberTree) prove(s *store, number uint32, nodeID [32]byte) (m member, index uint64, proof [][32]byte, err error) {
	g, exact := slices.BinarySearchFunc(t.first, nodeID, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	if !exact {
		g--
	}
	if g < 0 {
		return m, 0, nil, ErrNotFound
	}
	var group [][32]byte
	at := -1
	err = s.db.View(func(tx *bbolt.Tx) error {
		key := roundKey(number)
		b := tx.Bucket(bucketMembers).Bucket(key)
		if b == nil {
			return ErrNotFound
		}
		c := b.Cursor()
		for k, v := c.Seek(t.first[g][:]); k != nil && len(group) < 1<<groupHeight; k, v = c.Next() {
			one, err := decodeMember(key, k, v)
			if err != nil {
				return err
			}
			if bytes.Equal(k, nodeID[:]) {
				at, m = len(group), one
			}
			group = append(group, one.challenge)
		}
		return nil
	})
	if err == nil && at < 0 {
		err = ErrNotFound
	}
	if err != nil {
		return m, 0, nil, err
	}
	proof = merkle.Proof(group, uint64(at))
	if len(t.roots) > 1 {
		for len(proof) < groupHeight {
			proof = append(proof, [32]byte{})
		}
		proof = append(proof, merkle.Proof(t.roots, uint64(g))...)
	}
	return m, uint64(g)<<groupHeight + uint64(at), proof, nil
}

// maxCachedTrees bounds the rounds whose memberTree is kept.
const maxCachedTrees = 4

// treeCache keeps the trees of the rounds that were asked for last. One tree is
// built at a time.
type treeCache struct {
	mu    sync.Mutex
	trees map[uint32]*memberTree
	order []uint32 // least recently used first
}

func (c *treeCache) get(ctx context.Context, s *store, number uint32) (*memberTree, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.trees[number]; t != nil {
		at := slices.Index(c.order, number)
		c.order = append(slices.Delete(c.order, at, at+1), number)
		return t, nil
	}
	t, err := s.buildTree(ctx, number)
	if err != nil {
		return nil, err
	}
	if c.trees == nil {
		c.trees = map[uint32]*memberTree{}
	}
	if len(c.order) == maxCachedTrees {
		delete(c.trees, c.order[0])
		c.order = c.order[1:]
	}
	c.trees[number] = t
	c.order = append(c.order, number)
	return t, nil
}

// Member returns a registration with its membership proof, once its round is
// closed; ErrNotFound before, and if there is no such member.
func (s *Service) Member(round string, nodeID []byte) (MembershipProof, error) {
	number, err := ParseRoundID(round)
	if err != nil {
		return MembershipProof{}, err
	}
	if len(nodeID) != len(types.NodeID{}) {
		return MembershipProof{}, fmt.Errorf("public key has %d bytes: %w", len(nodeID), ErrInvalid)
	}
	r, found, err := s.store.round(number)
	if err != nil {
		return MembershipProof{}, err
	}
	if !found || r.State < StateExecuting {
		return MembershipProof{}, fmt.Errorf("round %s has no membership root yet: %w", round, ErrNotFound)
	}
	tree, err := s.trees.get(context.Background(), s.store, number)
	if err != nil {
		return MembershipProof{}, err
	}
	m, index, proof, err := tree.prove(s.store, number, [32]byte(nodeID))
	if errors.Is(err, ErrNotFound) {
		return MembershipProof{}, fmt.Errorf("%x is no member of round %s: %w", nodeID, round, ErrNotFound)
	}
	if err != nil {
		return MembershipProof{}, err
	}
	out := MembershipProof{
		Round: round, NodeID: types.NodeID(nodeID), Challenge: m.challenge, Time: time.UnixMilli(m.time),
		Index: index, Members: tree.count, Statement: r.Statement, Proof: proof,
	}
	if merkle.Verify(out.Statement, out.Challenge, out.Index, out.Members, out.Proof) != nil {
		return MembershipProof{}, fmt.Errorf("%s: members of round %s do not give its root: %w: restore the file from a copy", DatabaseName, round, ErrDamaged)
	}
	return out, nil
}
