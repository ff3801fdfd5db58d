package testnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"tweedle/base/telemetry"
	"tweedle/base/words"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/front"
	"tweedle/values/types"
)

// prober asks the processes how they are. It keeps connections until close.
type prober struct {
	dir  directory
	http *http.Client

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn // by address; guarded by mu
}

// answer is what a process said.
type answer struct {
	err    error
	node   *telemetry.NodeStatus
	layers []telemetry.LayerStatus // from the layer asked for on
	poet   poetAnswer
	alerts *int // of the watch
}

type poetAnswer struct {
	open, executing *uint64
	undelivered     *int
	gateways        []Gateway
	rounds          []PoetRound
}

func newProber(d directory) *prober {
	return &prober{
		dir:   d,
		http:  &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2}},
		conns: make(map[string]*grpc.ClientConn),
	}
}

func (p *prober) close() {
	p.http.CloseIdleConnections()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	clear(p.conns)
}

// all asks the running processes side by side; next says from which layer on a
// node shall tell its layers, nil: none.
func (p *prober) all(ctx context.Context, records []Record, next func(node string) types.Layer) map[string]answer {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var wg sync.WaitGroup
	answers := make([]answer, len(records))
	for i, r := range records {
		if r.State != Running || r.Endpoints.PID != r.PID {
			continue // down, or not listening yet
		}
		if r.Paused {
			continue // it cannot answer
		}
		from := types.Layer(0)
		if next != nil && r.Kind == Node {
			from = next(r.Name)
		}
		wg.Go(func() {
			switch r.Kind {
			case Node:
				answers[i] = p.node(ctx, r.Endpoints, from, next != nil)
			case Poet:
				answers[i] = p.poet(ctx, r)
			case Watch:
				answers[i] = p.alerts(ctx, r.Endpoints)
			}
		})
	}
	wg.Wait()
	out := make(map[string]answer, len(records))
	for i, r := range records {
		out[r.Name] = answers[i]
	}
	return out
}

// trouble says in one line why a process did not answer.
func trouble(err error) string {
	code := status.Code(err)
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.DeadlineExceeded), code == codes.DeadlineExceeded:
		return fmt.Sprintf("it does not answer within %v", statusTimeout)
	case errors.Is(err, syscall.ECONNREFUSED), code == codes.Unavailable:
		return "it does not take connections: see its log"
	case code != codes.Unknown:
		return words.Plain(status.Convert(err).Message())
	}
	return words.Of(err)
}

func (p *prober) node(ctx context.Context, e telemetry.Endpoints, from types.Layer, layers bool) answer {
	var a answer
	var st telemetry.NodeStatus
	if a.err = p.get(ctx, "http://"+e.Metrics+"/status", &st); a.err != nil {
		return a
	}
	a.node = &st
	if layers && uint32(from) <= st.AppliedLayer {
		a.err = p.get(ctx, fmt.Sprintf("http://%s/layers?from=%d", e.Metrics, from), &a.layers)
	}
	return a
}

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 64 << 20

func (p *prober) get(ctx context.Context, url string, v any) error {
	return Get(ctx, p.http, url, maxAnswer, func(r io.Reader) error {
		if err := json.NewDecoder(r).Decode(v); err != nil {
			return fmt.Errorf("%s: %w", url, err)
		}
		return nil
	})
}

// Get asks a process by HTTP, and has at most so many bytes of its answer read.
func Get(ctx context.Context, web *http.Client, url string, atMost int64, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := web.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, res.Status)
	}
	return read(io.LimitReader(res.Body, atMost))
}

// The states of a PoET's round that matter here.
const (
	roundOpen      = "open"
	roundExecuting = "executing"
	roundProving   = "proving"
	roundFinished  = "finished"
)

func (p *prober) poet(ctx context.Context, r Record) answer {
	admin, err := p.admin(r)
	if err != nil {
		return answer{err: err}
	}
	rounds, err := admin.ListRounds(ctx, &poetadminpb.ListRoundsRequest{})
	if err != nil {
		return answer{err: err}
	}
	proofs, err := admin.ListProofs(ctx, &poetadminpb.ListProofsRequest{Undelivered: true})
	if err != nil {
		return answer{err: err}
	}
	gateways, err := admin.ListGateways(ctx, &poetadminpb.ListGatewaysRequest{})
	if err != nil {
		return answer{err: err}
	}
	undelivered := len(proofs.Proofs)
	out := poetAnswer{undelivered: &undelivered, gateways: []Gateway{}}
	for _, g := range gateways.Gateways {
		out.gateways = append(out.gateways, Gateway{Addr: g.Address, State: g.State})
	}
	for _, rd := range rounds.Rounds {
		out.rounds = append(out.rounds, PoetRound{
			Name: r.Name, Round: rd.Id, State: rd.State, Members: rd.Members, Leaves: rd.Leaves, Error: rd.Error,
		})
		id, err := strconv.ParseUint(rd.Id, 10, 64)
		if err != nil {
			return answer{err: fmt.Errorf("%s names a round %.40q", r.Name, rd.Id)}
		}
		switch rd.State {
		case roundOpen:
			out.open = &id
		case roundExecuting, roundProving:
			out.executing = &id
		}
	}
	slices.SortStableFunc(out.rounds, func(a, b PoetRound) int { return roundNumber(a) - roundNumber(b) })
	return answer{poet: out}
}

func roundNumber(r PoetRound) int {
	n, _ := strconv.Atoi(r.Round) //nolint:errcheck // checked above
	return n
}

// admin returns the admin API of a PoET.
func (p *prober) admin(r Record) (poetadminpb.AdminServiceClient, error) {
	conn, err := p.dial(r.Endpoints.Admin, grpc.WithPerRPCCredentials(front.Bearer(p.dir.path(r.Name, front.TokenFile))))
	if err != nil {
		return nil, err
	}
	return poetadminpb.NewAdminServiceClient(conn), nil
}

// dial returns the connection to an address, which is made when it is used.
func (p *prober) dial(addr string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.conns[addr]; c != nil {
		return c, nil
	}
	// A process that was restarted shall be found again at once.
	retry := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second}}
	c, err := grpc.NewClient(addr, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(retry))...)
	if err == nil {
		p.conns[addr] = c
	}
	return c, err
}

// Admin calls the admin API of a PoET that runs in the testnet of a directory.
func Admin(dir string, p PoetStatus, call func(poetadminpb.AdminServiceClient) error) error {
	d, err := openDir(dir)
	if err != nil {
		return err
	}
	pr := newProber(d)
	defer pr.close()
	admin, err := pr.admin(Record{Name: p.Name, Endpoints: telemetry.Endpoints{Admin: p.Admin}})
	if err != nil {
		return err
	}
	return call(admin)
}

// setGateways tells a PoET which nodes it delivers to: the first of the plan.
func (l *launcher) setGateways(ctx context.Context, poet *process) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var addrs []string
	for _, n := range l.of(Node) {
		if grpcAddr := n.record().Endpoints.GRPC; grpcAddr != "" && len(addrs) < l.plan.Gateways {
			addrs = append(addrs, grpcAddr)
		}
	}
	pr := newProber(l.dir.directory)
	defer pr.close()
	admin, err := pr.admin(poet.record())
	if err != nil {
		return err
	}
	if _, err := admin.SetGateways(ctx, &poetadminpb.SetGatewaysRequest{Addresses: addrs}, grpc.WaitForReady(true)); err != nil {
		return fmt.Errorf("cannot set the gateways of %s: %w", poet.Name, err)
	}
	return nil
}
