package book

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/services/poet"
	"tweedle/values/types"
)

// Member is what is stored under a public key: the challenge, and when it was
// registered, in unix milliseconds.
type Member struct {
	Challenge [32]byte
	Time      int64
}

func (m Member) encode() []byte {
	return binary.BigEndian.AppendUint64(slices.Clone(m.Challenge[:]), uint64(m.Time))
}

func decodeMember(round, key, sealed []byte) (Member, error) {
	v, err := openValue(round, key, sealed)
	if err != nil {
		return Member{}, err
	}
	if len(key) != 32 || len(v) != 40 {
		return Member{}, fmt.Errorf("%s: member %x: %w: restore the file from a copy", DatabaseName, key, poet.ErrDamaged)
	}
	return Member{Challenge: [32]byte(v), Time: int64(binary.BigEndian.Uint64(v[32:]))}, nil
}

// Entry is a registration on its way into the book: the time in Member is set
// there. Round, Member and Err are its answer.
type Entry struct {
	NodeID   types.NodeID
	Member   Member
	Deadline time.Time // of the round's end, or zero
	Round    uint32
	Err      error
}

// Register stores registrations in the round that choose returns, all or none of
// them, in one transaction. choose is called when no other write is under way,
// and no round closes before they are stored. An entry whose key is there already
// gets the member that is stored, and ErrExists if the challenge is another. An
// error means that nothing is acknowledged: of a write without room all or nothing
// may be stored.
func (s *Book) Register(entries []*Entry, limit uint64, choose func() (round uint32, ends, now time.Time)) (added uint64, err error) {
	// Neighbours share pages of the tree.
	slices.SortStableFunc(entries, func(a, b *Entry) int { return bytes.Compare(a.NodeID[:], b.NodeID[:]) })
	err = s.Update("register", func(tx *bbolt.Tx) error {
		number, ends, now := choose()
		key := roundKey(number)
		b, err := membersOf(tx, key)
		if err != nil {
			return err
		}
		first := b.Sequence()
		for _, e := range entries {
			e.Round, e.Member.Time = number, now.UnixMilli()
			if !e.Deadline.IsZero() && ends.After(e.Deadline) {
				e.Err = fmt.Errorf("%w: round %d ends at %s", poet.ErrTooLate, number, ends.UTC().Format(time.RFC3339))
				continue
			}
			if e.Err, err = e.join(b, key, limit); err != nil {
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
func (e *Entry) join(b *bbolt.Bucket, round []byte, limit uint64) (refused, err error) {
	sealed := b.Get(e.NodeID[:])
	if sealed == nil {
		if b.Sequence() >= limit {
			return fmt.Errorf("%w: round %d takes no more than %d members", poet.ErrExhausted, e.Round, limit), nil
		}
		return nil, put(b, round, e.NodeID[:], e.Member.encode())
	}
	old, refused := decodeMember(round, e.NodeID[:], sealed)
	if refused == nil && old.Challenge != e.Member.Challenge {
		refused = fmt.Errorf("%w in round %d with another challenge", poet.ErrExists, e.Round)
	}
	e.Member = old
	return refused, nil
}

// Members returns the number of registrations in a round.
func (s *Book) Members(number uint32) (n uint64) {
	s.db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucketMembers).Bucket(roundKey(number)); b != nil {
			n = b.Sequence()
		}
		return nil
	})
	return n
}

// EachMember calls fn for every member of a round, in the order of the membership
// tree: ascending public key (reference/poet.md 1.1).
func (s *Book) EachMember(number uint32, fn func(nodeID [32]byte, m Member) error) error {
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
				DatabaseName, number, count, b.Sequence(), poet.ErrDamaged)
		}
		return err
	})
}

// Challenges returns the leaves of a round's membership tree.
func (s *Book) Challenges(number uint32) ([][32]byte, error) {
	leaves := make([][32]byte, 0, s.Members(number))
	err := s.EachMember(number, func(_ [32]byte, m Member) error {
		leaves = append(leaves, m.Challenge)
		return nil
	})
	return leaves, err
}
