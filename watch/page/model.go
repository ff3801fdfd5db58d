package page

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// State says how something is. On the page each has a shape and a word, too.
type State string

// The states, from the best to the worst.
const (
	OK      State = "ok"
	Waits   State = "wait"    // not yet: before genesis, before the first round
	Unknown State = "unknown" // nobody said
	Warn    State = "warn"
	Bad     State = "bad"
)

func (s State) rank() int { return slices.Index([]State{OK, Waits, Unknown, Warn, Bad}, s) }

func worse(a, b State) State {
	if b.rank() > a.rank() {
		return b
	}
	return a
}

// Model is everything that is shown at one moment. It is never changed.
type Model struct {
	Status   Status
	Chain    []Link
	Nodes    []Node // by name
	Layers   []Column
	Epochs   []Epoch // the oldest first
	Poets    []Poet
	Alerts   []Firing // the worst first
	Programs []Program
}

// Status is the line on top.
type Status struct {
	Network      string    `json:"network"`
	At           time.Time `json:"at"`    // by the watch's clock
	Every        float64   `json:"every"` // seconds to the next
	Phase        string    `json:"phase"` // empty, before, early (no block yet), running
	State        State     `json:"state"`
	Verdict      string    `json:"verdict"`
	Why          string    `json:"why"` // the first broken link, in words
	Genesis      time.Time `json:"genesis,omitzero"`
	LayerSeconds float64   `json:"layer_seconds"`
	EpochSeconds float64   `json:"epoch_seconds"`
	Layer        uint32    `json:"layer"`
	Epoch        uint32    `json:"epoch"`
	FirstLayer   uint32    `json:"first_layer"`
	Applied      uint32    `json:"applied"` // the newest that a node applied
	Lag          uint32    `json:"lag"`     // layers between it and the clock
	Roots        int       `json:"roots"`   // different states of one layer
	Nodes        int       `json:"nodes"`
	Answering    int       `json:"answering"`
	Pages        int       `json:"pages"` // alerts that people are told of
	Warnings     int       `json:"warnings"`
	Silenced     int       `json:"silenced"`
	WatchOK      bool      `json:"watch_ok"` // the rule that always fires does
}

// Node is a row of the table.
type Node struct {
	Name    string    `json:"name"`
	State   State     `json:"state"`
	Text    string    `json:"text"` // why it is so
	Applied uint32    `json:"applied"`
	Root    string    `json:"root"`
	Synced  bool      `json:"synced"`
	Peers   int       `json:"peers"`
	ATX     *uint32   `json:"atx"`            // publish epoch of its newest
	Seen    time.Time `json:"seen,omitzero"`  // last answer, of one that does not answer
	Memory  uint64    `json:"memory"`         // bytes, in MiB steps
	CPU     *float64  `json:"cpu"`            // processors in use, in steps
	Disk    *uint64   `json:"disk"`           // bytes free for its data, in steps
	Full    float64   `json:"full,omitempty"` // seconds until there are none, if it goes on so
	Started int64     `json:"started"`        // seconds since 1970
	Starts  *int      `json:"starts"`         // again, within a day
	Version string    `json:"version"`        // of the program
	Step    Step      `json:"step"`           // of its smesher
	ID      string    `json:"id,omitempty"`   // of its smesher, in short
	Addr    string    `json:"addr,omitempty"` // metrics listener
	Crash   *Crash    `json:"crash,omitempty"`
}

// Crash is the last death of a program, and how many were told since the watch started.
type Crash struct {
	ID     string    `json:"id"` // has a report
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
	Text   string    `json:"text"`
	Of     int       `json:"of"`
}

// Step is what a smesher does.
type Step struct {
	Name     string  `json:"name"`
	Progress float64 `json:"progress,omitempty"`
	Until    string  `json:"until,omitempty"`
	For      string  `json:"for,omitempty"`
	Trouble  string  `json:"trouble,omitempty"`
}

// Epoch is one bar.
type Epoch struct {
	Epoch uint32 `json:"epoch"`
	ATXs  *int   `json:"atxs"` // absent: nobody knows any more
	// Expected is how many the epoch before had, which is who may be expected again; absent: not known.
	Expected *int `json:"expected,omitempty"`
	// ByPoet is by the beginning of the id of the PoET whose proof they refer to, of the newest two epochs.
	ByPoet  map[string]int `json:"by_poet,omitempty"`
	Current bool           `json:"current,omitempty"`
	Drop    bool           `json:"drop,omitempty"` // it is over and has less than 70 % of the one before, or none
}

