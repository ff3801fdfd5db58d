package tortoise

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"tweedle/values/types"
)

// elector is what a caller needs to know of an ATX to weigh a ballot.
type elector struct {
	id             types.ATXID
	weight, height uint64
}

func electorate(size int) []elector {
	list := make([]elector, size)
	for i := range list {
		h := types.Sum(binary.LittleEndian.AppendUint64(nil, uint64(i)))
		list[i] = elector{types.ATXID(h), uint64(4 + i%7), 100}
	}
	slices.SortFunc(list, func(a, b elector) int { return bytes.Compare(a.id[:], b.id[:]) })
	return list
}

func mainnet() Params {
	return Params{
		LayersPerEpoch: 4032, Hdist: 10, Zdist: 2, Window: 100, BadBeaconDelay: 4032,
		MaxExceptions: 1000, MaxLayers: 8064, MaxBallots: 4096, MaxBlocks: 64, MaxOpinions: 1 << 20,
	}
}

// bench plays layers with 50 ballots of ATXs that are looked up in an
// electorate. Those of agree parts in a hundred vote as we do, the others for
// other blocks.
type bench struct {
	m       *Machine
	members []elector
	total   uint64
	n       uint64
}

func (b *bench) layer(tb testing.TB, ballots, agree int) {
	l := b.m.last + 1
	for e := range types.Epoch(3) {
		b.m.Epoch(b.m.epochOf(l)+e, b.total)
	}
	id := types.BlockID{1, byte(l), byte(l >> 8)}
	if err := b.m.Block(l, id, 50); err != nil {
		tb.Fatal(err)
	}
	v, h, err := b.m.Votes()
	if err != nil {
		tb.Fatal(err)
	}
	for i := range ballots {
		b.n++
		atx := b.members[b.n*7919%uint64(len(b.members))].id
		at, _ := slices.BinarySearchFunc(b.members, atx, func(e elector, id types.ATXID) int { return bytes.Compare(e.id[:], id[:]) })
		e := b.members[at]
		name := types.BallotID(atx[:20])
		binary.LittleEndian.PutUint64(name[:], b.n)
		ballot := &Ballot{
			ID: name, Layer: l, Smesher: types.NodeID(atx), Opinion: h, Votes: v,
			Weight: b.total / 50, Height: e.height, Slots: b.m.p.LayersPerEpoch, Proofs: 1,
		}
		if i*100 >= ballots*agree && l > 1 {
			ballot.Weight = 0 // away: it is looked up and read
		}
		if err := b.m.Ballot(ballot); err != nil {
			tb.Fatal(err)
		}
	}
	b.m.Hare(l, id)
	b.m.Coin(l, true)
	b.m.Tally()
}

// BenchmarkLayer is what one node does for a layer with 50 ballots: finding their
// ATXs, reading, counting, closing the layer, and writing its own votes.
func BenchmarkLayer(b *testing.B) {
	for _, c := range []struct{ atxs, ballots, open int }{
		{50_000, 50, 0}, {500_000, 50, 0}, {5_000_000, 50, 0}, {5_000_000, 500, 0}, {5_000_000, 50, 100}, {5_000_000, 50, 1000}, {5_000_000, 50, 4000},
	} {
		b.Run(fmt.Sprintf("atxs=%d/ballots=%d/unverified=%d", c.atxs, c.ballots, c.open), func(b *testing.B) {
			run := &bench{m: New(mainnet(), 0, types.Hash32{}), members: electorate(c.atxs)}
			for _, e := range run.members {
				run.total += e.weight
			}
			agree := 100
			for range 150 {
				run.layer(b, c.ballots, agree)
			}
			if c.open > 0 {
				agree = 50 // nothing is verified
			}
			for range c.open {
				run.layer(b, c.ballots, agree)
			}
			for b.Loop() {
				run.layer(b, c.ballots, agree)
			}
			layers, ballots, _, opinions := run.m.Len()
			open := int(run.m.last - run.m.verified)
			with := heap()
			run.m = nil
			b.ReportMetric(float64(with-heap())/1024, "KiB-held")
			b.ReportMetric(float64(open), "unverified")
			b.ReportMetric(float64(layers), "layers")
			b.ReportMetric(float64(opinions), "opinions")
			b.ReportMetric(float64(ballots), "ballots-held")
			runtime.KeepAlive(run)
		})
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
