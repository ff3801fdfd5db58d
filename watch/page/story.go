package page

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Event is a line of the log.
type Event struct {
	ID    int       `json:"id"`
	At    time.Time `json:"at"`
	Kind  string    `json:"kind"`  // alert, node, poet, epoch, network, operator
	State State     `json:"state"` // how good or bad the news is
	Who   string    `json:"who,omitempty"`
	Text  string    `json:"text"`
	Alert string    `json:"alert,omitempty"` // has a runbook
	Crash string    `json:"crash,omitempty"` // has a report
}

// maxEvents is how many are kept.
const maxEvents = 300

// story is the log of what changed from one model to the next. It has one owner.
type story struct {
	last   *Model
	nextID int
	log    []Event // the oldest first
}

func (s *story) tell(e Event) {
	s.nextID++
	e.ID, e.At, e.Text = s.nextID, e.At.UTC().Truncate(time.Second), clip(e.Text, maxText)
	s.log = append(s.log, e)
	s.log = s.log[max(0, len(s.log)-maxEvents):]
}

// next adds what is new in a model.
func (s *story) next(m *Model) {
	at := m.Status.At
	say := func(kind, who string, state State, format string, args ...any) {
		s.tell(Event{At: at, Kind: kind, Who: who, State: state, Text: fmt.Sprintf(format, args...)})
	}
	last := s.last
	s.last = m
	if last == nil {
		say("network", "", m.Status.State, "the watch looks at %s and %s", count(m.Status.Nodes, "node"), count(len(m.Poets), "PoET"))
		last = &Model{}
	}
	if m.Status.State != last.Status.State && m.Status.Verdict != "" {
		text := m.Status.Verdict
		if m.Status.Why != "" {
			text += ". " + m.Status.Why
		}
		say("network", "", m.Status.State, "%s", text)
	}
	if m.Status.Phase != last.Status.Phase && m.Status.Phase == "early" && last.Status.Phase == "before" {
		say("network", "", OK, "genesis")
	}
	if e := len(m.Epochs); e > 1 && len(last.Epochs) > 0 && m.Status.Epoch > last.Status.Epoch {
		state, atxs := OK, "it is not known how many ATXs were"
		if over := m.Epochs[e-2]; over.ATXs != nil {
			atxs = count(*over.ATXs, "ATX")
			if *over.ATXs != 1 {
				atxs = fmt.Sprintf("%d ATXs were", *over.ATXs)
			} else {
				atxs += " was"
			}
			if over.Drop {
				state = Warn
			}
		}
		say("epoch", "", state, "epoch %d begins; %s published in epoch %d", m.Status.Epoch, atxs, m.Status.Epoch-1)
	}
	s.alerts(last, m)
	s.nodes(last, m)
	s.poets(last, m)
}

func (s *story) alerts(last, m *Model) {
	find := func(m *Model, id string) *Firing {
		if i := slices.IndexFunc(m.Alerts, func(f Firing) bool { return f.ID == id }); i >= 0 {
			return &m.Alerts[i]
		}
		return nil
	}
	for _, a := range m.Alerts {
		tell := func(state State, format string, args ...any) {
			s.tell(Event{At: m.Status.At, Kind: "alert", Who: a.Program, State: state, Alert: a.Name, Crash: a.Crash, Text: fmt.Sprintf(format, args...)})
		}
		before := find(last, a.ID)
		if before == nil {
			tell(a.state(), "%s: %s", a.Name, a.Summary)
		}
		switch had := before != nil && before.Silence != nil; {
		case a.Silence != nil && !had:
			tell(OK, "%s is silenced by %s until %s: %s", a.Name, a.Silence.By, a.Silence.Until.UTC().Format(time.DateTime+"Z"), a.Silence.Comment)
		case a.Silence == nil && had:
			tell(OK, "%s is no longer silenced", a.Name)
		}
	}
	for _, a := range last.Alerts {
		if find(m, a.ID) == nil {
			s.tell(Event{At: m.Status.At, Kind: "alert", Who: a.Program, State: OK, Alert: a.Name, Text: a.Name + " is over"})
		}
	}
}

