package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"tweedle/services/testnet"
)

// The network of the drills that are not about gateways: all smesh, and all are gateways.
var (
	four  = []string{"node-1", "node-2", "node-3", "node-4"}
	three = four[:3]
)

func fourNodes(Flags) testnet.Options {
	return testnet.Options{Nodes: len(four), Poets: len(poets), Gateways: len(four), Preset: "local", TxRate: 2}
}

func supervised(f Flags) testnet.Options {
	o := fourNodes(f)
	o.Supervise = true
	return o
}

// agreeAlways must hold in every drill.
func agreeAlways(more ...Check) func(Flags) []Check {
	return func(Flags) []Check { return append([]Check{noDisagreement()}, more...) }
}

// told looks for an alert of a process.
func told(alert, of string, within time.Duration) Check {
	return Check{Name: fmt.Sprintf("%s of %s is told", alert, of), Within: within, Look: func(s *Stage) (bool, string) {
		for _, a := range s.alerts.list() {
			if a.Name == alert && a.Of == of && !a.Resolved && a.Came.After(s.recall().faultAt) {
				return true, fmt.Sprintf("%.1f s after the fault", a.Came.Sub(s.recall().faultAt).Seconds())
			}
		}
		return false, "not told"
	}}
}

// atxsGoOn looks that so many smeshers have an ATX in an epoch, counted from the round of
// the fault.
func atxsGoOn(names []string, epochs uint32, within time.Duration) Check {
	return Check{Name: fmt.Sprintf("ATXs go on in the %s epoch after", ordinal(epochs)), Within: within, Look: func(s *Stage) (bool, string) {
		e := s.recall().round + 1 + epochs
		n, known := s.atxsOf(e)
		return known && n >= len(names), fmt.Sprintf("%d ATXs count in epoch %d", n, e)
	}}
}

func ordinal(n uint32) string {
	return []string{"same", "first", "second", "third"}[min(n, 3)]
}

// again is the last step of a drill: everybody is there, agrees, and nothing fires.
func again(nodes []string, remembered ...string) Step {
	return Step{
		Title: "everybody is back, with one state, and the alerts are over", Lasts: 60 * time.Second,
		Do: rememberLayer,
		Checks: []Check{
			{Name: "blocks and one state on all nodes", Then: true, Within: 120 * time.Second, Look: agreement(nodes, func(s *Stage) uint32 { return s.recall().layer + 1 })},
			quiet(150*time.Second, remembered...),
		},
	}
}

// command sends a command to the testnet, and remembers when.
func command(c testnet.Command, names ...string) func(context.Context, *Stage) error {
	return func(ctx context.Context, s *Stage) error {
		s.remember(func(m *memory) { m.faultAt = time.Now() })
		s.tl.note(fmt.Sprintf("%s %s", c, strings.Join(names, ", ")))
		return s.do(ctx, c, names)
	}
}

func allPoetsDown() Script {
	return Script{
		Name: "all-poets-down",
		Proves: "a network whose PoETs all die in the middle of a round, and are away for longer than it lasts, loses the epochs that miss their proofs and nothing else: " +
			"each PoET finishes the round that was cut, and blocks come again without a new genesis",
		Network: fourNodes, Always: agreeAlways(),
		Steps: func(Flags) []Step {
			return []Step{
				healthy(four, four, poets),
				{
					Title: "both PoETs are killed in the middle of a round", Lasts: 40 * time.Second,
					At: nextRoundEnd(-5 * time.Second), Do: kill(poets...),
					Checks: []Check{
						told("NodeCrashed", "poet-1", 10*time.Second), told("NodeCrashed", "poet-2", 10*time.Second), allLive(four),
						{Name: "no ATXs without proofs", Within: 60 * time.Second, Look: func(s *Stage) (bool, string) {
							e := s.recall().round + 2
							n, known := s.atxsOf(e)
							return known && n == 0, fmt.Sprintf("%d ATXs count in epoch %d", n, e)
						}},
						{Name: "the stall is told, and why", Within: 80 * time.Second, Look: func(s *Stage) (bool, string) {
							a, n := s.alerts.first("NetworkStalled")
							why := a.Notes["why"]
							return n > 0 && strings.Contains(why, "poet-1 does not answer") && strings.Contains(why, "poet-2 does not answer"), fmt.Sprintf("it says %q", why)
						}},
					},
				},
				{
					Title: "they are started again", Lasts: 40 * time.Second, Do: command(testnet.Restart, poets...),
					Checks: []Check{
						{Name: "each finishes the round that was cut", Within: 30 * time.Second, Look: proved},
						{Name: "every smesher has an ATX again", Within: 90 * time.Second, Look: func(s *Stage) (bool, string) {
							n := 0
							for _, m := range s.nodes(four) {
								if m.ATXEpoch != nil && *m.ATXEpoch > s.recall().round+1 {
									n++
								}
							}
							return n == len(four), fmt.Sprintf("%d of %d", n, len(four))
						}},
					},
				},
				again(four),
			}
		},
	}
}

