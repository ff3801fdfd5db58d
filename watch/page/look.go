package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tweedle/base/telemetry"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/front"
)

// Limits of a look at the programs.
const (
	lookers       = 64 // programs that are asked at a time
	askTimeout    = 2 * time.Second
	lookTimeout   = 4 * time.Second // the others are asked first the next time
	maxStatus     = 64 << 10        // bytes of an answer
	maxLayers     = 1 << 20
	askAgain      = 8   // layers that are asked for again: they may have been undone
	maxKnownATXs  = 100 // epochs
	settle        = 2 * time.Second
	actionTimeout = 10 * time.Second
)

// looker asks programs what their metrics do not tell. One goroutine calls look; others
// may call the actions.
type looker struct {
	http           *http.Client
	patient, whole time.Duration // with one program, and with all: askTimeout, lookTimeout

	mu     sync.Mutex // guards the following
	nodes  map[string]NodeSeen
	poets  map[string]PoetSeen
	admins map[string]admin // by name of the PoET
	begin  int              // who is asked first
}

// admin is a connection to a PoET's admin API.
type admin struct {
	target Target
	conn   *grpc.ClientConn
}

func newLooker() *looker {
	return &looker{
		http:    &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1, MaxIdleConns: 1024, IdleConnTimeout: time.Minute}},
		patient: askTimeout, whole: lookTimeout,
		nodes:  map[string]NodeSeen{},
		poets:  map[string]PoetSeen{},
		admins: map[string]admin{},
	}
}

func (l *looker) close() {
	l.http.CloseIdleConnections()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.admins {
		a.conn.Close()
	}
	clear(l.admins)
}

// look asks all targets, side by side, and returns what they said last.
func (l *looker) look(ctx context.Context, targets []Target, from func(NodeSeen) uint32) (map[string]NodeSeen, map[string]PoetSeen) {
	ctx, cancel := context.WithTimeout(ctx, l.whole)
	defer cancel()
	ask := slices.DeleteFunc(slices.Clone(targets), func(t Target) bool { return t.Job != "node" && (t.Job != "poet" || t.Admin == "") })
	if len(ask) > 0 {
		l.begin = (l.begin + lookers) % len(ask)
	}
	work := make(chan Target)
	var group sync.WaitGroup
	for range min(lookers, len(ask)) {
		group.Go(func() {
			for t := range work {
				if t.Job == "node" {
					l.node(ctx, t, from)
				} else {
					l.poet(ctx, t)
				}
			}
		})
	}
	for i := range ask {
		select {
		case work <- ask[(l.begin+i)%len(ask)]:
		case <-ctx.Done():
		}
	}
	close(work)
	group.Wait()
	return l.kept(targets)
}

// kept copies what is known of the targets, and forgets others.
func (l *looker) kept(targets []Target) (map[string]NodeSeen, map[string]PoetSeen) {
	l.mu.Lock()
	defer l.mu.Unlock()
	nodes, poets := map[string]NodeSeen{}, map[string]PoetSeen{}
	for _, t := range targets {
		if n, ok := l.nodes[t.Name]; ok && t.Job == "node" {
			nodes[t.Name] = n
		}
		if p, ok := l.poets[t.Name]; ok && t.Job == "poet" {
			poets[t.Name] = p
		}
	}
	for name, a := range l.admins {
		if !slices.Contains(targets, a.target) {
			a.conn.Close()
			delete(l.admins, name)
		}
	}
	l.nodes, l.poets = nodes, poets
	return maps.Clone(nodes), maps.Clone(poets)
}

// node asks a node. Its layers are a new map each time: older looks keep theirs.
func (l *looker) node(ctx context.Context, t Target, from func(NodeSeen) uint32) {
	ctx, cancel := context.WithTimeout(ctx, l.patient)
	defer cancel()
	l.mu.Lock()
	n := l.nodes[t.Name]
	l.mu.Unlock()
	err := l.get(ctx, "http://"+t.Address+"/status", maxStatus, &n.Status)
	if err == nil {
		newest := uint32(0)
		for have := range n.Layers {
			newest = max(newest, have)
		}
		if n.Status.AppliedLayer < newest { // some were undone
			n.Layers = nil
		}
		first := from(n)
		next := first
		if newest > first+askAgain && n.Layers != nil {
			next = newest - askAgain
		}
		var told []telemetry.LayerStatus
		if n.Status.AppliedLayer >= next {
			err = l.get(ctx, fmt.Sprintf("http://%s/layers?from=%d", t.Address, next), maxLayers, &told)
		}
		layers := map[uint32]telemetry.LayerStatus{}
		for have, s := range n.Layers {
			if have >= first && have < next {
				layers[have] = s
			}
		}
		for _, s := range told[:min(len(told), 2*Window)] {
			if s.Layer >= next {
				layers[s.Layer] = s
			}
		}
		if err == nil {
			n.Layers = layers
		}
	}
	n.Trouble = ""
	if err != nil {
		n.Trouble = reason(err)
	} else {
		n.At = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes[t.Name] = n
}

// get asks for JSON.
func (l *looker) get(ctx context.Context, url string, most int64, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := l.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New("it answered " + res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, most)).Decode(v); err != nil {
		return fmt.Errorf("its answer cannot be read: %w", err)
	}
	return nil
}

