package tortoise

import (
	"math/rand/v2"
	"os"
	"testing"

	"tweedle/values/types"
)

// healBound is within how many layers after a partition all honest members have
// one opinion again (docs/decisions/0011-tortoise.md).
const healBound = 16

// weather is what a seed draws.
type weather struct {
	size, evil, small int // members; byzantine ones; honest ones of the small side
	length            types.Layer
	loss              float64
	lie               lie
	twoBlocks         bool // each side has a result of Hare, else at most the one with most members
	common            bool // all see the same coin in every layer, else in three of four
}

func draw(rng *rand.Rand) weather {
	w := weather{size: 10, loss: 0.3 * rng.Float64(), lie: lie(1 + rng.IntN(3)), twoBlocks: rng.IntN(2) == 0, common: rng.IntN(2) == 0}
	w.evil = rng.IntN(4) // of ten: under a third
	w.small = (w.size - w.evil) * []int{3, 5}[rng.IntN(2)] / 10
	w.length = []types.Layer{1, 10, 10, 1, 10, 100, 1, 10}[rng.IntN(8)]
	return w
}

// run plays a seed: some layers as one, a partition, and layers after it. It
// returns how many layers after the partition opinions differed, and a digest of all that was
// said.
func run(t *testing.T, seed uint64) (w weather, apart types.Layer, digest types.Hash32) {
	rng := rand.New(rand.NewPCG(seed, 0))
	w = draw(rng)
	p := Params{
		LayersPerEpoch: 10, Hdist: 4, Zdist: 2, Window: 20, BadBeaconDelay: 8,
		MaxExceptions: 500, MaxLayers: 400, MaxBallots: 50, MaxBlocks: 8, MaxOpinions: 1 << 17,
	}
	n := newNetwork(t, p, w.size, rng)
	n.loss = w.loss
	for i := range w.evil {
		k := n.nodes[w.size-1-i]
		if k.evil = w.lie; w.lie == withheld {
			k.show = func(*member) types.Layer { return types.Layer(rng.IntN(6)) }
		}
	}
	const before = 8
	healed := before + w.length
	for range healed + healBound + 8 {
		n.begin()
		split := n.layer > before && n.layer <= healed
		for i, k := range n.nodes {
			k.side = 0
			if split && i < w.small {
				k.side = 1
			}
		}
		n.vote()
		n.decide(w, split)
		n.toss(w, split)
		n.end()
		if n.layer > healed && !n.one() {
			apart = n.layer - healed
		}
		for _, k := range n.nodes {
			s, _ := k.Layer(n.layer)
			digest = types.Sum(digest[:], s.Opinion[:], []byte{byte(k.verified), byte(k.verified >> 8)})
		}
	}
	return w, apart, digest
}

// decide gives Hare's results of the running layer.
func (n *network) decide(w weather, split bool) {
	if n.rng.IntN(10) == 0 {
		return // it has none
	}
	results := []types.BlockID{n.block('X'), n.block('Y')}
	for _, k := range n.nodes {
		side := k.side
		if split && !w.twoBlocks && (side == 1 || 2*(w.size-w.evil-w.small) <= w.size) {
			continue
		}
		n.tell(k, n.layer, results[side])
	}
}

// toss gives the weak coin.
func (n *network) toss(w weather, split bool) {
	common, up := w.common || n.rng.IntN(4) > 0, n.rng.IntN(2) == 0
	for _, k := range n.nodes {
		if !common || split && k.side == 1 {
			up = n.rng.IntN(2) == 0
		}
		k.Coin(n.layer, up)
	}
}

// Networks that were split 50/50 or 30/70 for 1, 10 or 100 layers, with lost
// messages and up to three byzantine members of ten, have one opinion again
// within healBound layers; nothing that one verified is ever undone or verified otherwise.
func TestPartitionsHeal(t *testing.T) {
	seeds := uint64(200)
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		seeds = 4000
	}
	worst, layers := map[types.Layer]types.Layer{}, types.Layer(0)
	for seed := range seeds {
		w, apart, digest := run(t, seed)
		if apart > healBound {
			t.Errorf("seed %d: opinions still differ %d layers after the partition: %+v", seed, apart, w)
		}
		if _, _, again := run(t, seed); again != digest {
			t.Fatalf("seed %d gives another run the second time", seed)
		}
		worst[w.length] = max(worst[w.length], apart)
		layers += w.length + 8 + healBound + 8
	}
	t.Logf("%d seeds, %d layers, each twice; opinions differed for at most so many layers after a partition of 1, 10, 100: %d, %d, %d",
		seeds, layers, worst[1], worst[10], worst[100])
}

// Three of ten know all, and show two ballots to some before they vote and to the
// others after: the ones see a margin above the local threshold, the others one in
// doubt, and what the honest add against it the three make up for. So they keep
// them apart for as long as the coin falls as they need it, and not one layer longer.
func TestTheCoinEndsABalanceThatIsHeld(t *testing.T) {
	p := Params{
		LayersPerEpoch: 100, Hdist: 3, Zdist: 2, Window: 6, BadBeaconDelay: 4,
		MaxExceptions: 100, MaxLayers: 60, MaxBallots: 20, MaxBlocks: 4, MaxOpinions: 1 << 14,
	}
	n := newNetwork(t, p, 10, rand.New(rand.NewPCG(1, 1)))
	const held = 30
	var X Choice
	for n.layer < held+4 {
		n.begin()
		for i, k := range n.nodes[7:] {
			k.evil, k.want = scripted, map[types.Layer]Choice{3: X}
			late := types.Layer(1) // to those in doubt, and what is against the block to all
			if n.layer > 5 && i == 2 {
				k.want[3] = Choice{}
				k.show = func(*member) types.Layer { return late }
			} else {
				k.show = func(to *member) types.Layer { return late * types.Layer(to.side) }
			}
		}
		// What is shown late is no part of a side: all honest hear each other.
		for i, k := range n.nodes {
			k.side = 0
			if i >= 3 && i < 7 {
				k.side = 1
			}
		}
		n.apart = false
		n.vote()
		id := n.block('X')
		for i, k := range n.nodes {
			if n.layer == 3 && i >= 3 && i < 7 {
				n.tell(k, 3, types.EmptyBlock)
				continue
			}
			n.tell(k, n.layer, id)
		}
		if n.layer == 3 {
			X = choose(n.blocks[id])
			for _, k := range n.nodes {
				if err := k.Block(3, id, X.Height); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, k := range n.nodes {
			k.Coin(n.layer, n.layer > held)
		}
		n.end()
		if apart := !n.one(); apart != (n.layer > 5 && n.layer <= held) {
			t.Errorf("layer %d: apart %t: %s and %s", n.layer, apart, n.nodes[0].view(), n.nodes[6].view())
		}
	}
}