func (s *story) nodes(last, m *Model) {
	before := make(map[string]Node, len(last.Nodes))
	for _, n := range last.Nodes {
		before[n.Name] = n
	}
	news := crowd{}
	for _, n := range m.Nodes {
		old, had := before[n.Name]
		delete(before, n.Name)
		if !had {
			if len(last.Nodes) > 0 {
				news.add("watched now", OK, n.Name, "is watched now")
			}
			continue
		}
		switch {
		case old.Seen.IsZero() && !n.Seen.IsZero():
			news.add("silent", Bad, n.Name, n.Text)
		case !old.Seen.IsZero() && n.Seen.IsZero():
			news.add("answering again", OK, n.Name, "answers again")
		}
		if old.Started != 0 && n.Started > old.Started {
			news.add("started again", Warn, n.Name, "was started again")
		}
		if old.Synced != n.Synced && n.Seen.IsZero() {
			if n.Synced {
				news.add("in sync", OK, n.Name, "is in sync")
			} else {
				news.add("not in sync", Warn, n.Name, "is not in sync: "+n.Text)
			}
		}
		if old.Step.Trouble == "" && n.Step.Trouble != "" {
			news.add("in trouble with their smesher's step", Warn, n.Name, "smesher: "+n.Step.Trouble)
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(before), byNumber) {
		news.add("no longer watched", Waits, name, "is no longer watched")
	}
	news.tell(s, m.Status.At)
}

// crowd is what happened to nodes at once: one line for many.
type crowd map[string][]Event

func (c crowd) add(what string, state State, who, text string) {
	c[what] = append(c[what], Event{State: state, Who: who, Text: text})
}

func (c crowd) tell(s *story, at time.Time) {
	const many = 5
	for _, what := range slices.Sorted(maps.Keys(c)) {
		all := c[what]
		if len(all) > many {
			var who []string
			for _, e := range all {
				who = append(who, e.Who)
			}
			s.tell(Event{At: at, Kind: "node", State: all[0].State, Text: names(who) + " are " + what})
			continue
		}
		for _, e := range all {
			e.At, e.Kind = at, "node"
			s.tell(e)
		}
	}
}

func (s *story) poets(last, m *Model) {
	for _, p := range m.Poets {
		i := slices.IndexFunc(last.Poets, func(o Poet) bool { return o.Name == p.Name })
		if i < 0 {
			continue
		}
		old := last.Poets[i]
		say := func(state State, format string, args ...any) {
			s.tell(Event{At: m.Status.At, Kind: "poet", Who: p.Name, State: state, Text: fmt.Sprintf(format, args...)})
		}
		for _, r := range slices.Backward(p.Rounds) {
			j := slices.IndexFunc(old.Rounds, func(o Round) bool { return o.ID == r.ID })
			if j < 0 {
				if len(old.Rounds) > 0 {
					say(OK, "round %s: %s", r.ID, r.State)
				}
				continue
			}
			was := old.Rounds[j]
			if was.State != r.State {
				say(OK, "round %s: %s, %s", r.ID, r.State, count(int(r.Members), "member"))
			}
			if r.Proof != nil && r.Proof.State != "pending" && (was.Proof == nil || was.Proof.State != r.Proof.State) {
				state := OK
				if r.Proof.State == "expired" {
					state = Bad
				}
				say(state, "the proof of round %s is %s", r.ID, r.Proof.State)
			}
		}
		s.gateways(old, p, say)
	}
}

func (s *story) gateways(old, p Poet, say func(State, string, ...any)) {
	if len(old.Gateways) == 0 || len(p.Gateways) == 0 {
		return
	}
	for _, g := range p.Gateways {
		i := slices.IndexFunc(old.Gateways, func(o Gateway) bool { return o.Addr == g.Addr })
		switch {
		case i < 0:
			say(OK, "gateway %s: new, %s", g.Addr, g.State)
		case old.Gateways[i].State == g.State:
		case g.State == "dead":
			say(Bad, "gateway %s: dead", g.Addr)
		default:
			say(OK, "gateway %s: %s", g.Addr, g.State)
		}
	}
	for _, o := range old.Gateways {
		if !slices.ContainsFunc(p.Gateways, func(g Gateway) bool { return g.Addr == o.Addr }) {
			say(Waits, "gateway %s: gone", o.Addr)
		}
	}
}
