package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tweedle/services/testnet"
	"tweedle/values/types"
)

// The network of the incident: five nodes are the gateways of both PoETs, and relay; the
// two that smesh are no gateways. So it is the missing proofs that stop it, and nothing
// else: the gateways have no weight.
var (
	gateways = []string{"node-1", "node-2", "node-3", "node-4", "node-5"}
	smeshers = []string{"node-6", "node-7"}
	everyone = append(slices.Clone(gateways), smeshers...)
	poets    = []string{"poet-1", "poet-2"}
)

const (
	// A node dials until it has 16 peers; the rest of its table is for who dials it.
	sessionLimit = 20
	strangers    = 32
	replaced     = 8 // sessions that each node must have replaced at least

	slots       = 5
	poetDisk    = 24 << 20 // bytes
	poetBallast = 2 << 20
	// poetGrowth bounds what two rounds without a gateway may add to a PoET's folder.
	poetGrowth = 4 << 20
)

func tweedledee() Script {
	return Script{
		Name: "tweedledee",
		Proves: "the incident of August 2020 costs this network nothing that lasts: no node dies of its sessions, undelivered proofs fill no disk, " +
			"people are told in seconds, and the network goes on with the same genesis as soon as there are gateways",
		Variants: true,
		Network:  incidentNetwork, Disks: poets, DiskSize: poetDisk,
		Steps: func(f Flags) []Step {
			return []Step{
				healthy(everyone, smeshers, poets),
				sessionFlood(),
				gatewaysDie(f),
				twoMoreRounds(f),
				gatewaysReturn(f),
				recovery(f),
			}
		},
		Always: func(f Flags) []Check {
			all := []Check{poetsLive(poets), noDisagreement()}
			if f.Pull || f.Recycle {
				all = append(all, blocksGoOn())
			}
			return all
		},
	}
}

func incidentNetwork(f Flags) testnet.Options {
	o := testnet.Options{Nodes: len(everyone), Poets: len(poets), Gateways: len(everyone), Preset: "local", TxRate: 2, Arguments: map[string][]string{}}
	for _, name := range everyone {
		args := []string{"--max-peers", fmt.Sprint(sessionLimit)}
		if !f.Pull {
			args = append(args, "--drill-no-pull")
		}
		if slices.Contains(gateways, name) {
			args = append(args, "--smeshing=false")
		}
		o.Arguments[name] = args
	}
	for _, name := range poets {
		args := []string{"--gateway-slots", fmt.Sprint(slots), "--ballast-bytes", fmt.Sprint(poetBallast)}
		if !f.Recycle {
			args = append(args, "--drill-no-recycle")
		}
		o.Arguments[name] = args
	}
	return o
}

// endedForRoom counts the sessions that a newcomer replaced.
const endedForRoom = `tweedle_p2p_sessions_ended_total{reason="room"}`

// sessionFlood is the incident's first link.
func sessionFlood() Step {
	var most float64
	return Step{
		Title: fmt.Sprintf("%d strangers fill the session tables, which hold %d, until sessions are replaced", strangers, sessionLimit),
		Lasts: 12 * time.Second,
		Do: flood(strangers, func(s *Stage) bool {
			low, _ := s.spread(endedForRoom)
			return low >= replaced
		}),
		Checks: []Check{
			{Name: fmt.Sprintf("every node replaces at least %d sessions", replaced), Within: 60 * time.Second, Look: func(s *Stage) (bool, string) {
				low, high := s.spread(endedForRoom)
				return low >= replaced, fmt.Sprintf("%g to %g sessions replaced", low, high)
			}},
			{Name: fmt.Sprintf("no table holds more than %d", sessionLimit), Look: func(s *Stage) (bool, string) {
				_, high := s.spread(`tweedle_p2p_sessions{kind="now"}`)
				most = max(most, high)
				return most <= sessionLimit, fmt.Sprintf("%g sessions at most", most)
			}},
			allLive(everyone),
			{Name: "every node keeps its six peers", Then: true, Within: 60 * time.Second, Look: func(s *Stage) (bool, string) {
				n := 0
				for _, m := range s.now().Nodes {
					if m.Peers != nil && *m.Peers == len(everyone)-1 {
						n++
					}
				}
				return n == len(everyone), fmt.Sprintf("%d of %d nodes have them, and nobody else", n, len(everyone))
			}},
			blocksGoOn(),
		},
	}
}

// spread returns the least and the most of a series over all nodes.
func (s *Stage) spread(series string) (low, high float64) {
	for i, n := range s.now().Nodes {
		v, err := s.metric(n.Metrics, series)
		if err != nil {
			continue // another check tells if it is gone
		}
		if i == 0 || v < low {
			low = v
		}
		high = max(high, v)
	}
	return low, high
}

