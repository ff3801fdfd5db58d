package page

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Link is a part of what must work for state to move. Each needs those before it.
type Link struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Href  string `json:"href"` // of the part of the page that shows it
	State State  `json:"state"`
	Fact  string `json:"fact"` // how it is, in numbers
	Why   string `json:"why"`  // what is wrong; empty: nothing
}

// The links, the causes first.
const (
	linkNodes    = "nodes"
	linkRounds   = "rounds"
	linkDelivery = "delivery"
	linkATXs     = "atxs"
	linkLayers   = "layers"
	linkState    = "state"
	linkWatch    = "watch"
)

// places are parts of the page, by link.
var places = map[string]string{
	linkNodes: "#nodes", linkRounds: "#poets", linkDelivery: "#poets", linkATXs: "#atxs", linkLayers: "#layers", linkState: "#layers", linkWatch: "#alerts",
}

// links says to which link an alert belongs. What is not here, rules of the operator, goes by
// the job of its program.
var links = map[string]string{
	"NodeCrashed": "", "NodeCrashLooping": "", "TargetDown": "", "ServerBug": "",
	"DiskLow": linkNodes, "DiskWillFill": linkNodes, "InodesLow": linkNodes, "MemoryLow": linkNodes, "OOMKilled": linkNodes, "CPUHigh": linkNodes,
	"ClockSkew": linkNodes, "PeersClockDiffers": linkNodes, "SyncStuck": linkNodes, "PeersLow": linkNodes, "SessionsDead": linkNodes,

	"PoetRoundLate": linkRounds, "PoetWorkerStopped": linkRounds, "PoetWriterStopped": linkRounds, "PoetClockJumped": linkRounds,
	"PoetProofUnreadable": linkRounds, "PoetDiskLow": linkRounds, "PoetDiskFull": linkRounds,

	"PoetBroadcastFailed": linkDelivery, "PoetProofUndelivered": linkDelivery, "PoetGatewaySlotDead": linkDelivery,
	"PoetAllSlotsDead": linkDelivery, "PoetSlotRecycled": linkDelivery, "ProofNotSeenByNodes": linkDelivery,

	"AtxDrop": linkATXs, "SmesherLate": linkATXs, "SmesherTrouble": linkATXs, "IdentityTwice": linkATXs,
	"NetworkStalled": linkLayers, "LayerStalled": linkLayers,
	"StateRootFork": linkState, "StateDisputed": linkState, "LayersUndone": linkState,

	"TargetMissing": linkWatch, "Watchdog": linkWatch, "AlertDeliveryFailing": linkWatch, "RuleEvalFailing": linkWatch,
	"ConfigReloadFailed": linkWatch, "WatchStorageFailing": linkWatch, "HeartbeatFailing": linkWatch,
}

func (b *builder) link(a Alert) string {
	if l := links[a.Name]; l != "" {
		return l
	}
	switch cmp.Or(b.jobs[a.Labels["name"]], a.Labels["job"]) {
	case "poet":
		return linkRounds
	case "watch":
		return linkWatch
	}
	return linkNodes
}

// chain judges each link by its alerts and by what is plain to see.
func (b *builder) chain() {
	add := func(id, name string, state State, why, fact string) {
		l := Link{ID: id, Name: name, Href: places[id], State: state, Why: why, Fact: fact}
		var alert string
		worst := OK
		for _, a := range b.m.Alerts {
			if a.Link == id && a.state().rank() > worst.rank() {
				worst, alert = a.state(), a.Summary
			}
		}
		if worst.rank() > state.rank() || worst == state && why == "" && alert != "" {
			l.State, l.Why = worst, alert
		}
		b.m.Chain = append(b.m.Chain, l)
	}
	for _, judge := range []func(func(id, name string, state State, why, fact string)){b.nodesLink, b.roundsLink, b.deliveryLink, b.atxsLink, b.layersLink, b.stateLink} {
		judge(add)
	}
	state, why := OK, ""
	if !b.m.Status.WatchOK {
		state, why = Waits, "its rules have not been evaluated yet"
	}
	var others []string
	for _, p := range b.m.Programs {
		if p.State == Bad {
			others = append(others, p.Name)
		}
	}
	if len(others) > 0 {
		state, why = Warn, names(others)+answerNot(others)
	}
	fact := "its rules work, nothing fires"
	if st := b.m.Status; st.Pages+st.Warnings > 0 {
		fact = firing(st.Pages, st.Warnings)
	}
	if !b.m.Status.WatchOK {
		fact = "starts"
	}
	add(linkWatch, "Watch", state, why, fact)
}

type adder = func(id, name string, state State, why, fact string)