// Poet is one PoET.
type Poet struct {
	Name        string    `json:"name"`
	State       State     `json:"state"`
	Text        string    `json:"text"`
	Admin       bool      `json:"admin"` // its admin API can be used from here
	Seen        time.Time `json:"seen,omitzero"`
	Rounds      []Round   `json:"rounds"` // the newest first
	Gateways    []Gateway `json:"gateways"`
	Slots       int       `json:"slots"`
	Live        int       `json:"live"`
	Dead        int       `json:"dead"`
	Candidates  int       `json:"candidates"`
	Undelivered int       `json:"undelivered"`
	Oldest      float64   `json:"oldest"` // seconds that a proof has waited
	Storage     Storage   `json:"storage"`
	Starts      *int      `json:"starts"` // again, within a day
	Crash       *Crash    `json:"crash,omitempty"`
}

// Firing is an alert in the list.
type Firing struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Severity  string            `json:"severity"`
	Program   string            `json:"program"`
	Link      string            `json:"link"` // of the chain
	Since     time.Time         `json:"since"`
	Summary   string            `json:"summary"`
	Detail    string            `json:"detail,omitempty"`
	Labels    map[string]string `json:"labels"`
	Inhibited bool              `json:"inhibited,omitempty"`
	Silence   *Silence          `json:"silence,omitempty"`
	Crash     string            `json:"crash,omitempty"` // has a report
}

// Program is something else that is watched: a machine, a supervisor, a watch.
type Program struct {
	Name  string `json:"name"`
	Job   string `json:"job"`
	State State  `json:"state"`
}

// Limits of what is shown of one thing.
const (
	maxText      = 300  // runes of what a program said
	maxDetail    = 8000 // of a stack
	shownEpochs  = 12
	shownRounds  = 6 // and all whose proof waits, up to
	maxRounds    = 40
	answerLooks  = 3 // without an answer: it does not answer
	answerLeast  = 6 * time.Second
	shortHash    = 8
	warnLag      = 4 // layers that a healthy network never needs
	atxDrop      = 0.7
	memoryStep   = 1 << 20
	diskStep     = 16 << 20 // what changes less is not sent
	cpuStep      = 0.05
	longestFull  = 30 * 24 * 3600 // seconds: a forecast beyond says nothing
	mostStarts   = 1 << 20
	severityNone = "none"
)

// builder is one call of Build.
type builder struct {
	Seen
	series series
	jobs   map[string]string // job by name
	m      Model
}

// Build makes the model of what was seen.
func Build(s Seen) Model {
	b := &builder{Seen: s, series: index(s.Series), jobs: map[string]string{}}
	for _, t := range s.Targets {
		if b.jobs[t.Name] == "" || t.Job == "node" || t.Job == "poet" {
			b.jobs[t.Name] = t.Job
		}
	}
	b.alerts()
	b.clock()
	b.programs()
	b.grid()
	b.epochs()
	b.chain()
	b.verdict()
	return b.m
}

// clock fills in where the network is in time.
func (b *builder) clock() {
	st := &b.m.Status
	st.Network, st.At, st.Every, st.Phase = b.Network, b.At.UTC(), b.Every.Seconds(), "empty"
	times, ok := b.series.times()
	if !ok {
		return
	}
	layer, epoch := times.layer, times.epoch
	st.Genesis, st.LayerSeconds, st.EpochSeconds, st.FirstLayer = times.genesis, layer, epoch, times.first
	if passed := b.At.Sub(st.Genesis).Seconds(); passed < 0 {
		st.Phase = "before"
	} else {
		st.Layer, st.Epoch = uint32(passed/layer), uint32(passed/epoch)
		st.Phase = "running"
		if st.Layer < st.FirstLayer {
			st.Phase = "early"
		}
	}
}

// answers tells whether something that was seen last at a time still answers.
func (b *builder) answers(last time.Time) bool {
	return !last.IsZero() && b.At.Sub(last) <= max(answerLooks*b.Every, answerLeast)
}

