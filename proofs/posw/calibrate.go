package posw

import "math"

// A calibration alternates between the functions that it compares, so that what
// disturbs the machine disturbs all of them, and believes the shortest of calls.
const (
	calls = 20
	// tie is how much faster something must be to be preferred to something simpler.
	tie = 0.99
)

// fastest returns the kernel whose chain is fastest, and of those with this chain the
// one that computes most chains side by side, with a plan from what was measured. Of
// two as good as equal the earlier one is simpler.
func fastest(kernels []kernel, clock func() uint64) kernel {
	var d [maxLanes]node
	var runs []func()
	for i := range kernels {
		k := &kernels[i]
		runs = append(runs, func() { k.chain(&d[0], LeafHashes-1) })
		for _, p := range k.beside {
			runs = append(runs, func() { p.chains(&d, LeafHashes-1) })
		}
	}
	costs := measure(runs, clock)
	best, bestChain, bestRate := 0, math.Inf(1), math.Inf(1)
	for i := range kernels {
		k := &kernels[i]
		chain, beside := costs[0], costs[1:1+len(k.beside)]
		costs = costs[1+len(k.beside):]
		rate := k.weigh(chain, beside)
		same := i > 0 && kernels[best].name == k.name
		if !same && chain < tie*bestChain || same && rate < tie*bestRate {
			best, bestRate = i, rate
			if !same {
				bestChain = chain
			}
		}
	}
	return kernels[best]
}

// weigh makes the plan of a kernel from the costs of its parts, and returns what one of
// maxLanes chains costs.
func (k *kernel) weigh(chain float64, beside []float64) float64 {
	var total [maxLanes + 1]float64 // of the cheapest way to compute so many chains
	for n := 1; n <= maxLanes; n++ {
		k.plan[n], total[n] = 0, chain+total[n-1]
		for i, cost := range beside {
			if t := cost + total[max(0, n-k.beside[i].lanes)]; t < total[n] {
				k.plan[n], total[n] = i+1, t
			}
		}
	}
	return total[maxLanes] / maxLanes
}

// measure returns the shortest time that each of the functions takes.
func measure(runs []func(), clock func() uint64) []float64 {
	least := make([]float64, len(runs))
	for i := range least {
		least[i] = math.Inf(1)
	}
	for range calls {
		for i, run := range runs {
			start := clock()
			run()
			least[i] = min(least[i], float64(clock()-start))
		}
	}
	return least
}
