package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"tweedle/edges/preset"
	"tweedle/edges/smeshing"
	"tweedle/services/testnet"
)

// The network of the drills in which some do not hear others: five of one weight, so that
// four are more than the two thirds that decide a layer, and three are not.
var five = []string{"node-1", "node-2", "node-3", "node-4", "node-5"}

func fiveNodes(Flags) testnet.Options {
	return testnet.Options{Nodes: len(five), Poets: len(poets), Gateways: len(five), Preset: "local", TxRate: 2}
}

// partedFor is how long two parts do not hear each other: less than an epoch, so that
// nobody has an electorate of its own.
const (
	aloneFor  = 24 * time.Second
	partedFor = 12 * time.Second
)

// part has the nodes of two parts hear nothing of each other for a while.
func part(one, other []string, lasts time.Duration) func(context.Context, *Stage) error {
	return func(ctx context.Context, s *Stage) error {
		return s.whileParted(one, other, func() error {
			if !sleep(ctx, lasts) {
				return interrupted(ctx)
			}
			return nil
		})
	}
}

// whileParted does something while two parts do not hear each other.
func (s *Stage) whileParted(one, other []string, do func() error) error {
	from := s.now().Layer
	s.remember(func(m *memory) { m.faultAt, m.layer = time.Now(), from })
	if err := s.cut(one, other); err != nil {
		return err
	}
	s.tl.note(fmt.Sprintf("%s and %s do not hear each other", strings.Join(one, ", "), strings.Join(other, ", ")))
	err := do()
	if err := errors.Join(err, s.join()); err != nil {
		return err
	}
	s.tl.note(fmt.Sprintf("all hear each other again, after %.1f s", time.Since(s.recall().faultAt).Seconds()))
	s.remember(func(m *memory) { m.joined = time.Now() })
	return nil
}

// behindOthers looks that a node's state is so many layers old at least while it hears
// nobody.
func behindOthers(name string, layers uint32) Check {
	return Check{Name: fmt.Sprintf("%s applies nothing by itself", name), Within: aloneFor, Look: func(s *Stage) (bool, string) {
		for _, n := range s.nodes([]string{name}) {
			if n.AppliedLayer != nil {
				newest := s.newest().Layer
				return newest >= *n.AppliedLayer+layers, fmt.Sprintf("it is at layer %d, the others at %d", *n.AppliedLayer, newest)
			}
		}
		return false, "it does not answer"
	}}
}

func partition() Script {
	return Script{
		Name: "partition",
		Proves: "what is not heard for less than an epoch splits nobody: with more than two thirds of the weight on one side blocks go on there and nowhere else, " +
			"with less on both they stop on both, and all have one state again as soon as they hear each other",
		Network: fiveNodes, Cuts: true, Always: agreeAlways(allLive(five), poetsLive(poets)),
		Steps: func(Flags) []Step {
			two, three := five[:2], five[2:]
			return []Step{
				healthy(five, five, poets),
				{
					Title: "node-5 hears nobody (packets are dropped)", Lasts: aloneFor,
					At: nextRoundEnd(3 * time.Second), Do: part(five[:4], five[4:], aloneFor),
					Checks: []Check{blocksGoOn(), behindOthers("node-5", 8)},
				},
				{
					Title: "it hears them again", Lasts: 10 * time.Second, Do: rememberLayer,
					Checks: []Check{blocksGoOn(), together(five)},
				},
				{
					Title: "two hear each other, and so do three; no two thirds do", Lasts: partedFor,
					At: nextRoundEnd(3 * time.Second), Do: part(two, three, partedFor),
					Checks: []Check{{Name: "nobody decides anything", Then: true, Within: partedFor + time.Second, Look: func(s *Stage) (bool, string) {
						// What was under way is decided yet.
						last, from := s.newest().Layer, s.recall().layer
						return last <= from+2, fmt.Sprintf("the newest block is of layer %d, they were parted in layer %d", last, from)
					}}},
				},
				{
					Title: "all hear each other", Lasts: 10 * time.Second, Do: rememberLayer,
					Checks: []Check{together(five)},
				},
				again(five),
			}
		},
	}
}

// rememberLayer remembers the clock's layer.
func rememberLayer(_ context.Context, s *Stage) error {
	from := s.now().Layer
	s.remember(func(m *memory) { m.layer = from })
	return nil
}

// together looks for a block that came after a moment that was remembered and that all have.
func together(nodes []string) Check {
	look := agreement(nodes, func(s *Stage) uint32 { return s.recall().layer + 1 })
	return Check{Name: "new blocks, and one state on all nodes", Then: true, Within: time.Minute, Look: func(s *Stage) (bool, string) {
		ok, figure := look(s)
		return ok, fmt.Sprintf("%s, %.1f s after they heard each other", figure, time.Since(s.recall().joined).Seconds())
	}}
}

// The two that have one identity, each on its own side.
var (
	honest = []string{"node-1", "node-2", "node-3"}
	twins  = []string{"node-4", "node-5"}
)

