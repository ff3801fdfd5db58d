package telemetry

import (
	"testing"
	"time"
)

func TestATallyTellsOnceInAWhile(t *testing.T) {
	tally := Tally[string]{Every: time.Minute}
	now := time.Unix(0, 0).UTC()
	var told []int
	for range 150 {
		if n := tally.Add("a", now); n > 0 {
			told = append(told, n)
		}
		now = now.Add(time.Second)
	}
	if len(told) != 3 || told[0] != 1 || told[1] != 60 || told[2] != 60 {
		t.Errorf("told %v", told)
	}
	if n := tally.Add("b", now); n != 1 {
		t.Errorf("another key is told of %d", n)
	}
}