// gatewaysDie is the second link: all of them, as a round ends.
func gatewaysDie(f Flags) Step {
	step := Step{
		Title: "all five gateways are killed as a round ends",
		At:    nextRoundEnd(-200 * time.Millisecond), Do: kill(gateways...), Lasts: 6 * time.Second,
		Checks: []Check{
			{Name: "each crash is told", Within: 10 * time.Second, Look: func(s *Stage) (bool, string) {
				told, last := 0, time.Duration(0)
				for _, a := range s.alerts.list() {
					if a.Name == "NodeCrashed" && !a.Resolved && slices.Contains(gateways, a.Of) {
						told, last = told+1, max(last, a.Came.Sub(s.recall().faultAt))
					}
				}
				return told >= len(gateways), fmt.Sprintf("%d of %d told, the last %.1f s after the kill", told, len(gateways), last.Seconds())
			}},
		},
	}
	if f.Recycle {
		step.Checks = append(step.Checks, Check{Name: "slots go to the two that are left, and the proof goes out", Within: 30 * time.Second, Look: func(s *Stage) (bool, string) {
			figure, ok := "", true
			for _, p := range s.now().Poets {
				at, known := s.delivered(p, s.recall().round)
				ok = ok && known && slotsAlive(p) == len(smeshers)
				figure += fmt.Sprintf("%s: %d slots alive, round %d %s; ", p.Name, slotsAlive(p), s.recall().round, after(at, s.recall().faultAt))
			}
			return ok, strings.TrimSuffix(figure, "; ")
		}})
		return step
	}
	step.Checks = append(step.Checks, Check{Name: "the proof stays in both outboxes", Within: 15 * time.Second, Look: func(s *Stage) (bool, string) {
		n := s.waiting()
		return n >= len(poets), fmt.Sprintf("%d proofs wait", n)
	}})
	return step
}

func after(at, from time.Time) string {
	if at.IsZero() {
		return "not delivered"
	}
	return fmt.Sprintf("delivered after %.1f s", at.Sub(from).Seconds())
}

// delivered returns when a PoET's proof of a round was delivered.
func (s *Stage) delivered(p testnet.PoetStatus, round uint32) (at time.Time, ok bool) {
	proofs, err := s.proofs(context.Background(), p)
	if err != nil {
		return at, false
	}
	for _, d := range proofs {
		if d.RoundId == fmt.Sprint(round) && d.Delivered != nil {
			return d.Delivered.AsTime(), true
		}
	}
	return at, false
}

// waiting returns how many proofs wait in all outboxes.
func (s *Stage) waiting() (n int) {
	for _, p := range s.now().Poets {
		if p.Undelivered != nil {
			n += *p.Undelivered
		}
	}
	return n
}

