package smeshing

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tweedle/base/clock"
	"tweedle/base/telemetry"
	"tweedle/base/words"
	"tweedle/values/types"
)

// Smeshers are the identities of a node, side by side. Make them with NewSmeshers, then Run them.
type Smeshers struct {
	poet     types.PoetSchedule
	schedule types.Schedule
	pause    time.Duration // between two looks at a space that cannot be used
	all      []*member
}

// member is one of them.
type member struct {
	Identity
	cfg     Config
	label   string                  // in logs and metrics; empty: there is no other
	smesher atomic.Pointer[Smesher] // nil while it cannot smesh
	trouble atomic.Pointer[string]  // why
	nag     nag
}

// NewSmeshers makes a smesher of each identity; cfg has what they share. What is wrong with
// the only one, with all of them, or with cfg, is an error. Of several, one that cannot smesh is
// named, and its space tried again while the others go on. None is no error.
func NewSmeshers(cfg Config, ids []Identity) (*Smeshers, error) {
	params, err := cfg.Network.Params()
	if err != nil {
		return nil, err
	}
	s := &Smeshers{poet: cfg.Network.PoetSchedule(params), schedule: cfg.Network.Schedule(params), pause: params.LayerDuration}
	shared := &turn{stuck: callTimeout(params)}
	var first error
	works := len(ids) == 0
	for i, id := range ids {
		m := &member{Identity: id, cfg: cfg}
		m.cfg.Dir, m.cfg.Evidence, m.cfg.Signer, m.cfg.turn = filepath.Join(id.Dir, PostFolder), filepath.Join(id.Dir, evidenceFolder), id.Signer, shared
		if i > 0 {
			m.cfg.NumUnits = 0 // what its space has
		}
		if len(ids) > 1 {
			m.label = id.Dir
			if id.Signer != nil {
				m.label = id.Signer.NodeID().Short()
			}
			m.cfg.Log = cfg.Log.With("identity", m.label)
		}
		err := m.open()
		if err != nil && id.Signer != nil && !errors.As(err, new(*spaceError)) {
			return nil, err
		}
		if first == nil {
			first = err
		}
		works = works || err == nil
		s.all = append(s.all, m)
	}
	if !works {
		return nil, first
	}
	return s, nil
}

// open makes the smesher if that can be.
func (m *member) open() (err error) {
	if err = m.Err; err == nil {
		var s *Smesher
		if s, err = New(m.cfg); err == nil {
			m.smesher.Store(s)
			return nil
		}
	}
	text := words.Of(err)
	m.trouble.Store(&text)
	if m.nag.due(text) {
		m.cfg.Log.Error("an identity cannot smesh, the others go on", "folder", m.Dir, "err", err)
	}
	return err
}

// Run smeshes with all of them until ctx ends.
func (s *Smeshers) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, m := range s.all {
		group.Go(func() error { return m.run(ctx, s.pause) })
	}
	return group.Wait()
}

// run waits for the space, if it cannot be used, and smeshes. A key is read at start only.
func (m *member) run(ctx context.Context, pause time.Duration) error {
	for m.smesher.Load() == nil {
		if !clock.Sleep(ctx, pause) {
			return nil
		}
		if m.Signer != nil {
			_ = m.open() // said
		}
	}
	return m.smesher.Load().Run(ctx)
}

// Stored tells all of a valid PoET proof that was stored. It does not wait.
func (s *Smeshers) Stored(p *types.PoetProofMessage) {
	for _, m := range s.all {
		if smesher := m.smesher.Load(); smesher != nil {
			smesher.Stored(p)
		}
	}
}

// step tells what a member is doing.
func (m *member) step() telemetry.SmesherStep {
	if s := m.smesher.Load(); s != nil {
		return s.Status()
	}
	return telemetry.SmesherStep{Step: "off", Error: *m.trouble.Load()}
}

