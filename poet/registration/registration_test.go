package registration

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"testing"
	"time"

	"tweedle/codec"
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

var _ = codec.Decode
var _ = ed25519.Verify
var _ = time.Now
