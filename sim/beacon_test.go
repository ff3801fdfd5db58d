package sim

import (
	"slices"
	"testing"
)

// Nobody's lies about the beacon leave two honest nodes with two, nor without layers: Run looks
// at both in every seed.
func TestABeaconHoldsAgainstAThird(t *testing.T) {
	for _, name := range []string{"beacon-withheld", "beacon-late", "beacon-split", "beacon-two-faces", "beacon-ground"} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(6) {
				r := play(t, Options{Seed: seed, Nodes: 10, Epochs: 4, Hostile: slices.Repeat([]string{name}, 3), Strangers: []string{}, Faults: calm()})
				if r.Empty > r.Layers/5 {
					t.Errorf("seed %d: %d of %d layers are empty", seed, r.Empty, r.Layers)
				}
			}
		})
	}
}
