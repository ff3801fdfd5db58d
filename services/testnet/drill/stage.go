package drill

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tweedle/base/telemetry"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/preset"
	"tweedle/services/testnet"
	"tweedle/values/types"
)

// Stage is where a drill plays: the network and the watch as they are now, and what
// the script remembers. Steps and checks run one at a time or side by side; what they
// remember is in memory.
type Stage struct {
	dir    string
	flags  Flags
	tl     *Timeline
	alerts *alerts
	web    *http.Client

	disks  []string // what is mounted; written before anything runs
	noDisk string   // why the PoETs have no disk of their own; likewise

	mu      sync.Mutex // guards all following fields
	memory  memory
	status  *testnet.Status
	layers  []testnet.Layer // told so far
	crashes []testnet.Crash
	pids    map[string][]int // that each process had, the newest last
	ended   map[string]bool  // "PoET/round" of rounds that are over, with their proof
	members map[string]bool  // likewise of those that were executed with members
	atxs    map[uint32]int   // by epoch: that count in it, when it began
	net     preset.Network
	params  preset.Params
}

// memory is what a script remembers from one step to another.
type memory struct {
	round   uint32                        // the PoET round at whose end the fault comes
	before  map[string]testnet.NodeStatus // the nodes before the fault
	faultAt time.Time
	setAt   time.Time       // when the operator set the gateways; zero: not yet
	bytes   int64           // of the PoETs' folders
	layer   uint32          // the clock's
	joined  time.Time       // when parts heard each other again
	gaps    []time.Duration // between the deaths of a process and its next start
}

func (s *Stage) recall() memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.memory
}

func (s *Stage) remember(change func(*memory)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.memory)
}

func newStage(dir string, f Flags, tl *Timeline) *Stage {
	return &Stage{dir: dir, flags: f, tl: tl, alerts: &alerts{tell: tl.alert}, web: &http.Client{Timeout: askTimeout},
		pids: map[string][]int{}, ended: map[string]bool{}, members: map[string]bool{}, atxs: map[uint32]int{}, status: &testnet.Status{}}
}

// Bounds of one question to a process, and of its answer in bytes.
const (
	askTimeout = 2 * time.Second
	maxAnswer  = 16 << 20
)

// Event is the testnet's View.
func (s *Stage) Event(at time.Time, e testnet.Event) {
	if _, ok := e.(testnet.Summary); ok {
		return // the testnet's own verdict is about a network that nobody breaks
	}
	s.mu.Lock()
	switch e := e.(type) {
	case testnet.Layer:
		s.layers = append(s.layers, e)
	case testnet.Crash:
		s.crashes = append(s.crashes, e)
	case testnet.Clock:
		s.atxs[e.Epoch] = e.ATXs
	case testnet.PoetRound:
		if e.State == "finished" {
			s.ended[e.Name+"/"+e.Round] = true
		}
		if e.State == "executing" && e.Members > 0 {
			s.members[e.Name+"/"+e.Round] = true
		}
	case testnet.Process:
		if known := s.pids[e.Name]; e.State == testnet.Running && (len(known) == 0 || known[len(known)-1] != e.PID) {
			s.pids[e.Name] = append(known, e.PID)
		}
	}
	s.mu.Unlock()
	s.tl.event(at, e)
}

// Status is the testnet's View.
func (s *Stage) Status(now *testnet.Status) {
	s.mu.Lock()
	s.status = now
	s.mu.Unlock()
	s.tl.sample(now)
}

// now returns the newest status.
func (s *Stage) now() *testnet.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// finished returns how many PoETs have the proof of a round.
func (s *Stage) finished(round uint32) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.ended {
		if strings.HasSuffix(name, fmt.Sprintf("/%d", round)) {
			n++
		}
	}
	return n
}

// runs counts the processes with these names that run, by the newest status.
func (s *Stage) runs(names []string) (n int) {
	now := s.now()
	for _, m := range now.Nodes {
		if slices.Contains(names, m.Name) && m.State == testnet.Running {
			n++
		}
	}
	for _, m := range now.Poets {
		if slices.Contains(names, m.Name) && m.State == testnet.Running {
			n++
		}
	}
	return n
}

// starts returns how often a process was started.
func (s *Stage) starts(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pids[name])
}

// nodes returns the nodes with these names.
func (s *Stage) nodes(names []string) (out []testnet.NodeStatus) {
	for _, n := range s.now().Nodes {
		if slices.Contains(names, n.Name) {
			out = append(out, n)
		}
	}
	return out
}

// clock returns the network's layers and PoET rounds. It waits for the network file.
func (s *Stage) clock() (types.Schedule, types.PoetSchedule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.net.Name == "" {
		n, err := preset.Load(filepath.Join(s.dir, preset.File))
		if err != nil {
			return types.Schedule{}, types.PoetSchedule{}
		}
		p, err := n.Params()
		if err != nil {
			return types.Schedule{}, types.PoetSchedule{}
		}
		s.net, s.params = n, p
	}
	return s.net.Schedule(s.params), s.net.PoetSchedule(s.params)
}

// genesis returns the network's id, by its file.
func (s *Stage) genesis() string {
	s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.net.ID().String()
}

