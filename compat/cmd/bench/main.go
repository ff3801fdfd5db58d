// Command bench runs the published PoET and ours side by side and prints what
// docs/performance.md shows: tables, then one line of JSON. The two alternate in short
// slices of one process, times are CPU time of the process, figures are medians unless
// a table says otherwise, and the published verifier checks every proof.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"slices"
	"time"

	"tweedle/proofs/posw"
	"tweedle/proofs/posw/bench"
)

func main() {
	log.SetFlags(0)
	rounds := flag.Int("rounds", 9, "slices of each prover")
	length := flag.Duration("slice", 2*time.Second, "length of a slice")
	kernel := flag.String("kernel", os.Getenv("TWEEDLE_KERNEL"), "SHA-256 kernel of our side")
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if *kernel != "" {
		if err := posw.UseKernel(*kernel); err != nil {
			log.Fatal(err)
		}
	}
	if err := run(*rounds, *length); err != nil {
		log.Fatal(err)
	}
}

// proofCores is the number of cores that share the making of a proof.
const proofCores = 2

// keep is the height of the nodes our prover keeps: the default of the PoET server.
const keep = 14

// summary is the last line of the output. A ratio that this machine cannot give is null.
type summary struct {
	Processor        string   `json:"processor"`
	Kernel           string   `json:"kernel"`
	ProverRatio      float64  `json:"prover_ratio"`       // our leaves per CPU second to the reference's
	ProverFloorShare *float64 `json:"prover_floor_share"` // latency floor to our time
	VerifyRatio      float64  `json:"verify_ratio"`       // our CPU time to the reference's, one proof
	ProofTimeRatio   float64  `json:"proof_time_ratio"`   // our CPU time a core, on two, to one chain's on one core
	StoredBytesRatio float64  `json:"stored_bytes_ratio"` // ours per leaf to the reference's
}

func run(rounds int, length time.Duration) error {
	kernel, err := posw.Kernel()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("%s, kernel %s\ngithub.com/spacemeshos/poet v0.10.10 and tweedle, %s, %d cores, %d slices of %v\n\n",
		posw.Processor(), kernel, runtime.Version(), runtime.NumCPU(), rounds, length)

	var m measurements
	for i := range rounds {
		if err := m.slices(dir, i, length); err != nil {
			return err
		}
	}
	if err := m.proof(); err != nil {
		return err
	}
	s := m.summary()
	s.Processor, s.Kernel = posw.Processor(), kernel
	m.print(s)
	m.spreads()
	if err := m.kernels(length); err != nil {
		return err
	}
	if s.ProverFloorShare == nil {
		fmt.Print("\nSKIPPED: this processor has no SHA-NI. The share of the floor is not measured, and the ratios say nothing about the targets.\n")
	}
	fmt.Println()
	return json.NewEncoder(os.Stdout).Encode(s)
}

func (m *measurements) summary() summary {
	s := summary{
		ProverRatio:      median(m.reference.perLeaf) / median(m.ours.perLeaf),
		VerifyRatio:      median(m.ours.verify) / median(m.reference.verify),
		ProofTimeRatio:   median(m.proveCPU) / proofCores / m.chainTime,
		StoredBytesRatio: median(m.ours.stored) / median(m.reference.stored),
	}
	if len(m.floorShare) > 0 {
		share := median(m.floorShare)
		s.ProverFloorShare = &share
	}
	return s
}

func (m *measurements) print(s summary) {
	row := func(what, format string, reference, ours any, ratio float64) {
		text := func(v any) string {
			if v == nil {
				return "-"
			}
			return fmt.Sprintf(format, v)
		}
		fmt.Printf("| %s | %s | %s | %.3g |\n", what, text(reference), text(ours), ratio)
	}
	fmt.Println("| | reference | ours | ratio |")
	fmt.Println("|---|---|---|---|")
	row("prover, CPU ns per leaf", "%.0f", median(m.reference.perLeaf), median(m.ours.perLeaf), 1/s.ProverRatio)
	row("prover, leaves per CPU second", "%.0f", 1e9/median(m.reference.perLeaf), 1e9/median(m.ours.perLeaf), s.ProverRatio)
	if s.ProverFloorShare != nil {
		row("latency floor, ns per leaf (share reached)", "%.0f", nil, median(m.floor), *s.ProverFloorShare)
	}
	row("verify one proof on one core, CPU µs", "%.0f", median(m.reference.verify)/1e3, median(m.ours.verify)/1e3, s.VerifyRatio)
	row(fmt.Sprintf("proofs verified per second on %d cores, wall", runtime.GOMAXPROCS(0)), "%.0f", m.reference.verifyRate, m.ours.verifyRate, m.ours.verifyRate/m.reference.verifyRate)
	row("stored bytes per leaf", "%.5f", median(m.reference.stored), median(m.ours.stored), s.StoredBytesRatio)
	fmt.Printf("| proof at k = %d, %d leaves recomputed, CPU seconds a core | %.2f (one chain, one core) | %.2f (%d cores) | %.3g |\n",
		keep, m.recomputed, m.chainTime, median(m.proveCPU)/proofCores, proofCores, s.ProofTimeRatio)
	fmt.Printf("\nThe proof took %.2f s of wall time, the best of %d: %.3g of one chain's CPU time. Other load on the machine lengthens it.\n",
		slices.Min(m.proveWall), len(m.proveWall), slices.Min(m.proveWall)/m.chainTime)
}

// spreads prints how the slices differ.
func (m *measurements) spreads() {
	fmt.Println("\n| | min | median | mean | max |\n|---|---|---|---|---|")
	row := func(what string, values []float64) {
		if len(values) > 0 {
			s := bench.NewSpread(values)
			fmt.Printf("| %s | %.0f | %.0f | %.0f | %.0f |\n", what, s.Min, s.Median, s.Mean, s.Max)
		}
	}
	row("reference, CPU ns per leaf", m.reference.perLeaf)
	row("ours, CPU ns per leaf", m.ours.perLeaf)
	row("latency floor, ns per leaf", m.floor)
	row("reference, verify, CPU ns", m.reference.verify)
	row("ours, verify, CPU ns", m.ours.verify)
}

// kernels prints what each kernel reaches, by itself and while it is preempted all the
// time.
func (m *measurements) kernels(length time.Duration) error {
	for _, beside := range []string{"", " beside goroutines that spin"} {
		stop := func() {}
		if beside != "" {
			stop = bench.Spin()
		}
		figures, err := bench.Kernels(context.Background(), 2*length, statement(), &m.lastProof)
		stop()
		if err != nil {
			return err
		}
		fmt.Printf("\nEach kernel%s, CPU time of its thread in slices of half a millisecond:\n\n%s", beside, bench.Table(figures))
	}
	return nil
}

// median returns the middle of the values.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