func (b *builder) nodesLink(add adder) {
	st := b.m.Status
	state, why := OK, ""
	var silent, unsynced []string
	for _, n := range b.m.Nodes {
		seen := b.Nodes[n.Name]
		switch {
		case !b.answers(seen.At):
			silent = append(silent, n.Name)
		case !n.Synced && st.Phase == "running":
			unsynced = append(unsynced, n.Name)
		}
	}
	switch {
	case st.Nodes == 0:
		add(linkNodes, "Nodes", Unknown, "", "no node is watched")
		return
	case len(silent) > 0 && 2*len(silent) >= st.Nodes:
		state, why = Bad, names(silent)+answerNot(silent)
	case len(silent) > 0:
		state, why = Warn, names(silent)+answerNot(silent)
	case len(unsynced) > 0:
		state, why = Warn, names(unsynced)+isAre(unsynced)+" not in sync"
	}
	add(linkNodes, "Nodes", state, why, fmt.Sprintf("%d of %d answer", st.Answering, st.Nodes))
}

func (b *builder) roundsLink(add adder) {
	if len(b.m.Poets) == 0 {
		add(linkRounds, "PoET rounds", Unknown, "", "no PoET is watched")
		return
	}
	state, why := OK, ""
	executing, open, told := 0, 0, false
	for _, p := range b.m.Poets {
		if p.State == Bad && strings.HasPrefix(p.Text, "does not answer") {
			state, why = Warn, p.Name+" "+p.Text
			if len(b.m.Poets) == 1 {
				state = Bad
			}
		}
		for _, r := range p.Rounds {
			told = true
			switch r.State {
			case "executing", "proving":
				executing++
			case "open":
				open++
			}
		}
		if len(p.Rounds) == 0 {
			for s, n := range map[string]*int{"executing": &executing, "proving": &executing, "open": &open} {
				if v, ok := b.series.of("poet_rounds", "poet", p.Name, "state", s); ok {
					*n += int(v)
					told = true
				}
			}
		}
	}
	if state == OK && !told {
		state = Waits
	}
	add(linkRounds, "PoET rounds", state, why, fmt.Sprintf("%s: %d open, %d at work", count(len(b.m.Poets), "PoET"), open, executing))
}

func (b *builder) deliveryLink(add adder) {
	if len(b.m.Poets) == 0 {
		add(linkDelivery, "Proof delivery", Unknown, "", "no PoET is watched")
		return
	}
	state, why := OK, ""
	waiting, live, slots := 0, 0, 0
	oldest := 0.0
	var cut []string // off: no live gateway
	for _, p := range b.m.Poets {
		waiting, live, slots, oldest = waiting+p.Undelivered, live+p.Live, slots+p.Live+p.Dead, max(oldest, p.Oldest)
		switch {
		case p.Live == 0 && p.Dead > 0:
			cut = append(cut, p.Name)
			state, why = Bad, names(cut)+map[bool]string{true: " has", false: " have"}[one(cut)]+" no live gateway"
		case p.Dead > 0 && state == OK:
			state, why = Warn, fmt.Sprintf("%s of %s %s", count(p.Dead, "gateway"), p.Name, map[bool]string{true: "is dead", false: "are dead"}[p.Dead == 1])
		case p.Live == 0 && p.Candidates == 0 && len(p.Gateways) == 0 && state == OK && b.m.Status.Phase == "running":
			state, why = Warn, p.Name+" has no gateway"
		}
	}
	fact := fmt.Sprintf("%d of %s live", live, count(slots, "gateway"))
	if waiting > 0 {
		fact = fmt.Sprintf("%s, the oldest for %.0f s; %s", count(waiting, "proof")+map[bool]string{true: " waits", false: " wait"}[waiting == 1], oldest, fact)
	} else {
		fact = "nothing waits; " + fact
	}
	add(linkDelivery, "Proof delivery", state, why, fact)
}

func (b *builder) atxsLink(add adder) {
	if len(b.m.Epochs) == 0 {
		add(linkATXs, "ATXs", Waits, "", "no epoch yet")
		return
	}
	now := b.m.Epochs[len(b.m.Epochs)-1]
	fact := fmt.Sprintf("none known of epoch %d", now.Epoch)
	if now.ATXs != nil {
		fact = fmt.Sprintf("%d in epoch %d so far", *now.ATXs, now.Epoch)
	}
	state, why := OK, ""
	if len(b.m.Epochs) > 1 {
		last := b.m.Epochs[len(b.m.Epochs)-2]
		if last.ATXs != nil {
			fact += fmt.Sprintf(", %d in epoch %d", *last.ATXs, last.Epoch)
			switch {
			case *last.ATXs == 0 && last.Epoch+1 >= b.m.Status.firstEpoch():
				state, why = Bad, fmt.Sprintf("epoch %d had no ATX: epoch %d has no blocks", last.Epoch, last.Epoch+1)
			case last.Drop:
				state, why = Warn, fmt.Sprintf("epoch %d had only %d", last.Epoch, *last.ATXs)
			}
		}
	}
	add(linkATXs, "ATXs", state, why, fact)
}