// twinsSpace makes the space of the twins: one key, in two folders.
func twinsSpace(ctx context.Context, s *Stage, program string) error {
	first, second := filepath.Join(s.dir, twins[0]), filepath.Join(s.dir, twins[1])
	out, err := exec.CommandContext(ctx, program, "post", "init", "--network", filepath.Join(s.dir, preset.File),
		"--dir", filepath.Join(first, "post"), "--key", filepath.Join(first, smeshing.IdentityFile)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("the space of %s: %w: %s", twins[0], err, out)
	}
	if err := os.CopyFS(second, os.DirFS(first)); err != nil {
		return err
	}
	s.tl.note(fmt.Sprintf("%s and %s have one key and one space", twins[0], twins[1]))
	return os.Chmod(filepath.Join(second, smeshing.IdentityFile), 0o600)
}

// convicted counts the smeshers that a node has proved malicious since it runs.
const convicted = "tweedle_node_malicious_smeshers_total"

// convictedBy returns how many smeshers these nodes have convicted, from the least to the
// most; one that does not answer has convicted none.
func (s *Stage) convictedBy(nodes []string) (least, most float64) {
	for i, n := range s.nodes(nodes) {
		v, _ := s.metric(n.Metrics, convicted)
		if i == 0 || v < least {
			least = v
		}
		most = max(most, v)
	}
	return least, most
}

// convictsOnly says that these nodes convict so many at most.
func convictsOnly(nodes []string, atMost int) Check {
	name := "nobody is convicted"
	if atMost > 0 {
		name = "nobody else is convicted"
	}
	return Check{Name: name, Look: func(s *Stage) (bool, string) {
		_, most := s.convictedBy(nodes)
		return most <= float64(atMost), fmt.Sprintf("%g are, at most", most)
	}}
}

func equivocation() Script {
	return Script{
		Name: "equivocation",
		Proves: "one identity that runs twice, and publishes two ATXs because its copies did not hear each other, splits nobody: " +
			"every honest node convicts it and only it, gives it no weight, and the copies stop and say why",
		Network: fiveNodes, Cuts: true, Prepared: twinsSpace, Always: agreeAlways(allLive(five), poetsLive(poets)),
		Steps: func(Flags) []Step {
			return []Step{
				{
					Title: "a network of five, two of whom have one key", Lasts: 30 * time.Second,
					Do: func(ctx context.Context, s *Stage) error {
						return until(ctx, startBound, "the processes run", func() bool { return s.runs(five) == len(five) && s.runs(poets) == len(poets) })
					},
					Checks: []Check{peersOf(five)},
				},
				{
					Title: "as the first ATXs are made, each copy hears one side only", Lasts: 10 * time.Second,
					At: nextRoundEnd(-2 * time.Second),
					Do: func(ctx context.Context, s *Stage) error {
						return s.whileParted([]string{honest[0], honest[1], twins[0]}, []string{honest[2], twins[1]}, func() error {
							return until(ctx, 15*time.Second, "both copies publish", func() bool {
								n := 0
								for _, m := range s.nodes(twins) {
									if m.ATXEpoch != nil && *m.ATXEpoch > 0 {
										n++
									}
								}
								return n == len(twins)
							})
						})
					},
					Checks: []Check{
						{Name: "every honest node convicts one smesher", Then: true, Within: 45 * time.Second, Look: func(s *Stage) (bool, string) {
							least, most := s.convictedBy(honest)
							return least == 1 && most == 1, fmt.Sprintf("%g to %g, %.1f s after all heard each other", least, most, time.Since(s.recall().joined).Seconds())
						}},
						{Name: "each copy says that its key is used elsewhere, and stops", Then: true, Within: 45 * time.Second, Look: func(s *Stage) (bool, string) {
							n := 0
							for _, m := range s.nodes(twins) {
								if st, err := s.ask(m); err == nil && st.IdentityElsewhere {
									n++
								}
							}
							return n == len(twins), fmt.Sprintf("%d of %d", n, len(twins))
						}},
						told("IdentityTwice", twins[0], 60*time.Second), told("IdentityTwice", twins[1], 60*time.Second),
					},
				},
				{
					Title: "the honest ones go on, with the weight of three", Lasts: 60 * time.Second, Do: rememberLayer,
					Checks: []Check{
						{Name: "blocks and one state on all nodes", Then: true, Within: 90 * time.Second, Look: agreement(five, func(s *Stage) uint32 { return s.recall().layer + 1 })},
						convictsOnly(honest, 1),
						{Name: "ATXs of the three", Within: 90 * time.Second, Look: func(s *Stage) (bool, string) {
							n := 0
							now := s.now()
							for _, m := range s.nodes(honest) {
								if m.ATXEpoch != nil && *m.ATXEpoch >= s.recall().round+1 {
									n++
								}
							}
							return n == len(honest), fmt.Sprintf("%d of %d in epoch %d", n, len(honest), now.Epoch)
						}},
					},
				},
			}
		},
	}
}
