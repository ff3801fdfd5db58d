//go:build linux

package network

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// One of two PoETs is stopped with SIGSTOP, so that it takes connections and
// answers nothing, for whole epochs: every smesher publishes in each of them, and
// hardly a layer is empty.
func TestAPausedPoetCostsNothing(t *testing.T) {
	t.Parallel()
	epochs := 2
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		epochs = 4
	}
	n := up(t, "--nodes", "4", "--poets", "2", "--max-leaves-per-second", strconv.Itoa(leavesPerSecond))
	at := readTiming(t, n.waitUp(t))
	n.until(t, at.first+patience*at.epoch, "the network lives", func(s status) bool {
		_, common := s.applied()
		return common >= at.first
	})
	// The layer before an epoch: a round is about to end, and all are registered in it.
	s := n.until(t, n.status(t).Layer+2*at.epoch, "an epoch is about to end", func(s status) bool { return s.Layer%at.epoch == at.epoch-1 })
	n.do(t, "pause", "poet-1")
	from, to := s.Epoch+1, s.Epoch+epochs
	published := make(map[string]bool)
	s = n.until(t, (to+1)*at.epoch+1, "the epochs are over", func(s status) bool {
		for _, node := range s.Nodes {
			if node.ATXEpoch != nil {
				published[fmt.Sprint(node.Name, " in ", *node.ATXEpoch)] = true
			}
		}
		return s.Layer > (to+1)*at.epoch
	})
	n.do(t, "resume", "poet-1")
	var missed []string
	for e := from; e <= to; e++ {
		for _, node := range s.Nodes {
			if name := fmt.Sprint(node.Name, " in ", e); !published[name] {
				missed = append(missed, name)
			}
		}
	}
	// Blocks by the ATXs of these epochs come in the next ones, too.
	last := (to+2)*at.epoch - 1
	s = n.until(t, last+at.epoch, "the last layer is applied", func(s status) bool { return s.Layer > last+2 && s.agree(last) })
	empty, layers := 0, 0
	for _, l := range n.compareHistories(t, s, from*at.epoch) {
		layers++
		if !strings.Contains(l, "block") {
			empty++
		}
	}
	t.Logf("poet-1 paused from the end of epoch %d for %d epochs: %d of %d layers to layer %d are empty; who did not publish: %v", from-1, epochs, empty, layers, last, missed)
	// A PoET that works runs at its speed limit, and a busy machine cannot.
	if slices.ContainsFunc([]int{from, to}, func(e int) bool { return at.busy(t, s, e-1) }) {
		t.Skip("SKIPPED: this machine is too busy to judge who is in time")
	}
	if empty*10 > layers || len(missed) > 0 {
		t.Errorf("%d of %d layers are empty; who did not publish: %v", empty, layers, missed)
	}
}