func (b *builder) programs() {
	for _, t := range b.Targets {
		switch t.Job {
		case "node":
			b.m.Nodes = append(b.m.Nodes, b.node(t))
		case "poet":
			b.m.Poets = append(b.m.Poets, b.poet(t))
		default:
			p := Program{Name: t.Name, Job: t.Job, State: Unknown}
			if up, ok := b.series.of("up", t.Job, t.Name); ok {
				p.State = Bad
				if up == 1 {
					p.State = OK
				}
			}
			b.m.Programs = append(b.m.Programs, p)
		}
	}
	slices.SortFunc(b.m.Nodes, func(x, y Node) int { return byNumber(x.Name, y.Name) })
	slices.SortFunc(b.m.Poets, func(x, y Poet) int { return byNumber(x.Name, y.Name) })
	slices.SortFunc(b.m.Programs, func(x, y Program) int { return cmp.Or(cmp.Compare(x.Job, y.Job), byNumber(x.Name, y.Name)) })
	st := &b.m.Status
	st.Nodes = len(b.m.Nodes)
	for _, n := range b.m.Nodes {
		if b.answers(b.Nodes[n.Name].At) {
			st.Answering++
			st.Applied = max(st.Applied, n.Applied)
		}
	}
	if st.Layer > st.Applied {
		st.Lag = st.Layer - st.Applied
	}
}

// byNumber puts node-2 before node-10.
func byNumber(a, b string) int {
	x, y := strings.TrimRight(a, "0123456789"), strings.TrimRight(b, "0123456789")
	if x != y {
		return cmp.Compare(x, y)
	}
	i, _ := strconv.ParseUint(a[len(x):], 10, 64) // no digits are 0
	j, _ := strconv.ParseUint(b[len(y):], 10, 64)
	return cmp.Or(cmp.Compare(i, j), cmp.Compare(a, b))
}

func (b *builder) node(t Target) Node {
	seen := b.Nodes[t.Name]
	s := seen.Status
	n := Node{
		Name: t.Name, Applied: s.AppliedLayer, Root: short(s.StateRoot), Synced: s.Synced, Peers: s.Peers, ATX: s.ATXEpoch,
		Version: clip(s.Version, maxText), ID: short(s.NodeID), Addr: t.Address,
		Step: Step{clip(s.Smesher.Step, maxText), s.Smesher.Progress, clip(s.Smesher.Until, maxText), clip(s.Smesher.For, maxText), clip(s.Smesher.Error, maxText)},
	}
	if v, ok := b.series.of("process_resident_memory_bytes", t.Job, t.Name); ok {
		n.Memory = uint64(v) / memoryStep * memoryStep
	}
	if v, ok := b.series.of("process_start_time_seconds", t.Job, t.Name); ok {
		n.Started = int64(v)
	}
	if v, ok := b.series.of("tweedle_node_disk_free_bytes", t.Job, t.Name); ok && v >= 0 && v < math.MaxInt64 {
		free := uint64(v) / diskStep * diskStep
		n.Disk = &free
	}
	if v, ok := b.series.of(seriesFull, t.Job, t.Name); ok && v >= 0 && v < longestFull {
		n.Full = math.Max(600, math.Round(v/600)*600)
	}
	if v, ok := b.series.of(seriesCPU, t.Job, t.Name); ok && v >= 0 && v < mostStarts {
		cpu := math.Round(v/cpuStep) / (1 / cpuStep)
		n.CPU = &cpu
	}
	n.Starts, n.Crash = b.starts(t), b.crash(t.Name)
	n.State, n.Text = b.troubles(t.Name)
	say := func(state State, format string, args ...any) {
		if state.rank() > n.State.rank() || n.Text == "" {
			n.State, n.Text = worse(n.State, state), clip(fmt.Sprintf(format, args...), maxText)
		}
	}
	switch {
	case seen.At.IsZero() && seen.Trouble == "":
		say(Unknown, "was not asked yet")
	case !b.answers(seen.At):
		n.Seen = seen.At
		say(Bad, "does not answer: %s", cmp.Or(seen.Trouble, "no answer in time"))
	case s.Dispute != "":
		say(Bad, "others certified another history: %s", s.Dispute)
	case s.IdentityElsewhere:
		say(Bad, "its key signs on another machine, too")
	case s.ClockAhead != 0:
		say(Warn, "its clock differs from the peers' by %.1f s", s.ClockAhead)
	case !s.Synced && b.m.Status.Phase == "running":
		say(Warn, "not in sync: %s", s.SyncReason)
	case s.Smesher.Error != "":
		say(Warn, "smesher: %s", s.Smesher.Error)
	}
	for _, o := range s.Others {
		if o.Smesher.Error != "" && b.answers(seen.At) {
			say(Warn, "smesher %s: %s", cmp.Or(short(o.NodeID), "whose key cannot be read"), o.Smesher.Error)
		}
	}
	return n
}

