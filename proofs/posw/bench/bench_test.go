package bench

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"tweedle/proofs/posw"
	"tweedle/values/types"
)

func TestFiguresAgreeWithEachOther(t *testing.T) {
	f, err := Run(t.Context(), 200*time.Millisecond, 5)
	if err != nil {
		t.Fatal(err)
	}
	if f.Leaves < types.MaxPoetLeaves || f.StoredBytes != f.Leaves>>5*posw.NodeSize || f.WallSeconds < 0.2 || f.CPUSeconds <= 0 {
		t.Fatalf("figures %+v", f)
	}
	if f.PeakRSSBytes < 1<<20 || f.RecomputePerSec <= 0 || f.VerifyMillisecond <= 0 {
		t.Fatalf("figures %+v", f)
	}
	inUse := 0
	for i, name := range posw.Kernels() {
		k := f.Kernels[i]
		if k.Kernel != name || k.PerHash.Min <= 0 || k.Verify.Min <= 0 || posw.Floor(0) != (k.FloorShare != nil) {
			t.Errorf("%s: figures %+v", name, k)
		}
		for _, s := range []Spread{k.PerHash, k.Verify} {
			if s.Min > s.Median || s.Median > s.Max || s.Mean < s.Min || s.Mean > s.Max {
				t.Errorf("%s: %+v", name, s)
			}
		}
		if k.InUse {
			inUse++
		}
		if words := f.Words(time.Hour); !strings.Contains(words, name) || !strings.Contains(words, f.Processor) {
			t.Errorf("nothing of %s in:\n%s", name, words)
		}
	}
	if inUse != 1 {
		t.Errorf("%d kernels are in use", inUse)
	}
	if posw.Floor(0) != (f.FloorShare != nil) {
		t.Fatalf("floor share %v", f.FloorShare)
	}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"leaves", "cpu_seconds", "wall_seconds", "stored_bytes", "peak_rss_bytes", "kernel", "floor_share", "processor", "kernels"} {
		if _, ok := fields[name]; !ok {
			t.Errorf("JSON lacks %s: %s", name, b)
		}
	}
}

func TestWordsDoTheArithmetic(t *testing.T) {
	share := 0.98
	f := Figures{Leaves: 67_000, CPUSeconds: 1, Kernel: "sha-ni", FloorShare: &share, Keep: 14, RecomputePerSec: 245_760}
	got := f.Words(324 * time.Hour)
	// 67,000 * 1,166,400 s = 7.815e10 leaves; / 2^14 * 32 B = 152.6 MB; 150 * 2^14 / 245,760 = 10 s
	for _, want := range []string{"67000 leaves per second", "98.0 %", "7.81e+10 leaves", "153 MB", "10s after the last leaf"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, time.Hour, 14); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if _, err := Run(t.Context(), time.Second, posw.MaxHeight+1); err == nil {
		t.Fatal("no limit on the height")
	}
}
