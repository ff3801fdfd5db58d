package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spacemeshos/merkle-tree/cache"
	"github.com/spacemeshos/poet/hash"
	"github.com/spacemeshos/poet/logging"
	"github.com/spacemeshos/poet/prover"
	"github.com/spacemeshos/poet/shared"
	"github.com/spacemeshos/poet/verifier"
	"go.uber.org/zap"

	"tweedle/proofs/posw"
	"tweedle/proofs/posw/bench"
	"tweedle/values/types"
)

// side holds what was measured of one of the two, a value a slice.
type side struct {
	perLeaf    []float64 // CPU ns
	stored     []float64 // bytes per leaf
	verify     []float64 // CPU ns
	verifyRate float64   // proofs per second on all cores
}

type measurements struct {
	reference, ours side
	floor           []float64 // ns per leaf of ours
	floorShare      []float64
	lastProof       types.PoetProof

	proofLeaves, recomputed uint64
	proveWall, proveCPU     []float64 // seconds
	chainTime               float64   // seconds
}

// statement is that of the vectors in reference/poet.md 1.10.
func statement() []byte {
	s := make([]byte, 32)
	for i := range s {
		s[i] = byte(7*i + 1)
	}
	return s
}

// slices measures one slice of each.
func (m *measurements) slices(dir string, round int, length time.Duration) error {
	proof, leaves, err := m.sliceOfReference(filepath.Join(dir, fmt.Sprint(round)), length)
	if err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	runtime.GC() // its memory is not ours to collect
	if err := m.sliceOfOurs(length); err != nil {
		return fmt.Errorf("ours: %w", err)
	}
	if err := referenceVerify(proof, leaves); err != nil {
		return fmt.Errorf("reference's proof, reference's verifier: %w", err)
	}
	same := fromReference(proof, leaves)
	if err := posw.Verify(statement(), &same, 1); err != nil {
		return fmt.Errorf("reference's proof, our verifier: %w", err)
	}
	return m.verifies(toReference(&m.lastProof))
}

// sliceOfReference runs the published prover with its usual share of layers on disk:
// 11 is what its default settings give on a mainnet round (reference/poet.md 2).
func (m *measurements) sliceOfReference(dir string, length time.Duration) (shared.MerkleProof, uint64, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return shared.MerkleProof{}, 0, err
	}
	var work time.Duration
	start := bench.CPUTime()
	done := func(context.Context, *cache.Writer, uint64) error {
		work = bench.CPUTime() - start
		return nil
	}
	quiet := logging.NewContext(context.Background(), zap.NewNop())
	leaves, proof, err := prover.GenerateProof(quiet, prometheus.NewCounter(prometheus.CounterOpts{}),
		prover.TreeConfig{MinMemoryLayer: 11, Datadir: dir, FileWriterBufSize: 4096},
		hash.GenLabelHashFunc(statement()), hash.GenMerkleHashFunc(statement()), time.Now().Add(length), shared.T, done)
	if err != nil {
		return shared.MerkleProof{}, 0, err
	}
	m.reference.perLeaf = append(m.reference.perLeaf, float64(work)/float64(leaves))
	size, err := sizeOf(dir)
	m.reference.stored = append(m.reference.stored, float64(size)/float64(leaves))
	return *proof, leaves, errors.Join(err, os.RemoveAll(dir))
}