// twoMoreRounds are the third and the fourth link: what nobody takes fills the disk, and
// without proofs there are no ATXs, then no blocks.
func twoMoreRounds(f Flags) Step {
	var most int64
	step := Step{
		Title: "two more rounds with nobody to deliver to, on full disks",
		Lasts: 46 * time.Second,
		Do: func(_ context.Context, s *Stage) error {
			size := s.poetBytes()
			s.remember(func(m *memory) { m.bytes = size })
			return s.fillDisks()
		},
		Checks: []Check{
			// Smeshers who wait for the proof of one round are not in the next one.
			{Name: "both PoETs go through two more rounds, and prove the one with members", Within: 70 * time.Second, Look: func(s *Stage) (bool, string) {
				second := s.recall().round + 2
				n := s.finished(second)
				return n == len(poets), fmt.Sprintf("%d of %d have the proof of round %d, the fault was at the end of %d", n, len(poets), second, second-2)
			}},
			{Name: "the full disks are told", Within: 70 * time.Second, Skip: func(s *Stage) string { return s.noDisk }, Look: toldOf("PoetDiskFull", 1)},
			{Name: fmt.Sprintf("undelivered rounds take less than %d MiB", poetGrowth>>20), Look: func(s *Stage) (bool, string) {
				if before := s.recall().bytes; before > 0 {
					most = max(most, s.poetBytes()-before)
				}
				return most < poetGrowth, fmt.Sprintf("the PoETs' folders grew by %d KiB", most>>10)
			}},
		},
	}
	if f.Recycle {
		step.Title = "two more rounds, delivered by the two that are left, on full disks"
		step.Checks = append(step.Checks, Check{Name: "nothing waits", Within: 70 * time.Second, Look: func(s *Stage) (bool, string) {
			return s.finished(s.recall().round+2) == len(poets) && s.waiting() == 0, fmt.Sprintf("%d proofs wait", s.waiting())
		}})
		return step
	}
	step.Title = "two more rounds with nobody to deliver to, on full disks"
	step.Checks = append(step.Checks,
		Check{Name: "the dead gateways are told", Within: 70 * time.Second, Look: toldOf("PoetAllSlotsDead", 1)},
		Check{Name: "the overdue proofs are told", Within: 70 * time.Second, Look: toldOf("PoetProofUndelivered", 1)})
	if f.Pull {
		step.Checks = append(step.Checks, Check{Name: "smeshers get the proofs from the PoETs: ATXs go on", Within: 70 * time.Second, Look: func(s *Stage) (bool, string) {
			n, known := s.atxsOf(s.recall().round + 3)
			return known && n == len(smeshers), fmt.Sprintf("%d ATXs count in epoch %d", n, s.recall().round+3)
		}})
		return step
	}
	step.Checks = append(step.Checks,
		Check{Name: "ATXs stop, as they did", Within: 70 * time.Second, Look: func(s *Stage) (bool, string) {
			n, known := s.atxsOf(s.recall().round + 2)
			return known && n == 0, fmt.Sprintf("%d ATXs count in epoch %d", n, s.recall().round+2)
		}},
		Check{Name: "then blocks stop, as they did", Within: 70 * time.Second, Look: func(s *Stage) (bool, string) {
			layers, _ := s.clock()
			last := s.newest().Layer
			end := uint32(layers.First(epoch(s.recall().round + 2)))
			stopped := s.now().Layer > end+stalledLayers && last < end
			return stopped && last+someLayers >= end, fmt.Sprintf("the last block is of layer %d, the last epoch with ATXs ends with %d", last, end-1)
		}},
		Check{Name: "the alert of the stall says why, up the chain", Within: 80 * time.Second, Look: func(s *Stage) (bool, string) {
			a, n := s.alerts.first("NetworkStalled")
			why := a.Notes["why"]
			said := n > 0
			for _, link := range []string{"ATX", "poet-1", "poet-2", "gateway"} {
				said = said && strings.Contains(why, link)
			}
			return said, fmt.Sprintf("it says %q", why)
		}})
	return step
}

const (
	// stalledLayers is for how many layers nothing is applied when the watch calls it a stall.
	stalledLayers = 8
	// someLayers without a block at the end of an epoch are not its ATXs' fault.
	someLayers = 4
)

// toldOf looks for an alert of so many processes at least. The second of a group may be
// told half a minute later.
func toldOf(name string, of int) func(*Stage) (bool, string) {
	return func(s *Stage) (bool, string) {
		first, n := s.alerts.first(name)
		if n == 0 {
			return false, "no " + name
		}
		return n >= of, fmt.Sprintf("%s of %d, the first %.1f s after the kill", name, n, first.Came.Sub(s.recall().faultAt).Seconds())
	}
}

// gatewaysReturn ends it.
func gatewaysReturn(f Flags) Step {
	step := Step{
		Title: "the five come back under other addresses, and an operator names them through the API",
		Lasts: 15 * time.Second,
		Do: func(ctx context.Context, s *Stage) error {
			if err := errors.Join(s.freeDisks(), s.do(ctx, testnet.Move, gateways)); err != nil {
				return err
			}
			// A gateway that is not synced takes no proofs, and says so.
			err := until(ctx, time.Minute, "the five are synced", func() bool {
				for _, n := range s.nodes(gateways) {
					if st, err := s.ask(n); err != nil || !st.Synced || st.Peers == 0 {
						return false
					}
				}
				return true
			})
			if err != nil || f.Recycle {
				return err
			}
			return s.setGateways(ctx, everyone)
		},
		Checks: []Check{
			{Name: "they have other addresses", Within: time.Minute, Look: func(s *Stage) (bool, string) {
				n := 0
				for _, now := range s.nodes(gateways) {
					if old := s.recall().before[now.Name]; now.State == testnet.Running && now.GRPC != old.GRPC && now.P2P != old.P2P {
						n++
					}
				}
				return n == len(gateways), fmt.Sprintf("%d of %d", n, len(gateways))
			}},
		},
	}
	if f.Recycle {
		step.Title = "the five come back under other addresses; nobody tells the PoETs"
		step.Checks = append(step.Checks, Check{Name: "nothing waits", Then: true, Within: time.Minute, Look: func(s *Stage) (bool, string) {
			return s.waiting() == 0, fmt.Sprintf("%d proofs wait", s.waiting())
		}})
		return step
	}
	step.Checks = append(step.Checks, Check{Name: "all waiting proofs go out within 15 s, in order, without a restart", Within: 90 * time.Second, Look: delivers(15 * time.Second)})
	return step
}

