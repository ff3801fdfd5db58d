package hare

import (
	"errors"
	"testing"

	"tweedle/values/types"
)

func TestOpenLayersAreBounded(t *testing.T) {
	c := NewCertifier(Params{Committee: 100}, 0)
	for l := types.Layer(1); l <= 2*MaxOpenLayers; l++ {
		if _, err := c.Add(message(l, 1, 1), 1); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.layers) != MaxOpenLayers {
		t.Fatalf("%d layers of signatures", len(c.layers))
	}
	if _, err := c.Add(message(1, 2, 1), 1); !errors.Is(err, ErrOldLayer) {
		t.Fatalf("a forgotten layer: %v", err)
	}
}

func message(l types.Layer, smesher, block byte) types.CertifyMessage {
	return types.CertifyMessage{
		Decision: types.Decision{Layer: l, Block: types.BlockID{block}},
		By:       types.CertifySignature{Smesher: types.NodeID{smesher}, ATX: types.ATXID{smesher}},
	}
}