// nextRoundEnd is a moment a little before or after the end of the next PoET round that
// all PoETs work on with members. The round is remembered.
func nextRoundEnd(offset time.Duration) func(context.Context, *Stage) (time.Time, error) {
	return func(ctx context.Context, s *Stage) (at time.Time, err error) {
		err = until(ctx, roundBound, "a PoET round with members", func() bool {
			round, ok := s.executing()
			_, poet := s.clock()
			at = poet.End(round).Add(offset)
			if ok = ok && time.Until(at) > minLead; ok {
				s.remember(func(m *memory) { m.round = round })
			}
			return ok
		})
		return at, err
	}
}

const (
	minLead    = time.Second     // is left before a moment that is chosen
	roundBound = 2 * time.Minute // for a round with members, on a busy machine
)

// executing returns the newest round that all PoETs work on, or worked on, with members.
func (s *Stage) executing() (round uint32, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := map[string]int{}
	for key := range s.members {
		_, r, _ := strings.Cut(key, "/")
		count[r]++
	}
	for r, n := range count {
		if v, err := strconv.ParseUint(r, 10, 32); err == nil && n == len(s.status.Poets) && uint32(v) >= round {
			round, ok = uint32(v), true
		}
	}
	return round, ok
}

// newest returns the newest layer with a block that some node applied, by what was told.
func (s *Stage) newest() (l testnet.Layer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.layers {
		if o.Block != "" && o.Layer > l.Layer {
			l = o
		}
	}
	return l
}

// behind returns how many layers the clock is ahead of the newest applied one: of what was told before, while a
// machine that stands still lets nobody answer.
func (s *Stage) behind() int {
	now, applied := s.now(), s.newest().Layer
	for _, n := range now.Nodes {
		if n.AppliedLayer != nil {
			applied = max(applied, *n.AppliedLayer)
		}
	}
	return int(now.Layer) - int(applied)
}

// atxsOf returns how many ATXs counted when an epoch began; known: it has begun.
func (s *Stage) atxsOf(e uint32) (n int, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, known = s.atxs[e]
	return n, known
}

// get asks a process by HTTP.
func (s *Stage) get(url string, read func(io.Reader) error) error {
	return testnet.Get(context.Background(), s.web, url, maxAnswer, read) // web has a deadline
}

// ask returns a node's own account of itself.
func (s *Stage) ask(n testnet.NodeStatus) (st telemetry.NodeStatus, err error) {
	err = s.get("http://"+n.Metrics+"/status", func(r io.Reader) error { return json.NewDecoder(r).Decode(&st) })
	return st, err
}

// metric returns one series of a process: name and labels as they are written there.
func (s *Stage) metric(address, series string) (v float64, err error) {
	found := false
	err = s.get("http://"+address+"/metrics", func(r io.Reader) error {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if rest, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
				found = true
				v, err = strconv.ParseFloat(strings.TrimSpace(rest), 64)
				return err
			}
		}
		return lines.Err()
	})
	if err == nil && !found {
		err = fmt.Errorf("%s has no %s", address, series)
	}
	return v, err
}

// proofs returns what a PoET knows of the deliveries of its proofs, oldest first.
func (s *Stage) proofs(ctx context.Context, p testnet.PoetStatus) (out []*poetadminpb.Delivery, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err = testnet.Admin(s.dir, p, func(admin poetadminpb.AdminServiceClient) error {
		r, err := admin.ListProofs(ctx, &poetadminpb.ListProofsRequest{})
		out = r.GetProofs()
		return err
	})
	return out, err
}

// setGateways does what `tweedle poet gateways set` does, at every PoET.
func (s *Stage) setGateways(ctx context.Context, nodes []string) error {
	var addrs []string
	for _, n := range s.nodes(nodes) {
		addrs = append(addrs, n.GRPC)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s.remember(func(m *memory) { m.setAt = time.Now() })
	for _, p := range s.now().Poets {
		err := testnet.Admin(s.dir, p, func(admin poetadminpb.AdminServiceClient) error {
			_, err := admin.SetGateways(ctx, &poetadminpb.SetGatewaysRequest{Addresses: addrs})
			return err
		})
		if err != nil {
			return fmt.Errorf("the gateways of %s: %w", p.Name, err)
		}
	}
	s.tl.note(fmt.Sprintf("the operator sets %d gateways at each PoET", len(addrs)))
	return nil
}

// do sends a command to the testnet for each name, side by side.
func (s *Stage) do(ctx context.Context, c testnet.Command, names []string) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, name := range names {
		g.Go(func() error {
			_, err := testnet.Do(ctx, s.dir, c, name)
			return err
		})
	}
	return g.Wait()
}

// until waits until something holds; the error says that it did not in time.
func until(ctx context.Context, atMost time.Duration, what string, holds func() bool) error {
	for end := time.Now().Add(atMost); !holds(); {
		if !sleep(ctx, lookEvery) {
			return interrupted(ctx)
		}
		if time.Now().After(end) {
			return errors.New(what + fmt.Sprintf(": not within %v", atMost))
		}
	}
	return nil
}

// slotsAlive counts the live gateways of a PoET that have a slot.
func slotsAlive(p testnet.PoetStatus) (n int) {
	for _, g := range p.Gateways {
		if g.State == "live" {
			n++
		}
	}
	return n
}
