package testnet

import (
	"context"
	"fmt"
	"slices"
	"time"

	"tweedle/base/telemetry"
)

// Status is a testnet at one moment. What could not be asked is null.
type Status struct {
	Network string    `json:"network"`
	Running bool      `json:"running"` // whether an `up` is there
	Genesis time.Time `json:"genesis"`
	Layer   uint32    `json:"layer"` // by the clock; 0 before genesis
	Epoch   uint32    `json:"epoch"`

	Nodes []NodeStatus `json:"nodes"`
	Poets []PoetStatus `json:"poets"`

	Page   *string `json:"page"`   // URL that shows all of this, of the watch; null: there is none
	Alerts *int    `json:"alerts"` // of severity page or warn, that fire; null: nobody watches
	Watch  *string `json:"watch"`  // URL of the watch that runs

	layerEnds time.Time // when the next layer begins
	Started   bool      `json:"started"` // whether genesis has passed
}

// NodeStatus is one node.
type NodeStatus struct {
	Name         string  `json:"name"`
	PID          int     `json:"pid"` // of the newest run
	State        State   `json:"state"`
	Paused       bool    `json:"paused,omitempty"`
	AppliedLayer *uint32 `json:"applied_layer"`
	StateRoot    *string `json:"state_root"`
	Peers        *int    `json:"peers"`
	ATXEpoch     *uint32 `json:"atx_epoch"` // publish epoch of the newest ATX
	GRPC         string  `json:"grpc"`
	REST         string  `json:"rest"`
	Metrics      string  `json:"metrics"`
	P2P          string  `json:"p2p"` // address for peers, a --bootnode

	Smesher *telemetry.SmesherStep `json:"smesher"`
	Error   string                 `json:"error,omitempty"` // why it did not answer
}

// PoetStatus is one PoET server.
type PoetStatus struct {
	Name        string    `json:"name"`
	PID         int       `json:"pid"`
	State       State     `json:"state"`
	Paused      bool      `json:"paused,omitempty"`
	REST        string    `json:"rest"`
	GRPC        string    `json:"grpc"`
	Admin       string    `json:"admin"`
	Metrics     string    `json:"metrics"`
	Round       *uint64   `json:"round"`       // that takes registrations
	Executing   *uint64   `json:"executing"`   // that is being worked on
	Undelivered *int      `json:"undelivered"` // proofs in the outbox
	Gateways    []Gateway `json:"gateways"`
	Error       string    `json:"error,omitempty"`

	rounds []PoetRound // newest states
}

// Gateway is a node that a PoET delivers to.
type Gateway struct {
	Addr  string `json:"addr"`
	State string `json:"state"`
}

// statusTimeout bounds what a status asks of each process.
const statusTimeout = 2 * time.Second

// ReadStatus returns the status of the testnet in dir, running or not, from
// its files and its processes.
func ReadStatus(ctx context.Context, dir string) (*Status, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	p, err := d.loadPlan()
	if err != nil {
		return nil, err
	}
	up := d.isUp()
	var records []Record
	members := p.Members
	if d.hasWatch() {
		members = append(slices.Clone(members), member{Name: watchName, Kind: Watch})
	}
	for _, m := range members {
		var r Record
		if err := d.load(&r, m.Name, recordFile); err != nil {
			r = Record{State: Stopped} // it was never started
		}
		r.Name, r.Kind = m.Name, m.Kind
		if !up && r.State == Running {
			// `up` was killed before it could write; its processes went with it.
			r.State, r.Paused = Stopped, false
		}
		records = append(records, r)
	}
	pr := newProber(d)
	defer pr.close()
	s := newStatus(p, up, time.Now())
	s.fill(records, pr.all(ctx, records, nil))
	return s, nil
}

// newStatus returns the status without its processes.
func newStatus(p *plan, up bool, now time.Time) *Status {
	sched := p.network.schedule()
	layer := sched.LayerAt(now)
	return &Status{
		Network: p.network.Name, Running: up, Genesis: p.network.Genesis,
		Layer: uint32(layer), Epoch: uint32(sched.EpochOf(layer)),
		Started: sched.Started(now), layerEnds: sched.LayerStart(layer + 1),
		Nodes: []NodeStatus{}, Poets: []PoetStatus{},
	}
}

// fill adds the processes: what is recorded, and what they answered.
func (s *Status) fill(records []Record, answers map[string]answer) {
	for _, r := range records {
		a := answers[r.Name]
		failed := trouble(a.err)
		if r.State == Running && r.Paused {
			failed = "it is paused" // and was not asked
		}
		e := r.Endpoints
		if r.Kind == Watch {
			if url := "http://" + e.Metrics; r.State == Running && e.Metrics != "" {
				s.Watch, s.Page = &url, &url
			}
			s.Alerts = a.alerts
			continue
		}
		if r.Kind == Poet {
			s.Poets = append(s.Poets, PoetStatus{
				Name: r.Name, PID: r.PID, State: r.State, Paused: r.Paused,
				REST: e.REST, GRPC: e.GRPC, Admin: e.Admin, Metrics: e.Metrics,
				Round: a.poet.open, Executing: a.poet.executing, Undelivered: a.poet.undelivered,
				Gateways: a.poet.gateways, Error: failed, rounds: a.poet.rounds,
			})
			continue
		}
		n := NodeStatus{
			Name: r.Name, PID: r.PID, State: r.State, Paused: r.Paused,
			GRPC: e.GRPC, REST: e.REST, Metrics: e.Metrics, P2P: e.P2P, Error: failed,
		}
		if st := a.node; st != nil {
			n.AppliedLayer, n.StateRoot, n.Peers = &st.AppliedLayer, &st.StateRoot, &st.Peers
			n.ATXEpoch, n.Smesher = st.ATXEpoch, &st.Smesher
		}
		s.Nodes = append(s.Nodes, n)
	}
}

// running returns the names of the nodes that run and are not paused.
func (s *Status) running() []string {
	var out []string
	for _, n := range s.Nodes {
		if n.State == Running && !n.Paused {
			out = append(out, n.Name)
		}
	}
	return out
}

// clock returns where the network is in time, in a few words.
func (s *Status) clock(now time.Time) string {
	if !s.Started {
		return fmt.Sprintf("genesis in %.0f s", max(0, s.Genesis.Sub(now).Seconds()))
	}
	return fmt.Sprintf("epoch %d, layer %d, next layer in %.1f s", s.Epoch, s.Layer, max(0, s.layerEnds.Sub(now).Seconds()))
}