func (b *builder) layersLink(add adder) {
	st := b.m.Status
	switch {
	case st.Phase == "empty":
		add(linkLayers, "Layers", Unknown, "", "nobody told of the network's clock")
	case st.Phase == "before":
		add(linkLayers, "Layers", Waits, "", "before genesis")
	case st.Phase == "early" || st.Layer < st.FirstLayer+lateAfter:
		add(linkLayers, "Layers", Waits, "", fmt.Sprintf("layer %d; the first block comes in layer %d", st.Layer, st.FirstLayer))
	case st.Answering == 0:
		add(linkLayers, "Layers", Unknown, "", fmt.Sprintf("layer %d; no node answers", st.Layer))
	case st.Lag > warnLag:
		add(linkLayers, "Layers", Warn, fmt.Sprintf("no layer has been applied for %d layers", st.Lag), fmt.Sprintf("layer %d, applied %d", st.Layer, st.Applied))
	default:
		add(linkLayers, "Layers", OK, "", fmt.Sprintf("layer %d, applied %d", st.Layer, st.Applied))
	}
}

func (b *builder) stateLink(add adder) {
	st := b.m.Status
	differ, since := b.differing()
	switch {
	case st.Roots > 1:
		add(linkState, "State", Bad, fmt.Sprintf("%s %s from the others since layer %d", names(differ), differVerb(differ), since), fmt.Sprintf("%d different states", st.Roots))
	case len(differ) > 0:
		add(linkState, "State", Warn, fmt.Sprintf("%s differed in layer %d", names(differ), since), "one state again")
	case st.Roots == 1:
		add(linkState, "State", OK, "", "all have the same")
	case st.Answering == 0 && st.Phase == "running":
		add(linkState, "State", Unknown, "", "no node answers")
	case st.Applied >= st.FirstLayer && st.Phase == "running":
		add(linkState, "State", Unknown, "", fmt.Sprintf("unchanged for more than %d layers", Window))
	default:
		add(linkState, "State", Waits, "", "no block yet")
	}
}

// verdict is the whole in a sentence, and the first cause.
func (b *builder) verdict() {
	st := &b.m.Status
	var first *Link
	st.State = OK
	broken := 0
	for i, l := range b.m.Chain {
		if l.State != Bad && l.State != Warn {
			continue
		}
		broken++
		if first == nil || l.State.rank() > first.State.rank() {
			first = &b.m.Chain[i]
		}
	}
	switch {
	case len(b.Targets) == 0 || st.Nodes == 0 && len(b.m.Poets) == 0:
		st.State, st.Verdict, st.Why = Unknown, "Nothing is watched yet", "Name nodes and PoETs as targets in the watch's configuration."
	case first != nil:
		st.State, st.Why = first.State, first.Name+": "+first.Why
		st.Verdict = map[State]string{Bad: "Something is broken", Warn: "It works, with warnings"}[first.State]
		if first.State == Bad && slices.ContainsFunc(b.m.Chain, func(l Link) bool { return l.ID == linkLayers && l.State == Bad }) {
			st.Verdict = "The network stands still"
		}
	case st.Phase == "empty":
		st.State, st.Verdict, st.Why = Waits, "Nobody has answered yet", ""
	case st.Phase == "before":
		st.State, st.Verdict, st.Why = Waits, "Before genesis", ""
	case st.Phase == "early":
		st.State, st.Verdict, st.Why = OK, "All is well", fmt.Sprintf("The first block comes in layer %d.", st.FirstLayer)
	default:
		st.Verdict = "All is well"
	}
	if st.Silenced > 0 && st.Why == "" {
		st.Why = count(st.Silenced, "alert") + " silenced"
	}
}

// names lists some names.
func names(all []string) string {
	const most = 3
	if len(all) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
	}
	return strings.Join(all, ", ")
}

// firing counts alerts in words.
func firing(pages, warnings int) string {
	var parts []string
	if pages > 0 {
		parts = append(parts, count(pages, "page"))
	}
	if warnings > 0 {
		parts = append(parts, count(warnings, "warning"))
	}
	return strings.Join(parts, ", ")
}

func one(all []string) bool { return len(all) == 1 }

func answerNot(all []string) string {
	return map[bool]string{true: " does not answer", false: " do not answer"}[one(all)]
}

func isAre(all []string) string { return map[bool]string{true: " is", false: " are"}[one(all)] }

func differVerb(all []string) string {
	return map[bool]string{true: "differs", false: "differ"}[one(all)]
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Linked lists the alerts whose link is known.
func Linked() []string { return slices.Sorted(maps.Keys(links)) }
