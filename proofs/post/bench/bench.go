// Package bench measures what this machine reaches as a smesher: labels, proofs and
// verification by the kernel in use, beside the plain Go and x/crypto scrypt in one run.
// It promises figures of CPU time of one thread, in slices that alternate, so that other
// load on the machine disturbs them little, and that what is compared gave the same
// result; it leaves it to the caller to keep that load low, and to print.
package bench

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"golang.org/x/crypto/scrypt"

	"tweedle/proofs/post"
	"tweedle/proofs/posw"
	"tweedle/proofs/posw/bench"
)

// Cost is the N of labels here, mainnet's.
const Cost = 8192

// Nonces are the numbers of nonces in a pass for which proving is measured.
var Nonces = []uint32{16, 64, 128, 288}

// Figures is the result of Run. Rates are medians, ratios medians of those of slices
// beside one another.
type Figures struct {
	Processor string `json:"processor"` // as posw.Processor names it
	Kernel    string `json:"kernel"`    // in use, as post.Kernel names it
	Slices    int    `json:"slices"`    // of each measurement

	Labels       float64 `json:"labels_per_cpu_second"`
	ScalarLabels float64 `json:"scalar_labels_per_cpu_second"` // by the portable kernel
	Scrypt       float64 `json:"scrypt_per_cpu_second"`        // x/crypto, which gives no labels
	LabelRatio   float64 `json:"label_ratio"`                  // to the portable kernel
	ScryptRatio  float64 `json:"scrypt_ratio"`

	// By number of nonces: GiB of labels scanned, and that as a ratio to crypto/aes block by block.
	Prove      map[uint32]float64 `json:"prove_gib_per_cpu_second"`
	ProveRatio map[uint32]float64 `json:"prove_ratio"`

	Verify      float64 `json:"verify_ms"` // of a proof with 37 labels, all recomputed
	VerifyRatio float64 `json:"verify_ratio"`
}

// rules are mainnet's but for the smallest space that has such proofs.
func rules() post.Params {
	p := post.MainnetParams()
	p.LabelsPerUnit, p.MinUnits, p.MaxUnits, p.PoW = 64, 1, 1, post.Blake3{}
	for i := range p.PowDifficulty {
		p.PowDifficulty[i] = 0xff
	}
	return p
}

// Run measures for about that long and at least five slices of each. It makes a small
// space in dir, which must be empty. A cancelled context ends it with its error.
func Run(ctx context.Context, dir string, duration time.Duration) (Figures, error) {
	name, err := post.Kernel()
	if err != nil {
		return Figures{}, err
	}
	f := Figures{Processor: posw.Processor(), Kernel: name, Prove: map[uint32]float64{}, ProveRatio: map[uint32]float64{}}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	contests, err := contests(dir, name)
	if err != nil {
		return Figures{}, err
	}
	for start := time.Now(); time.Since(start) < duration || f.Slices < 5; f.Slices++ {
		for _, c := range contests {
			if err := ctx.Err(); err != nil {
				return Figures{}, err
			}
			if err := c.slice(); err != nil {
				return Figures{}, err
			}
		}
	}
	labels, prove, verify := contests[0], contests[1:len(contests)-1], contests[len(contests)-1]
	f.Labels, f.ScalarLabels, f.Scrypt = labels.rate(0), labels.rate(1), labels.rate(2)
	f.LabelRatio, f.ScryptRatio = labels.ratio(1), labels.ratio(2)
	for i, n := range Nonces {
		f.Prove[n], f.ProveRatio[n] = prove[i].rate(0)/(1<<30), prove[i].ratio(1)
	}
	f.Verify, f.VerifyRatio = 1000/verify.rate(0), verify.ratio(1)
	return f, nil
}

// contest is what is measured side by side. All of it must give the same result, but
// for what has none.
type contest struct {
	entrants []entrant
	rates    [][]float64 // by entrant and slice: work per second of CPU time
}

type entrant struct {
	work float64 // in a run
	run  func() (result any, err error)
}

func (c *contest) slice() error {
	if c.rates == nil {
		c.rates = make([][]float64, len(c.entrants))
	}
	var first any
	for i, e := range c.entrants {
		begin := bench.ThreadTime()
		result, err := e.run()
		spent := bench.ThreadTime() - begin
		if err != nil {
			return err
		}
		if first == nil {
			first = result
		} else if result != nil && result != first {
			return fmt.Errorf("two kernels of this machine disagree, do not use it: %v and %v", first, result)
		}
		c.rates[i] = append(c.rates[i], e.work/max(spent.Seconds(), 1e-9))
	}
	return nil
}

