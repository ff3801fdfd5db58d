package smeshing

import (
	"context"
	"errors"
	"strings"
	"testing"

	"tweedle/edges/api/gen/poetpb"
	"tweedle/values/types"
)

// A PoET says how hard its proof of work is. One that asks for more than anybody
// should do is refused at once, and the work for one that does not ends when its
// time is over, not when it is done.
func TestTheProofOfWorkThatAPoETAsksForIsBounded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	for _, bits := range []uint32{maxDifficulty + 1, 64, 1 << 30} {
		_, err := solvePoW(ctx, &poetpb.PowParams{Challenge: make([]byte, 32), Difficulty: bits}, types.NodeID{1}, types.Hash32{2})
		if err == nil || !strings.Contains(err.Error(), "ask its operator for less") {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
	cancel()
	if _, err := solvePoW(ctx, &poetpb.PowParams{Challenge: make([]byte, 32), Difficulty: maxDifficulty}, types.NodeID{1}, types.Hash32{2}); !errors.Is(err, context.Canceled) {
		t.Errorf("after its time: %v", err)
	}
}
