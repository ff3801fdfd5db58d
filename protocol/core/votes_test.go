package core

import (
	"testing"

	"tweedle/values/bounded"
	"tweedle/values/types"
)

// What was read of the history is read again from the beginning when a layer of it is undone, and goes on from where it
// was when only later ones are.
func TestWhatIsUndoneIsReadAgain(t *testing.T) {
	for _, w := range []func(to types.Layer) Write{
		func(to types.Layer) Write { return WriteRevert{to} },
		func(to types.Layer) Write { return WriteLayer{Base: to} },
	} {
		for to, want := range map[types.Layer]past{
			20: {9, types.Hash32{1}, 12}, 10: {9, types.Hash32{1}, 10}, 9: {9, types.Hash32{1}, 9}, 8: {},
		} {
			m := &Machine{past: past{9, types.Hash32{1}, 12}, stocked: bounded.New[types.BallotID, struct{}](1), read: newView(nil)}
			if m.write(w(to)); m.past != want {
				t.Errorf("%T of what is after layer %d: %+v, not %+v", w(to), to, m.past, want)
			}
		}
	}
}