func poetHangs() Script {
	return Script{
		Name: "poet-hangs",
		Proves: "a PoET that is there and does not answer, while its round ends, costs nothing as long as another is well: " +
			"every smesher has its ATX from the other, blocks go on, and the one that hung is told and comes back",
		Network: fourNodes, Always: agreeAlways(blocksGoOn()),
		Steps: func(Flags) []Step {
			return []Step{
				healthy(four, four, poets),
				{
					Title: "poet-2 is stopped shortly before its round ends (SIGSTOP)", Lasts: 70 * time.Second,
					At: nextRoundEnd(-2 * time.Second), Do: command(testnet.Pause, "poet-2"),
					Checks: []Check{atxsGoOn(four, 1, 60*time.Second), atxsGoOn(four, 2, 80*time.Second), told("TargetDown", "poet-2", 110*time.Second), allLive(four)},
				},
				{
					Title: "poet-2 goes on", Lasts: 20 * time.Second, Do: command(testnet.Resume, "poet-2"),
					Checks: []Check{{Name: "it finishes the round in which it hung", Within: 30 * time.Second, Look: proved}},
				},
				again(four),
			}
		},
	}
}

func gatewaysHang() Script {
	return Script{
		Name: "gateways-hang",
		Proves: "gateways that take a connection and never answer lose their slots as dead ones do: the proofs go out through the two that are left, " +
			"and no smesher misses an ATX",
		Network: func(Flags) testnet.Options { return incidentNetwork(Flags{Pull: true, Recycle: true}) },
		Always:  agreeAlways(blocksGoOn(), poetsLive(poets)),
		Steps: func(Flags) []Step {
			return []Step{
				healthy(everyone, smeshers, poets),
				{
					Title: "all five gateways are stopped as a round ends (SIGSTOP)", Lasts: 45 * time.Second,
					At: nextRoundEnd(-200 * time.Millisecond), Do: command(testnet.Pause, gateways...),
					Checks: []Check{
						{Name: "the proof goes out through the two that are left", Within: 40 * time.Second, Look: func(s *Stage) (bool, string) {
							ok, parts := true, []string{}
							for _, p := range s.now().Poets {
								at, known := s.delivered(p, s.recall().round)
								ok = ok && known
								parts = append(parts, fmt.Sprintf("%s: round %d %s", p.Name, s.recall().round, after(at, s.recall().faultAt)))
							}
							return ok, strings.Join(parts, "; ")
						}},
						atxsGoOn(smeshers, 1, 50*time.Second), atxsGoOn(smeshers, 2, 70*time.Second),
					},
				},
				{
					Title: "they go on", Lasts: 20 * time.Second, Do: command(testnet.Resume, gateways...),
					Checks: []Check{
						{Name: "five slots are alive again", Within: 90 * time.Second, Look: func(s *Stage) (bool, string) {
							least := slots
							for _, p := range s.now().Poets {
								least = min(least, slotsAlive(p))
							}
							return least == slots, fmt.Sprintf("%d at least", least)
						}},
					},
				},
				again(everyone),
			}
		},
	}
}

func crashLoop() Script {
	return Script{
		Name: "crash-loop",
		Proves: "a node that dies each time it is started is told as such, is not started again and again at once, and costs the others nothing; " +
			"when it stays up, it catches up",
		Network: supervised, Always: agreeAlways(blocksGoOn()),
		Steps: func(Flags) []Step {
			return []Step{
				healthy(four, four, poets),
				{
					Title: "node-4 is killed whenever it runs", Lasts: 25 * time.Second, Do: killAgain("node-4", 4),
					Checks: []Check{
						told("NodeCrashed", "node-4", 10*time.Second), told("NodeCrashLooping", "node-4", 60*time.Second), allLive(three),
						{Name: "the supervisor waits longer each time", Then: true, Within: 90 * time.Second, Look: func(s *Stage) (bool, string) {
							gaps := s.recall().gaps
							// It doubles; the first ones are short, and a busy machine adds to each what it likes.
							ok := len(gaps) >= 3 && slices.IsSorted(gaps) && gaps[len(gaps)-1] > 3*gaps[0]
							return ok, fmt.Sprintf("it waited %v", gaps)
						}},
					},
				},
				again(four, "NodeCrashLooping"),
			}
		},
	}
}

