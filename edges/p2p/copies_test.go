package p2p

import (
	"fmt"
	"testing"
)

// What nobody had a turn for is remembered, the newest of it.
func TestMessagesThatNobodyHadATurnForAreBounded(t *testing.T) {
	met := 0
	c := copies{open: make(map[string]*unjudged), full: func(string) { met++ }}
	const n = 3 * maxUnseen
	for i := range n {
		id := fmt.Sprint(i)
		u, ok := c.begin(id, "a")
		if !ok || !u.rest() {
			t.Fatal(i, ok)
		}
		if i%3 == 0 { // it comes again at once, and has no turn again
			if !c.again(id, "b") {
				t.Fatal(i)
			}
			u, _ = c.begin(id, "b")
			u.rest()
		}
		if len(c.open) > maxUnseen || len(c.unseen) > maxUnseen {
			t.Fatalf("%d and %d are remembered", len(c.open), len(c.unseen))
		}
	}
	if c.again("0", "b") || !c.again(fmt.Sprint(n-1), "b") {
		t.Error("the oldest is remembered, or the newest is not")
	}
	if met == 0 {
		t.Error("what is forgotten is not counted")
	}
	met = 0
	u, _ := c.begin("judged", "a")
	for i := range 2 * maxBringers {
		c.again("judged", PeerID(fmt.Sprint(i)))
	}
	c.again("judged", "a")
	if len(u.bringer) != maxBringers || met != maxBringers+1 {
		t.Errorf("%d peers wait with one message, %d are counted that do not", len(u.bringer), met)
	}
	u.end()
	if c.again("judged", "z") {
		t.Error("what is judged is judged again")
	}
}
