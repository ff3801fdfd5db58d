package bench

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// BenchmarkSpace prints the table of docs/performance.md.
func BenchmarkSpace(b *testing.B) {
	for b.Loop() {
		f, err := Run(context.Background(), b.TempDir(), 20*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		b.Log("\n" + f.Words())
	}
}

func TestRunGivesAllFigures(t *testing.T) {
	f, err := Run(context.Background(), t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kernel", "processor", "labels_per_cpu_second", "scalar_labels_per_cpu_second", "prove_gib_per_cpu_second", "verify_ratio"} {
		if !strings.Contains(string(line), `"`+name+`"`) {
			t.Errorf("%s has no %s", line, name)
		}
	}
	rates := []float64{f.Labels, f.ScalarLabels, f.Scrypt, f.Verify, f.VerifyRatio, f.LabelRatio, f.ScryptRatio}
	for _, n := range Nonces {
		rates = append(rates, f.Prove[n], f.ProveRatio[n])
	}
	for i, rate := range rates {
		if rate <= 0 {
			t.Errorf("figure %d is %v", i, rate)
		}
	}
}

func TestRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, t.TempDir(), time.Hour); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestKernelsThatDisagreeAreNamed(t *testing.T) {
	c := contest{entrants: []entrant{
		{1, func() (any, error) { return 1, nil }},
		{1, func() (any, error) { return nil, nil }},
		{1, func() (any, error) { return 2, nil }},
	}}
	if err := c.slice(); err == nil || !strings.Contains(err.Error(), "disagree") {
		t.Fatalf("got %v", err)
	}
}
