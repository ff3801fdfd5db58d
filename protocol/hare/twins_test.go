package hare

import (
	"math/big"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

// Twins are two honest sessions with one key, each heard by its own part of the others in
// each round (arXiv 2004.10617). A scenario has a row for each other smesher: a bit for
// each pair of twins and each round in which somebody speaks, which of the two it hears.

// twinRounds are those of two iterations in which somebody speaks; then it begins again.
var twinRounds = []Round{Preround, Propose, Commit, Notify, Propose.In(1), Commit.In(1), Notify.In(1)}

// renamings change a row as if twins, or pairs of twins, had exchanged their names.
func renamings(pairs int) (out []func(uint16) uint16) {
	n := len(twinRounds)
	all := uint16(1)<<n - 1
	for swap := range 1 << pairs {
		var mask uint16
		for pair := range pairs {
			if swap>>pair&1 == 1 {
				mask |= all << (n * pair)
			}
		}
		out = append(out, func(row uint16) uint16 { return row ^ mask })
		if pairs == 2 {
			out = append(out, func(row uint16) uint16 { return (row&all<<n | row>>n) ^ mask })
		}
	}
	return out
}

// canonical returns the scenario that stands for all that differ in names only.
func canonical(rows []uint16, pairs int) []uint16 {
	var least []uint16
	for _, rename := range renamings(pairs) {
		other := make([]uint16, len(rows))
		for i, r := range rows {
			other[i] = rename(r)
		}
		if slices.Sort(other); least == nil || slices.Compare(other, least) < 0 {
			least = other
		}
	}
	return least
}

// countScenarios returns how many canonical ones there are (Burnside): for each renaming, the
// multisets of rows that it leaves as they are are those of its cycles.
func countScenarios(others, pairs int) *big.Int {
	total := new(big.Int)
	group := renamings(pairs)
	for _, rename := range group {
		cycles := map[int]int64{}
		for row := range uint32(1) << (len(twinRounds) * pairs) {
			length := 1
			for x := rename(uint16(row)); x != uint16(row); x = rename(x) {
				length++
			}
			cycles[length]++
		}
		fixed := []*big.Int{big.NewInt(1)} // by size of the multiset
		for range others {
			fixed = append(fixed, new(big.Int))
		}
		for length, rows := range cycles {
			next := make([]*big.Int, others+1)
			for size := range next {
				next[size] = new(big.Int)
				for k := int64(0); int(k)*length <= size; k++ {
					ways := new(big.Int).Binomial(rows/int64(length)+k-1, k)
					next[size].Add(next[size], ways.Mul(ways, fixed[size-int(k)*length]))
				}
			}
			fixed = next
		}
		total.Add(total, fixed[others])
	}
	return total.Div(total, big.NewInt(int64(len(group))))
}

// drawScenarios returns all canonical scenarios if they are at most so many, else so many of them.
func drawScenarios(others, pairs, most int, seed uint64) (out [][]uint16) {
	rng := rand.New(rand.NewPCG(seed, 0x7477696e))
	seen := map[string]bool{}
	for want := countScenarios(others, pairs); len(out) < most && big.NewInt(int64(len(out))).Cmp(want) < 0; {
		rows := make([]uint16, others)
		for i := range rows {
			rows[i] = uint16(rng.Uint32N(1 << (len(twinRounds) * pairs)))
		}
		rows = canonical(rows, pairs)
		key := ""
		for _, r := range rows {
			key += string(rune(r)) + " "
		}
		if !seen[key] {
			seen[key] = true
			out = append(out, rows)
		}
	}
	return out
}

// hears tells which twin of a pair a row hears in a round, 1 or 2.
func hears(row uint16, pair int, r Round) int {
	i := slices.Index(twinRounds, r)
	if i < 0 { // of later iterations
		i = slices.Index(twinRounds, r.Kind().In(r.Iteration()%2))
	}
	return 1 + int(row>>(len(twinRounds)*pair+i)&1)
}

// twins builds the world of a scenario.
func twins(seed uint64, others, pairs int, rows []uint16) (w *world, honest []*node) {
	w = newWorld(seed, published, lockStep)
	all := proposals(4)
	for i := range others + pairs {
		k := keyOf(seed, i)
		w.member(k, 1000)
		if i < others {
			honest = append(honest, w.node(k, some(w.rng, all)))
			continue
		}
		w.liars = append(w.liars, k)
		for half := 1; half <= 2; half++ {
			w.node(k, some(w.rng, all)).half = half
		}
	}
	last := w.rng.IntN(2) == 0 // the twins are heard when it is too late to tell others in time
	hop := w.between
	w.between = func(from, to *node, m *heard) (time.Time, bool) {
		at, ok := hop(from, to, m)
		own := from.half > 0 && from.key.NodeID() == m.Smesher
		switch {
		case to.half > 0 && to.key.NodeID() == m.Smesher: // a twin does not hear the other
			return at, false
		case !own || to.half > 0:
			return at, ok
		case hears(rows[to.n], slices.Index(w.liars, from.key), m.Round) != from.half:
			return at, false
		case last:
			at = to.starts(m.Round.slot() + 1).Add(-1)
		}
		w.tells(m)
		return at, ok
	}
	return w, honest
}

// No two honest nodes have different results, whoever of them hears which twin in which
// round, and every equivocation is a twin's.
func TestTwinsCannotSplitHare(t *testing.T) {
	most := 1000
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		most = 5000
	}
	for _, c := range []struct{ identities, pairs int }{{4, 1}, {7, 1}, {7, 2}} {
		others := c.identities - c.pairs
		scenarios := drawScenarios(others, c.pairs, most, 1)
		proved, ends := 0, map[int]int{}
		for i, rows := range scenarios {
			w, honest := twins(uint64(i), others, c.pairs, rows)
			w.run()
			v := w.judge(honest)
			if v.disagree || v.wrong != "" {
				t.Errorf("scenario %d %v of %d identities and %d twins: disagreement %v; %s", i, rows, c.identities, c.pairs, v.disagree, v.wrong)
			}
			proved += len(honest[0].proved)
			if v.slots < never {
				ends[Round(v.slots).Iteration()]++
			}
		}
		t.Logf("%d identities, %d twins: %d of %s canonical scenarios; %d twins proved; iterations: %s",
			c.identities, c.pairs, len(scenarios), countScenarios(others, c.pairs), proved, table(ends))
	}
}

// Two twins of four are half of the weight: nothing is promised, and nothing breaks.
func TestTwoTwinsOfFourAreSurvived(t *testing.T) {
	differ := 0
	scenarios := drawScenarios(2, 2, 100, 1)
	for i, rows := range scenarios {
		w, honest := twins(uint64(i), 2, 2, rows)
		if w.run(); w.judge(honest).disagree {
			differ++
		}
	}
	t.Logf("4 identities, 2 twins: %d of %s canonical scenarios; %d have different results", len(scenarios), countScenarios(2, 2), differ)
}

// The count is right where all can be listed.
func TestScenariosAreCounted(t *testing.T) {
	seen := map[[2]uint16]bool{}
	for a := range uint16(1) << len(twinRounds) {
		for b := range uint16(1) << len(twinRounds) {
			seen[[2]uint16(canonical([]uint16{a, b}, 1))] = true
		}
	}
	if got := countScenarios(2, 1); got.Int64() != int64(len(seen)) {
		t.Errorf("counted %s scenarios of two smeshers, and listed %d", got, len(seen))
	}
	if all := drawScenarios(1, 1, 1000, 1); len(all) != 64 {
		t.Errorf("%d of 64 scenarios of one smesher were drawn", len(all))
	}
}
