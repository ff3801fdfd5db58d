package testnet

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"tweedle/base/telemetry"
)

// Event is something that happened. Its JSON form is one object with "type"
// and "time"; its text is one line for people, or several for a crash.
type Event interface {
	kind() string
	text() string
}

// View is told what happens, one call at a time. It must not block for long:
// the launcher waits for it.
type View interface {
	Event(at time.Time, e Event)
	// Status comes several times a layer, with everything that is known.
	Status(s *Status)
}

type nobody struct{}

func (nobody) Event(time.Time, Event) {}
func (nobody) Status(*Status)         {}

// emitter puts the events of all goroutines in one row.
type emitter struct {
	mu   sync.Mutex
	view View // guarded by mu
}

func newEmitter(v View) *emitter { return &emitter{view: v} }

func (e *emitter) event(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.view.Event(time.Now(), ev)
}

func (e *emitter) status(s *Status) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.view.Status(s)
}

// Describe returns what kind of event it is, as its JSON form says, and its text.
func Describe(e Event) (kind, text string) { return e.kind(), e.text() }

// encode returns the event's JSON form.
func encode(at time.Time, e Event) ([]byte, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	head := fmt.Sprintf(`{"type":%q,"time":%q`, e.kind(), at.UTC().Format(time.RFC3339Nano))
	if len(body) > len("{}") {
		head += ","
	}
	return append([]byte(head), body[1:]...), nil
}

// Times as people read them, and of which zone they are.
func clock(t time.Time) string { return t.UTC().Format("15:04:05Z") }
func date(t time.Time) string  { return t.UTC().Format("2006-01-02 15:04:05Z") }

