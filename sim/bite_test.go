package sim

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"tweedle/values/types"
)

// bite plays one kind of liar alone in calm weather, and returns the network and
// what honest nodes said.
func bite(t *testing.T, o Options) (*world, string) {
	t.Helper()
	none := func(list *[]string) {
		if *list == nil {
			*list = []string{}
		}
	}
	for _, list := range []*[]string{&o.Hostile, &o.Strangers, &o.Poets, &o.Clients} {
		none(list)
	}
	var transcript bytes.Buffer
	o.Seed, o.Nodes, o.Epochs, o.Faults, o.Transcript = 5, 10, 3, calm(), &transcript
	w := newWorld(o)
	w.play(w.end())
	w.final()
	for _, v := range w.result.Violations {
		t.Error(v)
	}
	var honest strings.Builder
	for line := range strings.Lines(transcript.String()) {
		if !regexp.MustCompile(`^ *-?[0-9.]+ n\d+!`).MatchString(line) {
			honest.WriteString(line)
		}
	}
	return w, honest.String()
}

// received are the times at which honest nodes had the hostile smesher's ATX of
// an epoch, by their own clocks.
func received(w *world, e types.Epoch) (out []time.Time) {
	for _, n := range w.honest() {
		if entry, ok := n.store.entries[w.nodes[0].made[e]]; ok {
			out = append(out, entry.Received)
		}
	}
	return out
}

// Each lie is really told, and comes to what it should come to: honest nodes say
// so in these words, or the network is as the function says.
func TestEachLieIsToldAndComesToNothing(t *testing.T) {
	acted := func(w *world) bool {
		for _, n := range w.nodes {
			if n.acted {
				return true
			}
		}
		return false
	}
	for kind, lies := range map[string]map[string]struct {
		says []string
		is   func(*world) bool
	}{
		"smesher": {
			"two-atxs":         {says: []string{`catches \w+: two ATXs for one epoch`, `ignores a ATX .* has two ATXs in this epoch already`}},
			"wrong-label":      {says: []string{`catches \w+: a proof of space with a wrong label`}},
			"two-proposals":    {says: []string{`catches \w+: two (proposals|ballots) in one layer`}},
			"edge-proposal":    {is: acted},
			"split-hare":       {says: []string{`catches .*: two hare messages in one round`}},
			"edge-hare":        {is: acted},
			"late-hare":        {is: acted},
			"flipped-ballots":  {is: acted},
			"two-ballots":      {says: []string{`catches \w+: two ballots in one layer`}},
			"hidden-ballots":   {says: []string{`asks n\d+ for \d+ objects, first ballot`}, is: acted},
			"split-votes":      {says: []string{`catches \w+: two decisions in one layer`}},
			"withheld-votes":   {is: acted},
			"beacon-withheld":  {is: acted},
			"beacon-late":      {says: []string{`ignores a beacon message .* came outside of its time`}},
			"beacon-split":     {is: acted},
			"beacon-two-faces": {is: acted},
			"beacon-ground":    {says: []string{`ignores a beacon message .* is over another nonce`}},
			"withheld-atx": {is: func(w *world) bool {
				for _, at := range received(w, 2) {
					if at.Before(w.cfg.Schedule.EpochStart(3)) {
						return false
					}
				}
				return len(received(w, 2)) > 0
			}},
			"late-atx": {is: func(w *world) bool {
				cut, early, late := w.cfg.Schedule.EpochStart(3).Add(-w.cfg.Schedule.EpochDuration()/20), 0, 0
				for _, at := range received(w, 2) {
					if at.After(cut) {
						late++
					} else {
						early++
					}
				}
				return early > 0 && late > 0
			}},
			"ground-coinbase": {is: func(w *world) bool {
				for _, n := range w.honest() {
					for _, a := range n.store.atxs {
						if a.SmesherID == n.key.NodeID() && a.PublishEpoch > 1 && a.PositioningATX == w.nodes[0].made[a.PublishEpoch-1] {
							return true
						}
					}
				}
				return false
			}},
			"silent": {is: func(w *world) bool {
				for _, n := range w.honest() {
					for _, b := range n.store.ballots {
						if b.Smesher == w.nodes[0].key.NodeID() {
							return false
						}
					}
				}
				return true
			}},
		},
		"stranger": {
			"unknown-references": {says: []string{`ignores a proposal .* did not come in time`, `ignores a decision .* did not come in time`}},
			"made-up-ids":        {says: []string{`charges n\d+ 0.5 points: it does not have what it refers to`}},
			"lying-peer":         {says: []string{`charges n\d+ 50 points: its answer cannot be read, or is not what it was asked for`, `bans n10`}},
			"junk-transactions":  {says: []string{`ignores a transaction from .*: balance is too low`}},
			"mute-peer":          {says: []string{`charges n\d+ 2 points: it does not answer in time`}},
			"empty-peer":         {is: acted},
			"stale-certificates": {is: acted},
			"cheap-poets": {is: func(w *world) bool {
				cheap := 0
				for _, p := range w.honest()[0].store.poets {
					if p.PoetID == (types.NodeID{1}) {
						cheap++
					}
				}
				return cheap > 0 && cheap <= 5*60
			}},
		},
		"poet": {
			"hangs":    {says: []string{`gets nothing of poet-1 for round 2: it does not answer`}},
			"pretends": {says: []string{`gets nothing of poet-1 for round 2: its round has no proof yet`}},
			"lies": {says: []string{
				`gets nothing of poet-1 for round 1: the work was not done`, `gets nothing of poet-1 for round 2: its answer cannot be read`,
				`gets nothing of poet-1 for round 3: the work was not done`, `gets nothing of poet-1 for round 4: the work was not done`,
				`refuses what poet-1 delivers of round 2: malformed`, `refuses what poet-1 delivers of round 4: the work was not done`,
			}},
			"omits": {says: []string{`though it signed for it: there is evidence`}, is: func(w *world) bool { return w.result.Omissions > 0 }},
		},
		"client": {
			"junk": {says: []string{`tells client 0: transaction is malformed`, `signature is wrong`, `amount \d+ and gas`, `does not pay for gas`}},
			"conflicts": {says: []string{`tells client 0: ignore gas price is too low to replace`}, is: func(w *world) bool {
				applied := 0
				for _, p := range w.clients[0].pairs {
					for _, id := range p {
						if w.honest()[0].store.txs[id] != nil {
							applied++
						}
					}
				}
				return applied > 2 && applied <= len(w.clients[0].pairs)
			}},
			"replays": {says: []string{`tells client 0: ignore nonce is too low`}},
		},
	} {
		for name, lie := range lies {
			t.Run(kind+" "+name, func(t *testing.T) {
				var o Options
				list := []string{name}
				switch kind {
				case "smesher":
					o.Hostile = list
				case "stranger":
					o.Strangers = list
				case "poet":
					o.Poets = list
				case "client":
					o.Clients = list
				}
				w, said := bite(t, o)
				for _, pattern := range lie.says {
					if !regexp.MustCompile(pattern).MatchString(said) {
						t.Errorf("no honest node says %q", pattern)
					}
				}
				if lie.is != nil && !lie.is(w) {
					t.Error("it had no effect that shows")
				}
			})
		}
		for _, name := range map[string][]string{
			"smesher": strategyNames().smeshers, "stranger": strategyNames().strangers, "poet": poetKinds(), "client": clientKinds(),
		}[kind] {
			if _, ok := lies[name]; !ok && name != "twins" { // see TestTwinScenariosAreCountedAndSampled
				t.Errorf("nothing shows that %s tells its lie", name)
			}
		}
	}
}