// sizeOf returns the bytes in the files of a folder.
func sizeOf(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

// sliceOfOurs runs our prover, a fresh tree as well, on a locked thread. The floor is
// measured ten times in between, outside of the prover's time.
func (m *measurements) sliceOfOurs(length time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := posw.NewProver(statement(), keep)
	kept := make([]byte, 0, 1<<16)
	var work time.Duration
	var floors []float64
	for end := time.Now().Add(length); time.Now().Before(end); {
		start := bench.ThreadTime()
		for part := time.Now(); time.Since(part) < length/10; {
			kept = p.Advance(64, kept)
		}
		work += bench.ThreadTime() - start
		if floor, ok := bench.FloorPerHash(); ok {
			floors = append(floors, floor)
		}
	}
	leaves := p.Leaves()
	perLeaf := float64(work) / float64(leaves)
	m.ours.perLeaf = append(m.ours.perLeaf, perLeaf)
	m.ours.stored = append(m.ours.stored, posw.NodeSize/float64(uint64(1)<<keep)) // the slice is short; this is the limit of any round
	if len(floors) > 0 {
		floor := median(floors) * float64(posw.Sequential(len(statement()), 0, leaves)) / float64(leaves)
		m.floor = append(m.floor, floor)
		m.floorShare = append(m.floorShare, floor/perLeaf)
	}
	proof, err := p.Prove(bytes.NewReader(kept), runtime.GOMAXPROCS(0), nil)
	if err != nil {
		return err
	}
	m.lastProof = proof
	return referenceVerify(toReference(&proof), leaves)
}

// verifies times both verifiers on our last proof, alternating, a few proofs at a
// time. What one leaves to the garbage collector is not counted as the other's time.
func (m *measurements) verifies(theirs shared.MerkleProof) error {
	const proofs = 8
	cost := func(verify func() error) (float64, error) {
		runtime.GC()
		start := bench.CPUTime()
		for range proofs {
			if err := verify(); err != nil {
				return 0, err
			}
		}
		return float64(bench.CPUTime()-start) / proofs, nil
	}
	for range 8 {
		reference, err := cost(func() error { return referenceVerify(theirs, m.lastProof.NumLeaves) })
		if err != nil {
			return err
		}
		ours, err := cost(func() error { return posw.Verify(statement(), &m.lastProof, 1) })
		if err != nil {
			return err
		}
		m.reference.verify, m.ours.verify = append(m.reference.verify, reference), append(m.ours.verify, ours)
	}
	return nil
}

// proof times the making of a proof at k = keep on all cores, and all that is left to
// measure once.
func (m *measurements) proof() error {
	theirs := toReference(&m.lastProof)
	m.reference.verifyRate = perSecond(func() error { return referenceVerify(theirs, m.lastProof.NumLeaves) })
	m.ours.verifyRate = perSecond(func() error { return posw.Verify(statement(), &m.lastProof, 1) })

	p := posw.NewProver(statement(), keep)
	start := bench.CPUTime()
	kept := p.Advance(40<<keep, nil)
	chain := (bench.CPUTime() - start).Seconds() / float64(p.Leaves())
	m.proofLeaves = p.Leaves()
	for range 3 {
		subtrees, wall := 0, time.Now()
		start = bench.CPUTime()
		proof, err := p.Prove(bytes.NewReader(kept), proofCores, func(_, total int) { subtrees = total })
		took, cpu := time.Since(wall).Seconds(), (bench.CPUTime() - start).Seconds()
		if err != nil {
			return err
		}
		if err := referenceVerify(toReference(&proof), p.Leaves()); err != nil {
			return err
		}
		m.proveWall, m.proveCPU = append(m.proveWall, took), append(m.proveCPU, cpu)
		m.recomputed = uint64(subtrees) << keep
	}
	m.chainTime = chain * float64(m.recomputed)
	return nil
}

// perSecond runs f on all cores for a second.
func perSecond(f func() error) float64 {
	var wait sync.WaitGroup
	counts := make([]int, runtime.GOMAXPROCS(0))
	start := time.Now()
	for i := range counts {
		wait.Go(func() {
			for time.Since(start) < time.Second && f() == nil {
				counts[i]++
			}
		})
	}
	wait.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(start).Seconds()
}

// referenceVerify is the published verifier.
func referenceVerify(p shared.MerkleProof, leaves uint64) error {
	return verifier.Validate(p, hash.GenLabelHashFunc(statement()), hash.GenMerkleHashFunc(statement()), leaves, shared.T)
}
