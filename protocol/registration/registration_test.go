package registration

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"testing"
	"time"

	"tweedle/values/codec"
)

// RIPEMD-256 vectors of its authors' page.
func TestRipemd256(t *testing.T) {
	for msg, want := range map[string]string{
		"":  "02ba4c4e5f8ecd1877fc52d64d30e37a2d9774fb1e5d026380ae0168e3c5522d",
		"a": "f9333e45d857f5d90a91bab70a1eba0cfb1be4b0783c9acfcd883a9134692925",
	} {
		got := ripemd256([]byte(msg))
		if hex.EncodeToString(got[:]) != want {
			t.Errorf("%q: %x, want %s", msg, got, want)
		}
	}
}

// The vector of reference/poet.md 1.10.
func TestPowHash(t *testing.T) {
	fill := func(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }
	got := PowHash(fill(1), fill(2), fill(3), 7)
	const want = "54611204022e5c39268a84a339088bc41891905e12826ae5b5653ba579fb6145"
	if hex.EncodeToString(got[:]) != want {
		t.Fatalf("%x", got)
	}
}

// A request of anything is refused or right, without a panic; a certificate has one
// encoding.
func FuzzRequest(f *testing.F) {
	id := bytes.Repeat([]byte{2}, 32)
	data := EncodeCertificate(id, time.Unix(1<<40, 0))
	f.Add(id, id, []byte("prefix"), make([]byte, 64), []byte{1}, uint(3), uint64(9), data, make([]byte, 64), []byte{1, 2, 3, 4})
	f.Add([]byte{}, id[:31], []byte{}, []byte{}, []byte{}, uint(300), uint64(0), data[:5], []byte{}, []byte{})
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	params := PowParams{Challenge: []byte("challenge"), Difficulty: 4}
	f.Fuzz(func(t *testing.T, id, challenge, prefix, sig, pow []byte, difficulty uint, nonce uint64, cert, certSig, hint []byte) {
		r := Request{NodeID: id, Challenge: challenge, Prefix: prefix, Signature: sig, Nonce: nonce, Hint: hint,
			Pow: PowParams{Challenge: pow, Difficulty: difficulty}, Certificate: &Certificate{Data: cert, Signature: certSig}}
		var data certificateData
		if codec.Decode(cert, &data) == nil && !bytes.Equal(codec.Encode(&data), cert) {
			t.Fatalf("%x is another encoding of a certificate", cert)
		}
		if r.CheckShape() != nil {
			return
		}
		if r.CheckCertificate([]ed25519.PublicKey{key.Public().(ed25519.PublicKey)}, time.Unix(0, 0)) == nil {
			t.Fatal("a certificate was forged")
		}
		if r.CheckPow(params.Difficulty, params.Challenge, nil) == nil && (!bytes.Equal(pow, params.Challenge) || difficulty != params.Difficulty) {
			t.Fatal("work under other parameters")
		}
		if r.CheckPow(0, nil, []byte{}) == nil {
			t.Fatal("work under an empty challenge")
		}
		r.CheckSignature()
	})
}

// What counts is the difficulty that the server asks for now, whichever of its
// challenges the work is about: after a raise, easy work is refused at once.
func TestPowIsCheckedAgainstTheDifficultyOfNow(t *testing.T) {
	id, challenge := bytes.Repeat([]byte{2}, 32), bytes.Repeat([]byte{3}, 32)
	old, current := []byte("old"), []byte("current")
	for _, c := range []struct {
		pow  []byte
		bits uint
		want bool
	}{{old, 9, true}, {current, 9, true}, {current, 12, false}, {old, 8, false}, {current, 8, false}, {current, 0, false}, {[]byte("other"), 9, false}} {
		p := PowParams{c.pow, c.bits}
		nonce, ok := SolvePow(p, id, challenge, 1<<20)
		if !ok {
			t.Fatal("not solved")
		}
		r := Request{NodeID: id, Challenge: challenge, Nonce: nonce, Pow: p}
		if err := r.CheckPow(9, current, old); (err == nil) != c.want {
			t.Errorf("%d bits about %q: %v", c.bits, c.pow, err)
		}
		r.Challenge = id
		if err := r.CheckPow(9, current, old); err == nil {
			t.Error("work for another challenge was accepted")
		}
	}
	if _, ok := SolvePow(PowParams{[]byte("hard"), 200}, id, challenge, 10); ok {
		t.Error("200 bits in ten tries")
	}
}
