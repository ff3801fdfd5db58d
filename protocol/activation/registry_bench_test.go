package activation

import (
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"tweedle/values/types"
)

// big has so many ATXs in epoch 1, each of another smesher.
type big int

func (b big) EpochEntries(e types.Epoch) []Entry {
	if e != 1 {
		return nil
	}
	out := make([]Entry, b)
	for i := range out {
		out[i] = Entry{Info: Info{PublishEpoch: 1, Effective: 4, Ticks: 10, Weight: 40}, Received: clock().EpochStart(1).Add(time.Second)}
		id := types.Sum(binary.LittleEndian.AppendUint64(nil, uint64(i)))
		out[i].ID, out[i].Smesher = types.ATXID(id), types.NodeID(id)
	}
	return out
}

func (big) HighestEntry(types.Epoch) (Entry, bool) { return Entry{}, false }

// BenchmarkRegistry loads an epoch of a million ATXs and makes its electorate.
// bytes/ATX is what the registry then holds.
func BenchmarkRegistry(b *testing.B) {
	const n = 1_000_000
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		r := NewRegistry(clock(), big(n), nil)
		el := r.Own(2, clock().EpochStart(2))
		if len(el.Members) != n {
			b.Fatal(len(el.Members))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "bytes/ATX")
		runtime.KeepAlive(r)
	}
}
