package drill

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"tweedle/base/durable"
	"tweedle/services/testnet"
)

// ClockFile is in the folder of a process that is started with --drill-clock: its clock is
// ahead by the duration in it.
const ClockFile = "drill-clock"

// wrongClocks have a clock that can be set wrong.
func wrongClocks(f Flags) testnet.Options {
	o := fourNodes(f)
	o.Arguments = map[string][]string{"poet-2": {"--drill-clock"}, "node-4": {"--drill-clock"}}
	return o
}

// ahead has a process read a clock that is ahead for a while.
func ahead(name string, by, lasts time.Duration) func(context.Context, *Stage) error {
	return func(ctx context.Context, s *Stage) error {
		s.remember(func(m *memory) { m.faultAt = time.Now() })
		file := filepath.Join(s.dir, name, ClockFile)
		if err := durable.WriteFile(durable.OS{}, file, []byte(by.String()), 0o600); err != nil {
			return err
		}
		s.tl.note(fmt.Sprintf("the clock of %s is %s ahead", name, by))
		alive := sleep(ctx, lasts)
		if err := os.Remove(file); err != nil {
			return err
		}
		if !alive {
			return interrupted(ctx)
		}
		s.tl.note(fmt.Sprintf("the clock of %s is right again, after %s", name, lasts))
		return nil
	}
}

// In a network with layers of two seconds and epochs of ten layers a jump is believed after two seconds. A clock that is
// ahead by an epoch has electorates of its own: docs/decisions/0011.
const (
	aMoment     = time.Second
	fourEpochs  = 80 * time.Second
	threeLayers = 6 * time.Second
)

func clockJump() Script {
	return Script{
		Name: "clock-jump",
		Proves: "one wrong reading of the clock costs a PoET nothing, and a clock that stays wrong costs only the node that has it: " +
			"it is told, signs nothing twice, and has the state of the others when it is right again",
		Network: wrongClocks, Always: agreeAlways(blocksGoOn(), allLive(four), poetsLive(poets)),
		Steps: func(Flags) []Step {
			return []Step{
				healthy(four, four, poets),
				{
					Title: "the clock of poet-2 is an hour ahead for a second", Lasts: 45 * time.Second,
					At: nextRoundEnd(-6 * time.Second), Do: ahead("poet-2", time.Hour, aMoment),
					Checks: []Check{
						told("PoetClockJumped", "poet-2", 45*time.Second), roundsByTheClock(),
						{Name: "both PoETs have their proof in time", Within: 15 * time.Second, Look: proved},
						atxsGoOn(four, 1, 60*time.Second),
					},
				},
				{
					Title: "the clock of node-4 is three layers ahead for four epochs", Lasts: fourEpochs,
					Do: ahead("node-4", threeLayers, fourEpochs),
					Checks: []Check{
						told("PeersClockDiffers", "node-4", fourEpochs), convictsOnly(four, 0), roundsByTheClock(),
						{Name: "the others stay at the clock", Look: atTheClock(three)},
					},
				},
				again(four, "PoetClockJumped"),
			}
		},
	}
}

// roundsByTheClock says that each PoET takes registrations for the round that is open.
func roundsByTheClock() Check {
	var wrong time.Time // since
	return Check{Name: "rounds open when they should", Look: func(s *Stage) (bool, string) {
		_, poet := s.clock()
		now := time.Now()
		open, figure := poet.Open(now), ""
		ok := true
		for _, p := range s.now().Poets {
			if p.Round != nil {
				ok = ok && *p.Round == uint64(open)
				figure += fmt.Sprintf("%s has round %d open, ", p.Name, *p.Round)
			}
		}
		if ok {
			wrong = time.Time{}
		} else if wrong.IsZero() {
			wrong = now
		}
		// The testnet asks now and then, and a round closes between.
		return ok || now.Sub(wrong) < askTimeout, fmt.Sprintf("%sby the schedule it is %d", figure, open)
	}}
}

// proved looks for the proofs of the round that was remembered.
func proved(s *Stage) (bool, string) {
	n := s.finished(s.recall().round)
	return n == len(poets), fmt.Sprintf("%d of %d proofs of round %d", n, len(poets), s.recall().round)
}
