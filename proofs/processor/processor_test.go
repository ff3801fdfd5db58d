//go:build amd64 || arm64

package processor

import "testing"

// A clock that stands still would make every kernel as fast as every other.
func TestTicksGoOn(t *testing.T) {
	start := Ticks()
	for range 1_000_000 {
		now := Ticks()
		if now < start {
			t.Fatalf("from %d to %d", start, now)
		}
		if now > start {
			return
		}
	}
	t.Fatal("a million readings are the same")
}