func (c *contest) rate(i int) float64 { return bench.NewSpread(c.rates[i]).Median }

// ratio is that of the first entrant to another.
func (c *contest) ratio(to int) float64 {
	ratios := make([]float64, len(c.rates[0]))
	for i := range ratios {
		ratios[i] = c.rates[0][i] / c.rates[to][i]
	}
	return bench.NewSpread(ratios).Median
}

// contests returns labels, scanning for each of Nonces, and verification, each of the
// kernel in use with the portable one.
func contests(dir, name string) ([]*contest, error) {
	var ours, plain post.Engine
	for _, e := range post.Engines() {
		if e.Name() == name {
			ours = e
		}
		if e.Name() == "portable" {
			plain = e
		}
	}
	all := []*contest{labels(ours, plain)}
	buffer := make([]byte, 4<<20)
	random := rand.NewChaCha8([32]byte{})
	random.Read(buffer) //nolint:errcheck // it never fails
	for _, n := range Nonces {
		c := new(contest)
		part := buffer[:min(len(buffer), len(buffer)*16/int(n)&^0x7fff)]
		for _, e := range []post.Engine{ours, plain} {
			scan := e.NewScan([32]byte{1}, n, 26, 4<<32)
			size := part
			c.entrants = append(c.entrants, entrant{float64(len(size)), func() (any, error) { return scan(size), nil }})
		}
		all = append(all, c)
	}
	p := rules()
	setup := post.Setup{NodeID: [32]byte{1}, CommitmentATX: [32]byte{2}, NumUnits: 1}
	if _, err := post.Init(dir, p, setup, post.InitOptions{}); err != nil {
		return nil, err
	}
	data, err := post.Open(dir)
	if err != nil {
		return nil, err
	}
	proof, err := data.Prove([32]byte{3}, p, post.ProveOptions{})
	if err != nil {
		return nil, err
	}
	m := post.ProofMetadata{NodeID: setup.NodeID, CommitmentATX: setup.CommitmentATX, Challenge: [32]byte{3}, NumUnits: 1}
	verify := new(contest)
	for _, e := range []post.Engine{ours, plain} {
		verify.entrants = append(verify.entrants, entrant{1, func() (any, error) { return nil, e.Verify(proof, m, p, post.All()) }})
	}
	return append(all, verify), nil
}

// labels compares some labels of each kernel, which fill the lanes of all, and a quarter
// as many of scrypt, which costs as much but has another result.
func labels(ours, plain post.Engine) *contest {
	const n = 120
	c := new(contest)
	for _, e := range []post.Engine{ours, plain} {
		l := e.NewLabeler(Cost)
		indices, out := make([]uint64, n), make([][32]byte, n)
		c.entrants = append(c.entrants, entrant{n, func() (any, error) {
			for i := range indices {
				indices[i] += uint64(i + 1)
			}
			l.Labels([32]byte{}, indices, out)
			sum := sha256.New()
			for _, label := range out {
				sum.Write(label[:])
			}
			return [32]byte(sum.Sum(nil)), nil
		}})
	}
	c.entrants = append(c.entrants, entrant{n / 4, func() (any, error) {
		for i := range byte(n / 4) {
			if _, err := scrypt.Key([]byte{i}, nil, Cost, 1, 1, 32); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}})
	return c
}

// Words writes the figures for people.
func (f Figures) Words() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, kernel %s, %d slices, per second of one thread\n", f.Processor, f.Kernel, f.Slices)
	if f.Kernel == "portable" {
		b.WriteString("SKIPPED: no other kernel runs on this processor or it was not chosen, so nothing is compared\n")
	}
	fmt.Fprintf(&b, "labels at N = %d      %8.0f   %5.2f x plain Go (%.0f), %.2f x x/crypto scrypt (%.0f)\n",
		Cost, f.Labels, f.LabelRatio, f.ScalarLabels, f.ScryptRatio, f.Scrypt)
	for _, n := range Nonces {
		fmt.Fprintf(&b, "prove, %3d nonces      %8.3f GiB   %5.2f x crypto/aes block by block\n", n, f.Prove[n], f.ProveRatio[n])
	}
	fmt.Fprintf(&b, "verify 37 labels       %8.1f ms   %5.2f x plain Go\n", f.Verify, f.VerifyRatio)
	return b.String()
}