// reason is why nobody answered, in few words.
func reason(err error) string {
	switch text := err.Error(); {
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(text, "DeadlineExceeded"):
		return fmt.Sprintf("no answer within %s", askTimeout)
	case strings.Contains(text, "connection refused"):
		return "nobody listens there"
	default:
		if s, ok := status.FromError(err); ok {
			text = s.Message()
		}
		return clip(strings.ReplaceAll(text, "\n", "; "), maxText)
	}
}

// admin returns the admin API of a PoET.
func (l *looker) admin(t Target) (poetadminpb.AdminServiceClient, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.admins[t.Name]
	if a.conn == nil || a.target != t {
		if a.conn != nil {
			a.conn.Close()
		}
		conn, err := front.DialAdmin(t.Admin, t.TokenFile)
		if err != nil {
			delete(l.admins, t.Name)
			return nil, err
		}
		a = admin{t, conn}
		l.admins[t.Name] = a
	}
	return poetadminpb.NewAdminServiceClient(a.conn), nil
}

// poet asks a PoET.
func (l *looker) poet(ctx context.Context, t Target) {
	ctx, cancel := context.WithTimeout(ctx, l.patient)
	defer cancel()
	seen, err := l.askPoet(ctx, t)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		seen = l.poets[t.Name]
		seen.Trouble = reason(err)
	}
	l.poets[t.Name] = seen
}

func (l *looker) askPoet(ctx context.Context, t Target) (p PoetSeen, err error) {
	api, err := l.admin(t)
	if err != nil {
		return p, err
	}
	rounds, err := api.ListRounds(ctx, &poetadminpb.ListRoundsRequest{})
	if err != nil {
		return p, err
	}
	proofs, err := api.ListProofs(ctx, &poetadminpb.ListProofsRequest{})
	if err != nil {
		return p, err
	}
	gateways, err := api.ListGateways(ctx, &poetadminpb.ListGatewaysRequest{})
	if err != nil {
		return p, err
	}
	storage, err := api.GetStorage(ctx, &poetadminpb.GetStorageRequest{})
	if err != nil {
		return p, err
	}
	p = PoetSeen{
		At: time.Now(), Slots: int(gateways.GetSlots()), Gateways: []Gateway{},
		Storage: Storage{storage.GetFreeBytes(), storage.GetNeededBytes(), storage.GetRoundsThatFit(), clip(storage.GetAlert(), maxText)},
	}
	p.Rounds = roundsOf(rounds.GetRounds(), proofs.GetProofs())
	for _, g := range gateways.GetGateways() {
		p.Gateways = append(p.Gateways, Gateway{
			Addr: g.GetAddress(), State: g.GetState(), Source: g.GetSource(), LastSuccess: stamp(g.GetLastSuccess()), Trouble: clip(g.GetLastError(), maxText),
		})
	}
	return p, nil
}

// roundsOf puts rounds and their proofs together. A proof may be older than all rounds
// that the PoET still lists.
func roundsOf(rounds []*poetadminpb.Round, proofs []*poetadminpb.Delivery) []Round {
	out := []Round{}
	for _, r := range rounds {
		out = append(out, Round{
			ID: r.GetId(), State: r.GetState(), Start: stamp(r.GetStart()), End: stamp(r.GetEnd()), Members: r.GetMembers(),
			Leaves: r.GetLeaves(), Expected: r.GetExpected(), Trouble: clip(r.GetError(), maxText),
		})
		if r.GetJournalPaused() && r.GetError() == "" {
			out[len(out)-1].Trouble = "the disk does not take its journal"
		}
	}
	for _, d := range proofs {
		p := &Proof{
			State: d.GetState(), Since: stamp(d.GetAdded()), Delivered: stamp(d.GetDelivered()), KeptBy: len(d.GetKeptBy()),
			Attempts: d.GetAttempts(), Trouble: clip(d.GetLastError(), maxText),
		}
		if i := slices.IndexFunc(out, func(r Round) bool { return r.ID == d.GetRoundId() }); i >= 0 {
			out[i].Proof = p
		} else {
			out = append(out, Round{ID: d.GetRoundId(), State: "finished", Proof: p})
		}
	}
	return out
}

func stamp(t *timestamppb.Timestamp) time.Time {
	if !t.IsValid() { // absent, too
		return time.Time{}
	}
	return t.AsTime().Truncate(time.Second)
}
