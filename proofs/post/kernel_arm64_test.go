package post

import (
	"slices"
	"testing"

	"golang.org/x/sys/cpu"
)

// What this processor has is tested and in use, and nothing else.
func TestKernelsAreThoseOfThisProcessor(t *testing.T) {
	want := []string{"portable", "neon"}
	if cpu.ARM64.HasAES {
		want = []string{"portable", "aes", "neon", "neon+aes"}
	}
	if got := Kernels(); !slices.Equal(got, want) {
		t.Errorf("kernels are %v, want %v", got, want)
	}
	for _, k := range labelKernels() {
		for _, m := range k.measure().mixers {
			if m.cost <= 0 {
				t.Errorf("%s with %d lanes has no cost: the choice among kernels is blind", k.name, m.lanes)
			}
		}
	}
	if !cpu.ARM64.HasAES {
		t.Skip("this processor has no AES: the kernel for proving is not tested here")
	}
}