// published returns the publish epoch of a member's newest ATX, nil if there is none.
func (m *member) published() *uint32 {
	if m.Signer == nil {
		return nil
	}
	last, err := m.cfg.Store.LastATX(m.Signer.NodeID())
	if err != nil {
		return nil
	}
	epoch := uint32(last.PublishEpoch)
	return &epoch
}

func (m *member) elsewhere() bool { return m.Signer != nil && m.cfg.Node.Elsewhere(m.Signer.NodeID()) }

func (m *member) id() (id string) {
	if m.Signer != nil {
		id = m.Signer.NodeID().String()
	}
	return id
}

// Status tells where the identities are: the node's own and the others.
func (s *Smeshers) Status() (own telemetry.IdentityStatus, others []telemetry.IdentityStatus) {
	own.Smesher.Step = "off"
	for i, m := range s.all {
		st := telemetry.IdentityStatus{NodeID: m.id(), Dir: m.Dir, Elsewhere: m.elsewhere(), ATXEpoch: m.published(), Smesher: m.step()}
		if i == 0 {
			own = st
		} else {
			others = append(others, st)
		}
	}
	return own, others
}

// Screen tells all that the owner of the spaces asks, at a time of the node's clock; false if
// there is none. It may be called from any goroutine; it reads the store.
func (s *Smeshers) Screen(now time.Time) (own telemetry.Smesher, ok bool, err error) {
	for i, m := range s.all {
		t := telemetry.Smesher{NodeID: m.id(), Step: m.step(), LastATX: m.published(), Poets: []telemetry.PoetStep{}, Slots: []uint32{}}
		if smesher := m.smesher.Load(); smesher != nil {
			if t, err = smesher.Screen(now); err != nil {
				return own, true, err
			}
		}
		if t.Elsewhere = m.elsewhere(); len(s.all) > 1 {
			t.Dir = m.Dir
		}
		if i == 0 {
			own = t
		} else {
			own.Others = append(own.Others, t)
		}
	}
	return own, len(s.all) > 0, nil
}

// Labels returns the labels of an identity's metrics: none if it is the only one.
func (s *Smeshers) Labels(id types.NodeID) prometheus.Labels {
	for _, m := range s.all {
		if m.Signer != nil && m.Signer.NodeID() == id {
			return m.labels()
		}
	}
	return nil
}

func (m *member) labels() prometheus.Labels {
	if m.label == "" {
		return nil
	}
	return prometheus.Labels{"identity": m.label}
}

// Register shows the identities in numbers; now is the node's clock.
func (s *Smeshers) Register(registry *telemetry.Registry, now func() time.Time) {
	gauge := func(labels prometheus.Labels, name, help string, value func() float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tweedle_node_" + name, Help: help, ConstLabels: labels}, value))
	}
	yes := map[bool]float64{true: 1}
	for _, m := range s.all {
		gauge(m.labels(), "identity_elsewhere", "1 if our own identity runs somewhere else too.", func() float64 { return yes[m.elsewhere()] })
		gauge(m.labels(), "smesher_atx_epoch", "Publish epoch of the own smesher's newest ATX; -1: there is none.", func() float64 {
			if epoch := m.published(); epoch != nil {
				return float64(*epoch)
			}
			return -1
		})
		gauge(m.labels(), "smesher_trouble", "1 while the own smesher's step fails.", func() float64 { return yes[m.step().Error != ""] })
	}
	if len(s.all) == 0 {
		return
	}
	deadline := func(name, help string, of func(Deadlines) time.Time) {
		gauge(nil, name+"_timestamp_seconds", help, func() float64 { return float64(of(deadlinesOf(s.poet, s.schedule, now())).UnixMilli()) / 1000 })
	}
	deadline("registration_closes", "Until when PoETs take registrations for the open round.", func(d Deadlines) time.Time { return d.Registration })
	deadline("poet_proof_due", "When the round that is executed, or the next one, ends: its proof is due then.", func(d Deadlines) time.Time { return d.Proof })
	deadline("publish_by", "Until when an ATX of this epoch must be heard to count in the next one.", func(d Deadlines) time.Time { return d.Publish })
}
