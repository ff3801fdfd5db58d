// Package booktest fills books for the tests of those who read them.
//
// It promises records that pass every check of package book and are as large as
// a test asks for; the work of their proofs was never done, so a verifier
// refuses them.
package booktest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"tweedle/services/poet"
	"tweedle/services/poet/book"
	"tweedle/values/types"
)

// NodeID is the i-th member of every round.
func NodeID(i int) (id types.NodeID) {
	binary.BigEndian.PutUint64(id[:], uint64(i)*0x9e3779b97f4a7c15)
	return id
}

// Close stores a round that has closed, in the book of a directory that nobody uses.
// It waits for its execution.
func Close(dir string, schedule types.PoetSchedule, round uint32, members int) (err error) {
	b, err := book.Open(dir, schedule, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return errors.Join(join(b, schedule, round, members), b.WriteOpen(round+1))
}

func join(b *book.Book, schedule types.PoetSchedule, round uint32, members int) error {
	entries := make([]*book.Entry, members)
	for i := range entries {
		entries[i] = &book.Entry{NodeID: NodeID(i)}
		binary.BigEndian.PutUint32(entries[i].Member.Challenge[:], uint32(i))
		entries[i].Member.Challenge[31] = byte(round)
	}
	_, err := b.Register(entries, uint64(members), func() (uint32, time.Time, time.Time) {
		return round, schedule.End(round), schedule.Start(round)
	})
	return err
}

// Prove stores a finished round in the book of a directory that nobody uses: its
// members, and a proof of 150 leaves with so many nodes. Mainnet has about 5,000
// and 4,500. The next round is open then.
func Prove(dir string, schedule types.PoetSchedule, round uint32, members, nodes int) (err error) {
	b, err := book.Open(dir, schedule, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := join(b, schedule, round, members); err != nil {
		return err
	}
	root, _, err := b.Root(context.Background(), round)
	if err != nil {
		return err
	}
	m := types.PoetProofMessage{RoundID: poet.RoundID(round), Statement: root}
	m.Proof.NumLeaves = 1 << 36
	m.Proof.Leaves, m.Proof.Nodes = make([]types.Hash32, 150), make([]types.Hash32, nodes)
	for i := range m.Proof.Nodes {
		binary.BigEndian.PutUint64(m.Proof.Nodes[i][:], uint64(i)*0x9e3779b97f4a7c15)
	}
	pow, err := b.Pow()
	if err != nil {
		return err
	}
	if err := b.WriteProof(round, round+1, &m, pow); err != nil {
		return fmt.Errorf("round %d: %w", round, err)
	}
	return nil
}
