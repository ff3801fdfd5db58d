package hare

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// published are the parameters of the published protocol, with more iterations: of one
// that fails for the lowest ticket of a liar, four would end one layer in a hundred.
var published = Params{Committee: 400, Leaders: 5, Iterations: 8, Round: round}

// The weathers. In the first three a message that one honest node has reaches all within a
// round, also by clocks that differ; in the third all but surely.
var (
	lockStep = weather{name: "lock-step", hop: round / 100}
	delayed  = weather{name: "delays, skew, duplicates", hop: 2 * round / 5, skew: round / 10, twice: 0.1}
	lossy    = weather{name: "loss of 0 to 30 %, sent again", hop: round / 10, skew: round / 10, loss: 0.3, twice: 0.1}
	broken   = weather{name: "loss of 0 to 30 %, not sent again", hop: 3 * round / 10, skew: round / 10, loss: 0.3, gone: true, twice: 0.1}
	stormy   = weather{name: "delays of up to three rounds", hop: 3 * round, skew: round / 2, loss: 0.3, gone: true, twice: 0.1}
)

func seeds(short int) int {
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		return 20_000
	}
	return short
}

// play runs the world of a seed.
func play(seed uint64, wet weather, strategy int, share float64) (*world, verdict) {
	w := layer(seed, published, wet, strategy, share)
	honest := slices.Clone(w.nodes)
	w.run()
	return w, w.judge(honest)
}

// With less than a third of the weight hostile no two honest nodes have different
// results, whoever says two things is proved to, and nobody else is; in a network that
// keeps its time all have a result within the bound.
func TestLessThanAThirdCannotSplitHare(t *testing.T) {
	n := seeds(500)
	synchronous, inTime, coins := 0, 0, 0
	ends := map[int]int{}
	for seed := range uint64(n) {
		strategy := pick(seed)
		wet := []weather{lockStep, delayed, lossy}[seed%3]
		w, v := play(seed, wet, strategy, 1./3)
		if v.disagree || v.wrong != "" {
			t.Errorf("seed %d, %s, who %s: disagreement %v; %s", seed, wet.name, lies[strategy].name, v.disagree, v.wrong)
		}
		if again, _ := play(seed, wet, strategy, 1./3); again.digest != w.digest {
			t.Fatalf("seed %d: two runs differ", seed)
		}
		if wet.loss > 0 {
			continue
		}
		synchronous++
		if v.coins {
			coins++
		}
		if v.slots <= published.Slots() {
			inTime++
			ends[Round(v.slots).Iteration()]++
		} else {
			t.Logf("seed %d, %s, who %s: no result within %s", seed, wet.name, lies[strategy].name, published.Bound())
		}
	}
	if short := synchronous - inTime; short*1000 > synchronous {
		t.Errorf("%d of %d synchronous seeds have no result within %d slots", short, synchronous, published.Slots())
	}
	t.Logf("%d seeds, each twice; %d of %d synchronous ones had the result within %d slots; iterations: %s; one coin for all in %d",
		n, inTime, synchronous, published.Slots(), table(ends), coins)
}

func table(ends map[int]int) string {
	var out []string
	for i := range published.Iterations + 1 {
		out = append(out, fmt.Sprint(ends[i]))
	}
	return strings.Join(out, " ")
}

// With more hostile weight, or a network slower than its rounds, results may be lost or
// differ: it is said how often, and nothing worse happens.
func TestMoreThanAThirdAndASlowNetworkAreSurvived(t *testing.T) {
	n := seeds(500) / 5
	for _, c := range []struct {
		share float64
		wet   weather
	}{{0.34, delayed}, {0.40, delayed}, {0.45, delayed}, {1. / 3, broken}, {1. / 3, stormy}} {
		differ, none := 0, 0
		for seed := range uint64(n) {
			_, v := play(seed, c.wet, pick(seed), c.share)
			if v.disagree {
				differ++
			}
			if v.slots == never {
				none++
			}
			if strings.Contains(v.wrong, "proved") {
				t.Errorf("seed %d: %s", seed, v.wrong)
			}
		}
		t.Logf("%.0f %% hostile, %s: of %d seeds %d have different results, %d none somewhere", 100*c.share, c.wet.name, n, differ, none)
	}
}

// Each strategy against each weather, so that none is left to chance.
func TestEveryLieInEveryWeather(t *testing.T) {
	for i, lie := range lies {
		for _, wet := range []weather{lockStep, delayed, lossy} {
			for seed := range uint64(seeds(500)) / 100 {
				if _, v := play(1<<32+seed, wet, i, 1./3); v.disagree || v.wrong != "" {
					t.Errorf("seed %d, %s, who %s: disagreement %v; %s", seed, wet.name, lie.name, v.disagree, v.wrong)
				}
			}
		}
	}
}