// count is a number of things in words.
func count[N int | uint64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Started is the first event.
type Started struct {
	Page      *string   `json:"page"` // URL of the watch's page; null: nobody watches
	Dir       string    `json:"dir"`
	Network   string    `json:"network"`
	GenesisID string    `json:"genesis_id"`
	Genesis   time.Time `json:"genesis"`
	Preset    string    `json:"preset"`
	Nodes     int       `json:"nodes"`
	Poets     int       `json:"poets"`
	Gateways  int       `json:"gateways"`
	Resumed   bool      `json:"resumed"` // an ended testnet goes on
}

func (Started) kind() string { return "start" }
func (s Started) text() string {
	how := "starting"
	if s.Resumed {
		how = "continuing"
	}
	when := "genesis was " + date(s.Genesis)
	if left := time.Until(s.Genesis); left > 0 {
		when = fmt.Sprintf("genesis in %.0f s, at %s", left.Seconds(), clock(s.Genesis))
	}
	where := ""
	if s.Page != nil {
		where = "open " + *s.Page + ": "
	}
	return where + fmt.Sprintf("%s network %s (id %.10s) of %s and %s in %s; %s",
		how, s.Network, s.GenesisID, count(s.Nodes, "node"), count(s.Poets, "PoET"), s.Dir, when)
}

// Process tells that a process is up, was paused or resumed, or has ended as
// it was asked to.
type Process struct {
	Name      string              `json:"name"`
	State     State               `json:"state"`
	Paused    bool                `json:"paused"`
	PID       int                 `json:"pid"`
	Exit      string              `json:"exit,omitempty"`
	Endpoints telemetry.Endpoints `json:"endpoints"`
}

func processEvent(r Record) Process {
	return Process{Name: r.Name, State: r.State, Paused: r.Paused, PID: r.PID, Exit: r.Exit, Endpoints: r.Endpoints}
}

func (Process) kind() string { return "process" }
func (p Process) text() string {
	switch {
	case p.Paused:
		return fmt.Sprintf("%-8s paused (pid %d)", p.Name, p.PID)
	case p.State == Running:
		addr := "http://" + p.Endpoints.REST
		switch {
		case p.Name == watchName:
			addr = "alerts at http://" + p.Endpoints.Metrics
		case p.Endpoints.REST == "":
			addr = "no REST API"
		}
		return fmt.Sprintf("%-8s running (pid %d), %s", p.Name, p.PID, addr)
	}
	return fmt.Sprintf("%-8s %s (%s)", p.Name, p.State, p.Exit)
}

// Crash tells that a process ended although nobody asked it to.
type Crash struct {
	Name string   `json:"name"`
	PID  int      `json:"pid"`
	Exit string   `json:"exit"`
	Log  []string `json:"log"` // its last words
	// Supervised: it is started again by itself.
	Supervised bool `json:"supervised"`
}

func (Crash) kind() string { return "crash" }
func (c Crash) text() string {
	var b strings.Builder
	what := fmt.Sprintf("it stays down until `tweedle testnet restart %s`", c.Name)
	if c.Supervised {
		what = "it is started again"
	}
	fmt.Fprintf(&b, "%-8s CRASHED: %s (pid %d); %s. Its last words:", c.Name, c.Exit, c.PID, what)
	for _, line := range c.Log {
		b.WriteString("\n    " + line)
	}
	return b.String()
}

// Note is anything else that a person should know.
type Note struct {
	Name string `json:"name,omitempty"` // of the process that it is about
	Text string `json:"text"`
}

func (Note) kind() string { return "note" }
func (n Note) text() string {
	if n.Name == "" {
		return n.Text
	}
	return fmt.Sprintf("%-8s %s", n.Name, n.Text)
}

// Smesher tells what a node's smesher does now.
type Smesher struct {
	Name string `json:"name"`
	telemetry.SmesherStep
}

func (Smesher) kind() string   { return "smesher" }
func (s Smesher) text() string { return fmt.Sprintf("%-8s %s", s.Name, stepText(s.SmesherStep)) }

// stepText returns a smesher's step in a few words.
func stepText(s telemetry.SmesherStep) string {
	out := s.Step
	if s.Step == stepInitializing {
		out = fmt.Sprintf("initializing PoST %3.0f %%", 100*s.Progress)
	}
	if s.Detail != "" {
		out += ": " + s.Detail
	}
	if t, err := time.Parse(time.RFC3339, s.Until); err == nil {
		out += " until " + clock(t)
	}
	if s.Error != "" {
		out += " (in trouble: " + s.Error + ")"
	}
	return oneLine(out)
}

// oneLine joins the lines of an error.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }

// stepInitializing is the step of telemetry.SmesherStep that has a progress.
const stepInitializing = "initializing"

// Clock tells that an epoch begins; genesis is the beginning of epoch 0.
type Clock struct {
	Epoch uint32 `json:"epoch"`
	Layer uint32 `json:"layer"` // that runs
	ATXs  int    `json:"atxs"`  // smeshers whose newest ATX counts in this epoch
	Nodes int    `json:"nodes"`
	Sent  uint64 `json:"transactions_sent"` // by the load, so far
}

func (Clock) kind() string { return "epoch" }
func (c Clock) text() string {
	if c.Epoch == 0 {
		return "genesis: epoch 0 begins"
	}
	return fmt.Sprintf("epoch %d begins at layer %d: %d of %d smeshers have an ATX for it; %s sent so far",
		c.Epoch, c.Layer, c.ATXs, c.Nodes, count(c.Sent, "transaction"))
}

// Layer tells that a layer was applied.
type Layer struct {
	Layer     uint32 `json:"layer"`
	Epoch     uint32 `json:"epoch"`
	Block     string `json:"block"` // empty: the layer has none
	Txs       int    `json:"txs"`
	Ballots   int    `json:"ballots"`
	StateRoot string `json:"state_root"`
	Agree     int    `json:"agree"` // nodes with this block and root
	Nodes     int    `json:"nodes"` // that run
	Outcomes  int    `json:"outcomes"`
}

func (Layer) kind() string { return "layer" }
func (l Layer) text() string {
	block := "empty           "
	if l.Block != "" {
		block = fmt.Sprintf("block %-10.10s", l.Block)
	}
	out := fmt.Sprintf("layer %-5d %s %4d txs  state %-10.10s  %d/%d agree", l.Layer, block, l.Txs, l.StateRoot, l.Agree, l.Nodes)
	if l.Outcomes > 1 {
		out += fmt.Sprintf("  DIVERGED: %d different outcomes", l.Outcomes)
	}
	return out
}

// PoetRound tells that a PoET's round changed its state.
type PoetRound struct {
	Name    string `json:"name"`
	Round   string `json:"round"`
	State   string `json:"state"`
	Members uint64 `json:"members"`
	Leaves  uint64 `json:"leaves"`
	Error   string `json:"error,omitempty"`
}

func (PoetRound) kind() string { return "poet_round" }
func (r PoetRound) text() string {
	out := fmt.Sprintf("%-8s round %s %s, %s", r.Name, r.Round, r.State, count(r.Members, "member"))
	if r.Leaves > 0 {
		out += fmt.Sprintf(", %d leaves", r.Leaves)
	}
	if r.Error != "" {
		out += ": " + r.Error
	}
	return out
}

// PoetGateways tells that the states of a PoET's gateways changed.
type PoetGateways struct {
	Name     string    `json:"name"`
	Gateways []Gateway `json:"gateways"`
}

func (PoetGateways) kind() string { return "poet_gateways" }
func (g PoetGateways) text() string {
	return fmt.Sprintf("%-8s gateways: %s", g.Name, gatewaysText(g.Gateways))
}

// gatewaysText counts the gateways by their state.
func gatewaysText(gs []Gateway) string {
	if len(gs) == 0 {
		return "none"
	}
	counts := map[string]int{}
	var order []string
	for _, g := range gs {
		if counts[g.State] == 0 {
			order = append(order, g.State)
		}
		counts[g.State]++
	}
	for i, s := range order {
		order[i] = fmt.Sprintf("%d %s", counts[s], s)
		if s == "candidate" {
			order[i] = count(counts[s], s)
		}
	}
	return strings.Join(order, ", ")
}