// delivers looks that what waited when the gateways were set is delivered in time, and in
// the order of the rounds.
func delivers(within time.Duration) func(*Stage) (bool, string) {
	return func(s *Stage) (bool, string) {
		if s.recall().setAt.IsZero() {
			return false, "the gateways are not set yet"
		}
		ok, parts := true, []string{}
		for _, p := range s.now().Poets {
			proofs, err := s.proofs(context.Background(), p)
			if err != nil {
				return false, fmt.Sprintf("%s: %v", p.Name, err)
			}
			var rounds []string
			last := time.Time{}
			for _, d := range proofs {
				at := d.Delivered.AsTime()
				if d.Delivered != nil && at.Before(s.recall().setAt) || d.Added.AsTime().After(s.recall().setAt) {
					continue // before, or after
				}
				if d.Delivered == nil {
					ok = false
					rounds = append(rounds, d.RoundId+" "+d.State)
					continue
				}
				rounds = append(rounds, d.RoundId)
				ok = ok && !at.Before(last) && at.Sub(s.recall().setAt) <= within
				last = at
			}
			ok = ok && len(rounds) > 0 && s.starts(p.Name) == 1
			parts = append(parts, fmt.Sprintf("%s: rounds %s, the last after %.1f s", p.Name, strings.Join(rounds, ", "), last.Sub(s.recall().setAt).Seconds()))
		}
		return ok, strings.Join(parts, "; ")
	}
}

// expected are the alerts that may come: what was done, from every side.
func expected(f Flags) []string {
	names := []string{"NodeCrashed", "TargetDown", "PeersLow", "LayerStalled", "PoetBroadcastFailed", "PoetGatewaySlotDead", "PoetAllSlotsDead",
		"PoetProofUndelivered", "ProofNotSeenByNodes", "PoetDiskLow", "PoetDiskFull", "PoetWriterStopped"}
	if !f.Pull && !f.Recycle {
		names = append(names, "AtxDrop", "SmesherLate", "SmesherTrouble", "NetworkStalled")
	}
	return names
}

// recovery is the end. Smeshers who got a proof late were not in the round after it, so one
// more epoch can be without ATXs, and be told, before all is as it was.
func recovery(f Flags) Step {
	step := Step{
		Title: "ATXs, blocks and state go on with the same genesis, and every alert resolves",
		Lasts: 80 * time.Second,
		Do: func(ctx context.Context, s *Stage) error {
			if f.Recycle {
				return s.setGateways(ctx, everyone) // so that the dead ones are forgotten
			}
			return nil
		},
		Checks: []Check{
			{Name: "every smesher has an ATX again", Within: 100 * time.Second, Look: func(s *Stage) (bool, string) {
				now := s.now()
				n := 0
				for _, m := range s.nodes(smeshers) {
					if m.ATXEpoch != nil && *m.ATXEpoch > s.recall().round+1 && *m.ATXEpoch+1 >= now.Epoch {
						n++
					}
				}
				return n == len(smeshers), fmt.Sprintf("%d of %d in epoch %d", n, len(smeshers), now.Epoch)
			}},
			{Name: "blocks of an epoch with all ATXs, and one state on all nodes", Within: 120 * time.Second, Look: func(s *Stage) (bool, string) {
				layers, _ := s.clock()
				e := uint32(layers.EpochOf(types.Layer(s.newest().Layer)))
				n, _ := s.atxsOf(e)
				ok, figure := agreement(everyone, func(*Stage) uint32 { return uint32(layers.First(epoch(s.recall().round + 3))) })(s)
				return ok && n == len(smeshers), fmt.Sprintf("epoch %d with %d ATXs, %s", e, n, figure)
			}},
			{Name: "the same genesis", Within: 120 * time.Second, Look: func(s *Stage) (bool, string) {
				n, genesis := 0, s.genesis()
				for _, m := range s.nodes(everyone) {
					if st, err := s.ask(m); err == nil && st.GenesisID == genesis {
						n++
					}
				}
				return n == len(everyone), fmt.Sprintf("%d nodes of %.10s", n, genesis)
			}},
			quiet(150 * time.Second),
			only(expected(f)...),
		},
	}
	if !f.Recycle {
		for _, name := range []string{"PoetAllSlotsDead", "PoetProofUndelivered"} {
			step.Checks = append(step.Checks, Check{Name: name + " was told of both PoETs", Within: 10 * time.Second, Look: toldOf(name, len(poets))})
		}
	}
	return step
}
