package eligibility

import (
	"errors"
	"math"
	"testing"

	"tweedle/values/signing"
	"tweedle/values/types"
)

var params = Params{LayerSize: 20, LayersPerEpoch: 10}

func TestSlotsAreTheShareOfTheWeightAndAtLeastOne(t *testing.T) {
	for _, tc := range []struct {
		p             Params
		weight, total uint64
		want          uint32
	}{
		{params, 100, 500, 40},
		{params, 1, 1 << 40, 1},
		{params, 0, 0, 1},
		{params, 500, 500, 200},
		{Params{20, 10, 1000}, 100, 500, 20},
		{params, math.MaxUint64, math.MaxUint64, 200},
		{params, math.MaxUint64, 1, MaxSlots},
	} {
		if got := Slots(tc.p, tc.weight, tc.total); got != tc.want {
			t.Errorf("Slots(%v, %d, %d) = %d, want %d", tc.p, tc.weight, tc.total, got, tc.want)
		}
	}
}

func TestWhatIsAssignedVerifiesAndNothingElse(t *testing.T) {
	id, err := signing.NewSigner(signing.SeedFrom("e"), types.GenesisID{})
	if err != nil {
		t.Fatal(err)
	}
	const epoch, nonce, slots = 3, 77, 40
	beacon := types.Beacon{1, 2, 3, 4}
	assigned := Assign(params, id, beacon, epoch, nonce, slots)
	total := 0
	for layer, proofs := range assigned {
		total += len(proofs)
		if uint32(layer)/params.LayersPerEpoch != epoch {
			t.Fatalf("layer %d is not in the epoch", layer)
		}
		good := Claim{id.NodeID(), layer, beacon, nonce, slots, proofs}
		if err := verify(good); err != nil {
			t.Fatal(err)
		}
		for name, tc := range map[string]struct {
			change func(*Claim)
			want   error
		}{
			"no proof":       {func(c *Claim) { c.Proofs = nil }, ErrNone},
			"repeated":       {func(c *Claim) { c.Proofs = []types.Eligibility{proofs[0], proofs[0]} }, ErrOrder},
			"fewer slots":    {func(c *Claim) { c.Slots = proofs[len(proofs)-1].J }, ErrSlot},
			"next layer":     {func(c *Claim) { c.Layer = epoch*10 + (c.Layer+1)%10 }, ErrLayer},
			"another beacon": {func(c *Claim) { c.Beacon[0]++ }, ErrProof},
			"another nonce":  {func(c *Claim) { c.VRFNonce++ }, ErrProof},
			"another id":     {func(c *Claim) { c.Smesher[0]++ }, ErrProof},
		} {
			bad := good
			tc.change(&bad)
			if err := verify(bad); !errors.Is(err, tc.want) {
				t.Errorf("%s: %v, want %v", name, err, tc.want)
			}
		}
	}
	if total != slots {
		t.Fatalf("%d slots assigned, want %d", total, slots)
	}
}

func verify(c Claim) error {
	if err := c.Check(params); err != nil {
		return err
	}
	return c.Verify(params, signing.VerifyVRF)
}
