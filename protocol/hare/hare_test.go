package hare

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"tweedle/values/types"
)

func TestOpenLayersAreBounded(t *testing.T) {
	c := NewCertifier(0)
	for l := types.Layer(1); l <= 2*MaxOpenLayers; l++ {
		if _, err := c.Add(message(l, 1, 1), 1, 100); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.layers) != MaxOpenLayers {
		t.Fatalf("%d layers of signatures", len(c.layers))
	}
	if _, err := c.Add(message(1, 2, 1), 1, 100); !errors.Is(err, ErrOldLayer) {
		t.Fatalf("a forgotten layer: %v", err)
	}
}

func message(l types.Layer, smesher, block byte) types.CertifyMessage {
	return types.CertifyMessage{
		Decision: types.Decision{Layer: l, Block: types.BlockID{block}},
		By:       types.CertifySignature{Smesher: types.NodeID{smesher}, ATX: types.ATXID{smesher}},
	}
}

func TestACertificateNeedsMoreThanTwoThirdsAndComesOnce(t *testing.T) {
	c := NewCertifier(20)
	var cert *types.Certificate
	for i, s := range []byte{3, 1, 2} {
		got, err := c.Add(message(20, s, 7), 1, 3)
		if err != nil {
			t.Fatal(err)
		}
		if (got != nil) != (i == 2) {
			t.Fatalf("certificate after %d of 3 signatures: %v", i+1, got)
		}
		cert = got
	}
	if cert.Signatures[0].Smesher != (types.NodeID{1}) || cert.Signatures[2].Smesher != (types.NodeID{3}) {
		t.Error("signers are not sorted")
	}
	if got, err := c.Add(message(20, 4, 7), 1, 4); got != nil || err != nil {
		t.Errorf("a second certificate: %v %v", got, err)
	}
	if _, err := c.Add(message(20, 1, 7), 1, 3); !errors.Is(err, ErrKnown) {
		t.Errorf("repeated: %v", err)
	}
	if _, err := c.Add(message(20, 1, 8), 1, 3); !errors.Is(err, ErrEquivocation) {
		t.Errorf("equivocation: %v", err)
	}
	for _, block := range []byte{8, 9} {
		if _, err := c.Add(message(20, 1, block), 1, 3); !errors.Is(err, ErrKnown) {
			t.Errorf("equivocation that is known: %v", err)
		}
	}
}

func TestEnoughIsMoreThanTwoThirds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, total := rapid.Uint64().Draw(t, "weight"), rapid.Uint64().Draw(t, "total")
		if rapid.Bool().Draw(t, "near") && total < math.MaxUint64/2 {
			w = total/3*2 + rapid.Uint64Range(0, 4).Draw(t, "off")
		}
		l := new(big.Int).Mul(new(big.Int).SetUint64(w), big.NewInt(3))
		r := new(big.Int).Mul(new(big.Int).SetUint64(total), big.NewInt(2))
		if want := l.Cmp(r) > 0; Enough(w, total) != want {
			t.Fatalf("Enough(%d, %d) = %v", w, total, !want)
		}
	})
	if Enough(0, 0) {
		t.Error("nobody is enough of nobody")
	}
}

type electorate map[types.NodeID]uint64

func (e electorate) Weight(atx types.ATXID, id types.NodeID) (uint64, bool) {
	w, ok := e[id]
	return w, ok && atx[0] == id[0]
}

func (e electorate) Total() (sum uint64) {
	for _, w := range e {
		sum += w
	}
	return sum
}

func TestVerifyCertificate(t *testing.T) {
	voters := electorate{{1}: 1, {2}: 1, {3}: 1}
	valid := func(types.CertifySignature) bool { return true }
	full := func() *types.Certificate {
		return &types.Certificate{Signatures: []types.CertifySignature{message(1, 1, 1).By, message(1, 2, 1).By, message(1, 3, 1).By}}
	}
	if err := VerifyCertificate(full(), voters, valid); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*types.Certificate)
		want   error
	}{
		"one is missing":  {func(c *types.Certificate) { c.Signatures = c.Signatures[:2] }, ErrWeight},
		"nobody":          {func(c *types.Certificate) { c.Signatures = nil }, ErrWeight},
		"one signs twice": {func(c *types.Certificate) { c.Signatures[1] = c.Signatures[0] }, ErrSigners},
		"a stranger":      {func(c *types.Certificate) { c.Signatures[2].Smesher[0] = 9 }, ErrStranger},
		"another's ATX":   {func(c *types.Certificate) { c.Signatures[2].ATX[0] = 1 }, ErrStranger},
	} {
		c := full()
		tc.change(c)
		if err := VerifyCertificate(c, voters, valid); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if err := VerifyCertificate(full(), voters, func(s types.CertifySignature) bool { return s.Smesher[0] != 2 }); !errors.Is(err, ErrSignature) {
		t.Errorf("wrong signature: %v", err)
	}
}