// starts is how often a program was started again.
func (b *builder) starts(t Target) *int {
	v, ok := b.series.of(seriesRestarts, t.Job, t.Name)
	if !ok || v < 0 || v > mostStarts {
		return nil
	}
	n := int(v)
	return &n
}

// crash is the last death of a program, nil if none was told.
func (b *builder) crash(name string) (last *Crash) {
	of := 0
	for _, d := range b.Deaths {
		if d.Name != name {
			continue
		}
		if of++; last == nil || !d.At.Before(last.At) {
			last = &Crash{ID: d.ID, At: d.At, Reason: d.Reason, Text: cmp.Or(d.Message, d.Status)}
		}
	}
	if last != nil {
		last.Of = of
	}
	return last
}

// troubles is what alerts say of a program.
func (b *builder) troubles(name string) (State, string) {
	state, text := OK, ""
	for _, a := range b.m.Alerts { // the worst first
		if a.Program == name && a.Severity != "info" {
			if text == "" {
				text = a.Summary
			}
			state = worse(state, a.state())
		}
	}
	return state, text
}

// state is how bad an alert is. One that somebody has silenced is known.
func (f Firing) state() State {
	switch {
	case f.Severity == "page" && f.Silence == nil:
		return Bad
	case f.Severity == "info" || f.Severity == severityNone:
		return OK
	}
	return Warn
}

func (b *builder) poet(t Target) Poet {
	seen := b.Poets[t.Name]
	p := Poet{
		Name: t.Name, Admin: t.Admin != "", Gateways: seen.Gateways, Slots: seen.Slots, Storage: seen.Storage, Rounds: slices.Clone(seen.Rounds),
	}
	slices.SortStableFunc(p.Rounds, func(x, y Round) int { return -byNumber(x.ID, y.ID) })
	kept := 0
	p.Rounds = slices.DeleteFunc(p.Rounds, func(r Round) bool {
		kept++
		waits := r.Proof != nil && r.Proof.State == "pending"
		return kept > shownRounds && !waits || kept > maxRounds
	})
	number := func(metric string, more ...string) float64 {
		v, _ := b.series.of(metric, t.Job, t.Name, more...) // absent: 0
		return v
	}
	p.Undelivered, p.Oldest = int(number("poet_proofs_undelivered")), math.Round(number("poet_proof_undelivered_age_seconds"))
	p.Live, p.Dead, p.Candidates = int(number("poet_gateways", "state", "live")), int(number("poet_gateways", "state", "dead")), int(number("poet_gateways", "state", "candidate"))
	known := b.answers(seen.At)
	if known {
		p.count(seen.Rounds, b.At)
	} else {
		p.Storage = Storage{Free: uint64(number("poet_disk_free_bytes")), Needed: uint64(number("poet_disk_round_bytes")), Fit: uint64(number("poet_disk_rounds_fit"))}
		p.Seen = seen.At
	}
	if p.Undelivered == 0 {
		p.Oldest = 0
	}
	p.Starts, p.Crash = b.starts(t), b.crash(t.Name)
	p.State, p.Text = b.troubles(t.Name)
	up, ok := b.series.of("up", t.Job, t.Name)
	switch {
	case p.Text != "":
	case ok && up == 0 || p.Admin && !known && seen.Trouble != "":
		p.State, p.Text = Bad, clip("does not answer: "+cmp.Or(seen.Trouble, "its metrics are not there"), maxText)
	case !ok && !known:
		p.State, p.Text = Unknown, "was not asked yet"
	case p.Storage.Trouble != "":
		p.State, p.Text = Warn, clip(p.Storage.Trouble, maxText)
	}
	return p
}

