package activation

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"tweedle/proofs/posw"
	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// omission is true evidence: a PoET's receipt for a challenge and its work for
// others.
func omission(tb testing.TB, members ...types.Hash32) *Omission {
	tb.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	o := &Omission{Members: members}
	o.Receipt = types.PoetReceipt{Round: "3", NodeID: types.NodeID{1}, Challenge: types.Hash32{9}, Time: time.UnixMilli(1700000000123)}
	o.Receipt.Sign(key)
	var raw [][32]byte
	for _, m := range members {
		raw = append(raw, m)
	}
	statement := merkle.Root(raw)
	about := statement[:]
	if len(members) == 0 {
		about = nil
	}
	prover := posw.NewProver(about, 4)
	kept := prover.Advance(300, nil)
	proof, err := prover.Prove(bytes.NewReader(kept), 1, nil)
	if err != nil {
		tb.Fatal(err)
	}
	o.Proof = types.PoetProofMessage{Proof: proof, PoetID: o.Receipt.PoetID, RoundID: "3", Statement: statement}
	return o
}

func TestAnOmissionIsShownToAnyone(t *testing.T) {
	for _, members := range [][]types.Hash32{{{1}, {2}, {3}}, {{1}}, nil} {
		o := omission(t, members...)
		var read Omission
		if err := codec.Decode(codec.Encode(o), &read); err != nil {
			t.Fatal(err)
		}
		if err := read.Verify(); err != nil {
			t.Errorf("%d members: %v", len(members), err)
		}
	}
}

func TestNobodyIsAccusedByForgedEvidence(t *testing.T) {
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	for _, c := range []struct {
		want   string
		change func(o *Omission)
	}{
		{"not signed", func(o *Omission) { o.Receipt.Challenge[0]++ }},
		{"not signed", func(o *Omission) { o.Receipt.Round, o.Proof.RoundID = "4", "4" }},
		{"not signed", func(o *Omission) { o.Receipt.NodeID[0]++ }},
		{"not signed", func(o *Omission) { o.Receipt.Time = o.Receipt.Time.Add(time.Millisecond) }},
		{"not signed", func(o *Omission) { o.Receipt.Signature = types.Signature{} }},
		{"the proof names", func(o *Omission) { o.Receipt.Sign(other) }},
		{"of round 4", func(o *Omission) { o.Proof.RoundID = "4" }},
		{"nothing was omitted", func(o *Omission) { *o = *omission(t, types.Hash32{1}, o.Receipt.Challenge) }},
		{"not those that the proof covers", func(o *Omission) { o.Members = o.Members[:2] }},
		{"proof is wrong", func(o *Omission) { o.Members, o.Proof.Statement = o.Members[:1], o.Members[0] }},
		{"proof is wrong", func(o *Omission) { o.Proof.Proof.NumLeaves *= 2 }},
		{"proof is wrong", func(o *Omission) { o.Proof.Proof = types.PoetProof{} }},
	} {
		o := omission(t, types.Hash32{1}, types.Hash32{2}, types.Hash32{3})
		c.change(o)
		if err := o.Verify(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func FuzzOmission(f *testing.F) {
	f.Add(codec.Encode(omission(f, types.Hash32{1}, types.Hash32{2})))
	f.Add(codec.Encode(omission(f)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var o Omission
		if codec.Decode(b, &o) != nil {
			return
		}
		if !bytes.Equal(codec.Encode(&o), b) {
			t.Fatalf("accepted %x, encodes as %x", b, codec.Encode(&o))
		}
		_ = o.Verify() // what it says is up to the bytes; it does not panic
	})
}
