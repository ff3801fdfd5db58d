package drill

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tweedle/values/types"
)

// Steps and checks that drills have in common.

func epoch(n uint32) types.Epoch { return types.Epoch(n) }

// startBound is the time in which a testnet of some nodes lives, on a busy machine.
const startBound = 150 * time.Second

// healthy waits until everybody runs, knows everybody else, and blocks come.
func healthy(nodes, smeshers, poets []string) Step {
	return Step{
		Title: "a network lives", Lasts: 62 * time.Second,
		Do: func(ctx context.Context, s *Stage) error {
			return until(ctx, startBound, "the processes run", func() bool { return s.runs(nodes) == len(nodes) && s.runs(poets) == len(poets) })
		},
		Checks: []Check{
			{Name: "blocks that all nodes agree about", Within: startBound, Look: agreement(nodes, func(*Stage) uint32 { return 0 })},
			{Name: "every smesher has an ATX for this epoch", Within: startBound, Look: func(s *Stage) (bool, string) {
				n := 0
				for _, m := range s.nodes(smeshers) {
					if m.ATXEpoch != nil && *m.ATXEpoch+1 >= s.now().Epoch {
						n++
					}
				}
				return n == len(smeshers), fmt.Sprintf("%d of %d", n, len(smeshers))
			}},
			peersOf(nodes),
			{Name: "every PoET has live gateways", Within: startBound, Look: func(s *Stage) (bool, string) {
				var parts []string
				ok := true
				for _, p := range s.now().Poets {
					n := slotsAlive(p)
					ok = ok && n > 0
					parts = append(parts, fmt.Sprintf("%s %d", p.Name, n))
				}
				return ok && len(parts) == len(poets), strings.Join(parts, ", ")
			}},
		},
	}
}

// peersOf looks that every node has all others as peers.
func peersOf(nodes []string) Check {
	return Check{Name: "every node has all others as peers", Within: startBound, Look: func(s *Stage) (bool, string) {
		n := 0
		for _, m := range s.nodes(nodes) {
			if m.Peers != nil && *m.Peers >= len(nodes)-1 {
				n++
			}
		}
		return n == len(nodes), fmt.Sprintf("%d of %d", n, len(nodes))
	}}
}

// agreement looks for a new layer with a block, from one on, that all these nodes applied
// with one state.
func agreement(nodes []string, from func(*Stage) uint32) func(*Stage) (bool, string) {
	return func(s *Stage) (bool, string) {
		l := s.newest()
		ok := l.Block != "" && l.Layer >= from(s) && l.Agree == len(nodes) && l.Nodes == len(nodes) && l.Outcomes == 1
		return ok, fmt.Sprintf("layer %d: %d of %d nodes, %d state(s), root %.10s", l.Layer, l.Agree, len(nodes), l.Outcomes, l.StateRoot)
	}
}

// allLive says that nobody of these has ended.
func allLive(names []string) Check {
	return Check{Name: "every node lives", Look: func(s *Stage) (bool, string) {
		for _, name := range names {
			if n := s.starts(name); n != 1 || s.runs([]string{name}) != 1 {
				return false, fmt.Sprintf("%s was started %d times", name, n)
			}
		}
		return true, fmt.Sprintf("%d processes as they were started", len(names))
	}}
}

// poetsLive says that the PoETs are the processes that were started first.
func poetsLive(names []string) Check {
	c := allLive(names)
	c.Name = "the PoETs go on, without a restart"
	return c
}

// noDisagreement says that no layer has two outcomes.
func noDisagreement() Check {
	return Check{Name: "nodes never disagree about a layer", Look: func(s *Stage) (bool, string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, l := range s.layers {
			if l.Outcomes > 1 {
				return false, fmt.Sprintf("layer %d has %d outcomes", l.Layer, l.Outcomes)
			}
		}
		return true, fmt.Sprintf("%d layers compared", len(s.layers))
	}}
}

// mostBehind is how many layers a network that is well may be behind its clock, on a busy
// machine.
const mostBehind = 8

// blocksGoOn says that layers are applied as the clock goes.
func blocksGoOn() Check {
	most := 0
	return Check{Name: "blocks go on", Look: func(s *Stage) (bool, string) {
		n := s.behind()
		most = max(most, n)
		return n <= mostBehind, fmt.Sprintf("%d layers behind the clock at most", most)
	}}
}

// quiet waits until nothing fires any more; remembered alerts last longer than a drill, by
// their rule.
func quiet(within time.Duration, remembered ...string) Check {
	return Check{Name: "every alert resolves", Within: within, Look: func(s *Stage) (bool, string) {
		all := s.alerts.list()
		firing := slices.DeleteFunc(s.alerts.firing(), func(name string) bool {
			name, _, _ = strings.Cut(name, " ")
			return slices.Contains(remembered, name)
		})
		if len(firing) > 0 {
			return false, fmt.Sprintf("%d fire: %s", len(firing), strings.Join(firing, ", "))
		}
		names := map[string]bool{}
		for _, a := range all {
			names[a.Name] = true
		}
		return true, fmt.Sprintf("%d alerts of %d kinds came, and all are over", count(all), len(names))
	}}
}

func count(all []Alert) (n int) {
	for _, a := range all {
		if !a.Resolved {
			n++
		}
	}
	return n
}

// only says that no other alerts came than these.
func only(names ...string) Check {
	return Check{Name: "no other alert came", Look: func(s *Stage) (bool, string) {
		var others []string
		for _, a := range s.alerts.list() {
			if !a.Resolved && !a.machine() && !slices.Contains(names, a.Name) && !slices.Contains(others, a.Name) {
				others = append(others, a.Name)
			}
		}
		return len(others) == 0, fmt.Sprintf("%d others %s", len(others), strings.Join(others, " "))
	}}
}