// count counts what the PoET itself told.
func (p *Poet) count(rounds []Round, at time.Time) {
	p.Live, p.Dead, p.Candidates, p.Undelivered = 0, 0, 0, 0
	for _, g := range p.Gateways {
		switch g.State {
		case "live":
			p.Live++
		case "dead":
			p.Dead++
		case "candidate":
			p.Candidates++
		}
	}
	for _, r := range rounds {
		if r.Proof != nil && r.Proof.State == "pending" {
			p.Undelivered++
			p.Oldest = max(p.Oldest, math.Round(at.Sub(r.Proof.Since).Seconds()))
		}
	}
}

// alerts lists what fires, the worst first.
func (b *builder) alerts() {
	st := &b.m.Status
	for _, a := range b.Alerts {
		severity := a.Labels["severity"]
		if severity == severityNone {
			st.WatchOK = st.WatchOK || a.Name == "Watchdog"
			continue
		}
		f := Firing{
			ID: alertID(a), Name: a.Name, Severity: severity, Program: a.Labels["name"], Link: b.link(a), Since: a.Since.UTC().Truncate(time.Second),
			Summary: clip(a.Summary, maxText), Detail: clip(a.Detail, maxDetail), Labels: a.Labels, Inhibited: a.Inhibited, Silence: a.Silence,
		}
		if a.Death != nil {
			f.Crash = a.Death.ID
		}
		switch {
		case f.Silence != nil:
			st.Silenced++
		case f.Inhibited || severity == "info":
		case severity == "page":
			st.Pages++
		default:
			st.Warnings++
		}
		b.m.Alerts = append(b.m.Alerts, f)
	}
	place := func(f Firing) int {
		quiet := 0
		if f.Silence != nil || f.Inhibited {
			quiet = 10
		}
		return quiet + slices.Index([]string{"page", "warn", "info"}, f.Severity)
	}
	slices.SortFunc(b.m.Alerts, func(x, y Firing) int {
		return cmp.Or(cmp.Compare(place(x), place(y)), x.Since.Compare(y.Since), cmp.Compare(x.Name, y.Name), byNumber(x.Program, y.Program), cmp.Compare(x.ID, y.ID))
	})
}

// alertID tells alerts apart.
func alertID(a Alert) string {
	h := fnv.New64a()
	for _, k := range slices.Sorted(maps.Keys(a.Labels)) {
		fmt.Fprintf(h, "%s\x00%s\x00", k, a.Labels[k])
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// epochs counts ATXs.
func (b *builder) epochs() {
	st := b.m.Status
	if st.Phase != "running" && st.Phase != "early" {
		return
	}
	known := maps.Clone(b.ATXs)
	if known == nil {
		known = map[uint32]int{}
	}
	if v, ok := b.series.most("tweedle_node_atxs_published"); ok {
		known[st.Epoch] = int(v)
	}
	if v, ok := b.series.most("tweedle_node_atxs_published_before"); ok && st.Epoch > 0 {
		known[st.Epoch-1] = int(v)
	}
	first := max(int(st.Epoch)-shownEpochs+1, 0)
	for e := uint32(first); e <= st.Epoch; e++ {
		one := Epoch{Epoch: e, Current: e == st.Epoch}
		if n, ok := known[e]; ok {
			one.ATXs = &n
			before, had := known[e-1]
			if had && e > 0 {
				one.Expected = &before
			}
			one.Drop = e > 0 && !one.Current && (had && float64(n) < atxDrop*float64(before) || n == 0 && e+1 >= st.firstEpoch())
		}
		switch {
		case one.Current:
			one.ByPoet = b.series.mostBy("tweedle_node_poet_atxs", "poet", "epoch", "this")
		case e+1 == st.Epoch:
			one.ByPoet = b.series.mostBy("tweedle_node_poet_atxs", "poet", "epoch", "before")
		}
		b.m.Epochs = append(b.m.Epochs, one)
	}
}

// firstEpoch is the first that can have blocks: the one before it must have ATXs.
func (st Status) firstEpoch() uint32 {
	return uint32(float64(st.FirstLayer) * st.LayerSeconds / st.EpochSeconds)
}

func short(hash string) string { return hash[:min(len(hash), shortHash)] }

// clip bounds what a program said, in runes.
func clip(s string, most int) string {
	s = strings.ToValidUTF8(s, "?")
	n := 0
	for i := range s {
		if n++; n > most {
			return s[:i] + "…"
		}
	}
	return s
}
