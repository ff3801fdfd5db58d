package book

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/base/sealed"
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

func decodeMember(key, v []byte) (Member, error) {
	if len(key) != 32 || len(v) != 40 {
		return Member{}, fmt.Errorf("%s: member %x: %w: restore the file from a copy", DatabaseName, key, poet.ErrDamaged)
	}
	return Member{Challenge: [32]byte(v), Time: int64(binary.BigEndian.Uint64(v[32:]))}, nil
}

// membersOf returns the bucket of a round's members.
func membersOf(tx *bbolt.Tx, number uint32) sealed.Bucket {
	return sealed.Top(tx, members).Sub(roundKey(number))
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
func (b *Book) Register(entries []*Entry, limit uint64, choose func() (round uint32, ends, now time.Time)) (added uint64, err error) {
	// Neighbours share pages of the tree.
	slices.SortStableFunc(entries, func(a, b *Entry) int { return bytes.Compare(a.NodeID[:], b.NodeID[:]) })
	err = b.Update(func(tx *bbolt.Tx) error {
		number, ends, now := choose()
		in, err := sealed.Top(tx, members).MakeSub(roundKey(number))
		if err != nil {
			return err
		}
		first := in.Len()
		for _, e := range entries {
			e.Round, e.Member.Time = number, now.UnixMilli()
			if !e.Deadline.IsZero() && ends.After(e.Deadline) {
				e.Err = fmt.Errorf("%w: round %d ends at %s", poet.ErrTooLate, number, ends.UTC().Format(time.RFC3339))
				continue
			}
			if e.Err, err = e.join(in, limit); err != nil {
				return err
			}
		}
		added = in.Len() - first
		return nil
	})
	return added, err
}

// join puts one registration into its round's bucket, unless it is there. refused
// is the answer to its sender; err means that the transaction failed.
func (e *Entry) join(in sealed.Bucket, limit uint64) (refused, err error) {
	v, refused := in.Get(e.NodeID[:])
	if refused != nil {
		return refused, nil
	}
	if v == nil {
		if in.Len() >= limit {
			return fmt.Errorf("%w: round %d takes no more than %d members", poet.ErrExhausted, e.Round, limit), nil
		}
		return nil, in.Put(e.NodeID[:], e.Member.encode())
	}
	old, refused := decodeMember(e.NodeID[:], v)
	if refused == nil && old.Challenge != e.Member.Challenge {
		refused = fmt.Errorf("%w in round %d with another challenge", poet.ErrExists, e.Round)
	}
	e.Member = old
	return refused, nil
}

// Members returns the number of registrations in a round.
func (b *Book) Members(number uint32) (n uint64) {
	// A book that is closing has none to show.
	_ = b.View(func(tx *bbolt.Tx) error {
		n = membersOf(tx, number).Len()
		return nil
	})
	return n
}

// eachMember calls fn for every member of a round, in the order of the membership
// tree: ascending public key (reference/poet.md 1.1).
func (b *Book) eachMember(number uint32, fn func(id types.NodeID, m Member) error) error {
	return b.View(func(tx *bbolt.Tx) error {
		return membersOf(tx, number).Each(func(key, v []byte) error {
			m, err := decodeMember(key, v)
			if err != nil {
				return err
			}
			return fn(types.NodeID(key), m)
		})
	})
}

// Challenges returns the leaves of a round's membership tree, or ctx's error: of a
// large round it takes its time.
func (b *Book) Challenges(ctx context.Context, number uint32) ([][32]byte, error) {
	leaves := make([][32]byte, 0, b.Members(number))
	err := b.eachMember(number, func(_ types.NodeID, m Member) error {
		leaves = append(leaves, m.Challenge)
		return ctx.Err()
	})
	return leaves, err
}