// killAgain kills a supervised process so many times, each time as soon as it runs, and
// remembers how long the supervisor waited.
func killAgain(name string, times int) func(context.Context, *Stage) error {
	return func(ctx context.Context, s *Stage) error {
		var gaps []time.Duration
		for i := range times {
			if i == 0 {
				s.remember(func(m *memory) { m.faultAt = time.Now() })
			}
			started := s.starts(name)
			pid := s.pid(name)
			p, err := os.FindProcess(pid)
			if err == nil {
				err = p.Kill()
			}
			if err != nil {
				return fmt.Errorf("kill %s: %w", name, err)
			}
			died := time.Now()
			if err := until(ctx, time.Minute, name+" is started again", func() bool { return s.starts(name) > started }); err != nil {
				return err
			}
			gaps = append(gaps, time.Since(died).Round(100*time.Millisecond))
		}
		s.remember(func(m *memory) { m.gaps = gaps })
		return nil
	}
}

// diskOfANode has room for its keys, its space and its store, and little more.
const diskOfANode = 96 << 20

func diskFullNode() Script {
	return Script{
		Name: "disk-full-node",
		Proves: "a node whose disk is full ends, rather than go on without memory, and is told; it costs the others nothing; " +
			"when there is room it is back with the state of the others",
		Network: supervised, Always: agreeAlways(blocksGoOn()), Disks: []string{"node-4"}, DiskSize: diskOfANode,
		Steps: func(Flags) []Step {
			return []Step{
				healthy(four, four, poets),
				{
					Title: "a bystander fills the disk of node-4", Lasts: 25 * time.Second,
					Do: func(_ context.Context, s *Stage) error {
						if s.noDisk != "" {
							return errors.New(s.noDisk)
						}
						s.remember(func(m *memory) { m.faultAt = time.Now() })
						return s.fillDisks()
					},
					Checks: []Check{told("NodeCrashed", "node-4", 40*time.Second), allLive(three)},
				},
				{
					Title: "the operator makes room", Lasts: 30 * time.Second,
					Do: func(_ context.Context, s *Stage) error { return s.freeDisks() },
					Checks: []Check{{Name: "node-4 runs again by itself", Within: 90 * time.Second, Look: func(s *Stage) (bool, string) {
						for _, n := range s.nodes([]string{"node-4"}) {
							if n.State == testnet.Running && n.AppliedLayer != nil {
								return true, fmt.Sprintf("at layer %d, the clock is at %d", *n.AppliedLayer, s.now().Layer)
							}
						}
						return false, "it does not answer"
					}}},
				},
				again(four, "NodeCrashLooping"),
			}
		},
	}
}

func slowCPU() Script {
	return Script{
		Name: "slow-cpu",
		Proves: "a node that gets a tenth of a processor, as on a crowded host, delays nobody: blocks go on, and it has the state of the others " +
			"as soon as it gets its share again",
		Network: fourNodes, Always: agreeAlways(blocksGoOn()),
		Steps: func(Flags) []Step {
			return []Step{
				healthy(four, four, poets),
				{
					Title: "node-4 runs for a tenth of each half second, for two epochs", Lasts: 45 * time.Second,
					At: nextRoundEnd(-2 * time.Second), Do: slow("node-4", 450*time.Millisecond, 50*time.Millisecond, 40*time.Second),
					Checks: []Check{
						allLive(four), atxsGoOn(three, 1, 60*time.Second),
						{Name: "the others stay at the clock", Look: atTheClock(three)},
					},
				},
				again(four),
			}
		},
	}
}

// atTheClock looks that each of these nodes has applied what the clock says.
func atTheClock(nodes []string) func(*Stage) (bool, string) {
	return func(s *Stage) (bool, string) {
		most := 0
		for _, n := range s.nodes(nodes) {
			if n.AppliedLayer != nil {
				most = max(most, int(s.now().Layer)-int(*n.AppliedLayer))
			}
		}
		return most <= mostBehind, fmt.Sprintf("%d layers behind", most)
	}
}

// slow stops a process for a part of the time.
func slow(name string, stopped, runs, whole time.Duration) func(context.Context, *Stage) error {
	return func(ctx context.Context, s *Stage) error {
		p, err := os.FindProcess(s.pid(name))
		if err != nil {
			return err
		}
		s.remember(func(m *memory) { m.faultAt = time.Now() })
		for end := time.Now().Add(whole); time.Now().Before(end); {
			for _, half := range []struct {
				on   bool
				last time.Duration
			}{{false, stopped}, {true, runs}} {
				if err := hold(p, !half.on); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if !sleep(ctx, half.last) {
					return errors.Join(interrupted(ctx), hold(p, false))
				}
			}
		}
		return nil
	}
}

// pid returns the newest id of a process.
func (s *Stage) pid(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.pids[name]
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1]
}
