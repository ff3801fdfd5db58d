package smeshing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tweedle/edges/api/gen/poetpb"
	"tweedle/edges/preset"
	"tweedle/edges/store"
	"tweedle/proofs/posw"
	"tweedle/protocol/activation"
	"tweedle/values/merkle"
	"tweedle/values/signing"
	"tweedle/values/types"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// poet is a PoET with a real HTTP server and real proofs, whose rounds are those
// of the network. What it does when it is asked for a proof is for the test.
type poet struct {
	t        *testing.T
	schedule types.PoetSchedule
	rate     uint64 // leaves in a round
	delay    time.Duration
	listener *bufconn.Listener
	// proofs, if not nil, answers for the PoET when it is asked for a proof.
	proofs func(w http.ResponseWriter, r *http.Request, honest func())
	info   func(*poetpb.InfoResponse)
	pow    uint32
	silent bool // about our place

	mu      sync.Mutex
	members map[uint32][][32]byte
	made    map[uint32]*types.PoetProofMessage
	asked   int // for proofs
}

func (p *poet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/v1/info":
		info := &poetpb.InfoResponse{
			PhaseShift: durationpb.New(p.schedule.PhaseShift), CycleGap: durationpb.New(p.schedule.CycleGap),
			EpochDuration: durationpb.New(p.schedule.EpochDuration), GenesisTime: timestamppb.New(p.schedule.Genesis),
		}
		if p.info != nil {
			p.info(info)
		}
		p.answer(w, info)
	case r.URL.Path == "/v1/pow_params":
		p.answer(w, &poetpb.PowParamsResponse{PowParams: &poetpb.PowParams{Challenge: []byte("pow"), Difficulty: p.pow}})
	case r.URL.Path == "/v1/submit":
		var req poetpb.SubmitRequest
		b, _ := io.ReadAll(r.Body)
		if err := protojson.Unmarshal(b, &req); err != nil {
			p.t.Errorf("submit: %v", err)
		}
		p.mu.Lock()
		round := p.schedule.Open(time.Now())
		p.members[round] = append(p.members[round], [32]byte(req.Challenge))
		p.mu.Unlock()
		p.answer(w, &poetpb.SubmitResponse{RoundId: fmt.Sprint(round)})
	case len(parts) == 5 && parts[1] == "rounds":
		round, _ := strconv.ParseUint(parts[2], 10, 32)
		members := p.membersOf(uint32(round))
		if p.silent || time.Now().Before(p.schedule.Start(uint32(round))) {
			http.Error(w, "not yet", http.StatusNotFound)
			return
		}
		m := &poetpb.MemberResponse{Members: uint64(len(members)), Root: bytesOf(merkle.Root(members))}
		for _, h := range merkle.Proof(members, 0) {
			m.Path = append(m.Path, bytesOf(h))
		}
		p.answer(w, m)
	case len(parts) == 3 && parts[1] == "proofs":
		p.mu.Lock()
		p.asked++
		p.mu.Unlock()
		round, _ := strconv.ParseUint(parts[2], 10, 32)
		honest := func() { p.serveProof(w, uint32(round)) }
		if p.proofs != nil {
			p.proofs(w, r, honest)
		} else {
			honest()
		}
	default:
		http.NotFound(w, r)
	}
}

func (p *poet) serveProof(w http.ResponseWriter, round uint32) {
	if time.Now().Before(p.schedule.End(round).Add(p.delay)) {
		http.Error(w, "not yet", http.StatusNotFound)
		return
	}
	p.answer(w, proofResponse(p.proof(round, p.rate), p.membersOf(round)))
}

// membersOf returns who registered for a round so far.
func (p *poet) membersOf(round uint32) [][32]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.members[round])
}

// wasAsked reports whether somebody asked for a proof.
func (p *poet) wasAsked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked > 0
}

// proof does a round's work, or as much of it as is asked for.
func (p *poet) proof(round uint32, leaves uint64) *types.PoetProofMessage {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made[round] == nil || p.made[round].Proof.NumLeaves != leaves {
		p.made[round] = work(p.t, merkle.Root(p.members[round]), leaves, fmt.Sprint(round))
	}
	return p.made[round]
}

func work(t *testing.T, statement types.Hash32, leaves uint64, round string) *types.PoetProofMessage {
	prover := posw.NewProver(statement[:], 4)
	kept := prover.Advance(leaves, nil)
	proof, err := prover.Prove(bytes.NewReader(kept), 1, nil)
	if err != nil {
		t.Error(err)
	}
	return &types.PoetProofMessage{Proof: proof, PoetID: types.NodeID{42}, RoundID: round, Statement: statement}
}

func proofResponse(m *types.PoetProofMessage, members [][32]byte) *poetpb.ProofResponse {
	out := &poetpb.ProofResponse{Proof: &poetpb.PoetProof{Leaves: m.Proof.NumLeaves, Proof: &poetpb.MerkleProof{Root: m.Proof.Root[:]}}, Pubkey: make([]byte, 32)}
	for _, h := range members {
		out.Proof.Members = append(out.Proof.Members, bytesOf(h))
	}
	for _, h := range m.Proof.Leaves {
		out.Proof.Proof.ProvenLeaves = append(out.Proof.Proof.ProvenLeaves, bytesOf(h))
	}
	for _, h := range m.Proof.Nodes {
		out.Proof.Proof.ProofNodes = append(out.Proof.Proof.ProofNodes, bytesOf(h))
	}
	return out
}

func bytesOf[T ~[32]byte](h T) []byte { b := [32]byte(h); return b[:] }

func (p *poet) answer(w http.ResponseWriter, m proto.Message) {
	b, err := protojson.Marshal(m)
	if err != nil {
		p.t.Error(err)
	}
	_, _ = w.Write(b)
}

// published is an ATX, and how long after its PoET's round ended it came.
type published struct {
	*types.ATX
	after time.Duration
}

// rig is a smesher with real space, a real store and its PoETs, in the virtual
// time of a bubble. It plays the node.
type rig struct {
	t       *testing.T
	dir     string
	network preset.Network
	params  preset.Params
	id      *signing.Signer
	db      *store.DB
	poets   map[string]*poet
	log     bytes.Buffer
	logMu   sync.Mutex

	*Smesher
	end  context.CancelFunc
	done chan error

	elsewhere types.NodeID
	stored    func(*types.PoetProofMessage) // of several smeshers; nil: of the one

	mu   sync.Mutex
	atxs []published
}

// inBubble runs a test in virtual time.
func inBubble(t *testing.T, f func(t *testing.T, r *rig)) {
	if raceEnabled && runtime.GOMAXPROCS(0) > 1 {
		t.Skip("SKIPPED under -race on more than one processor: its runtime crashes with synctest, golang/go#78156; run it with -cpu 1")
	}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.dir = dir
		r.open()
		f(t, r)
		r.close()
	})
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, dir: t.TempDir(), poets: make(map[string]*poet), done: make(chan error, 1)}
	r.network = preset.Network{Name: "rig", Preset: "test", Genesis: time.Now().Add(time.Minute).Truncate(time.Second)}
	var err error
	if r.params, err = r.network.Params(); err != nil {
		t.Fatal(err)
	}
	if r.id, err = signing.NewSigner(signing.SeedFrom("smesher"), r.network.ID()); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) open() {
	var err error
	if r.db, err = store.Open(filepath.Join(r.dir, "node"), r.network.ID()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) close() {
	r.stop()
	if err := r.db.Close(); err != nil {
		r.t.Error(err)
	}
	for _, p := range r.poets {
		p.listener.Close()
	}
	synctest.Wait()
}

// add starts a PoET's server.
func (r *rig) add(name string, rate uint64) *poet {
	p := &poet{
		t: r.t, schedule: r.network.PoetSchedule(r.params), rate: rate, listener: bufconn.Listen(1 << 16),
		members: make(map[uint32][][32]byte), made: make(map[uint32]*types.PoetProofMessage),
	}
	r.poets[name] = p
	server := &http.Server{Handler: p}
	go server.Serve(p.listener)
	r.t.Cleanup(func() { server.Close() })
	return p
}

func (r *rig) space() string { return filepath.Join(r.dir, "post") }

// RoundTrip leads every request to the PoET of that name.
func (r *rig) RoundTrip(req *http.Request) (*http.Response, error) {
	p := r.poets[req.URL.Hostname()]
	if p == nil {
		return nil, errors.New("connection refused")
	}
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return p.listener.DialContext(ctx) }}
	return tr.RoundTrip(req)
}

// Write keeps what is logged.
func (r *rig) Write(b []byte) (int, error) {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	return r.log.Write(b)
}

func (r *rig) logged() string {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	return r.log.String()
}

func (r *rig) config(poets ...string) Config {
	cfg := Config{
		Network: r.network, Dir: r.space(), Evidence: filepath.Join(r.dir, "evidence"), Signer: r.id, Coinbase: types.Address{1}, Store: r.db, Node: r, HTTP: r,
		Log: slog.New(slog.NewTextHandler(r, nil)),
	}
	for _, name := range poets {
		cfg.Poets = append(cfg.Poets, "http://"+name)
	}
	return cfg
}

func (r *rig) start(cfg Config) {
	r.t.Helper()
	var err error
	if r.Smesher, err = New(cfg); err != nil {
		r.t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.end = context.WithCancel(r.t.Context())
	smesher := r.Smesher
	go func() { r.done <- smesher.Run(ctx) }()
}

func (r *rig) stop() {
	if r.end != nil {
		r.end()
		if err := <-r.done; err != nil {
			r.t.Error(err)
		}
		r.end = nil
	}
}

// until waits for the start of an epoch.
func (r *rig) until(e types.Epoch) {
	time.Sleep(time.Until(r.network.Schedule(r.params).EpochStart(e)))
}

func (r *rig) Highest(before types.Epoch) (id types.ATXID, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.atxs {
		if a.PublishEpoch < before {
			id, found = a.ID(), true
		}
	}
	return id, found
}

func (r *rig) Slots(_ types.NodeID, e types.Epoch) []types.Layer {
	return []types.Layer{types.Layer(10*e + 1)}
}

func (r *rig) Elsewhere(id types.NodeID) bool { return id == r.elsewhere }

func (r *rig) AddPoet(m *types.PoetProofMessage) error {
	if m.Proof.NumLeaves < r.params.TickSize {
		return errors.New("less than a tick")
	}
	if err := posw.Verify(m.Statement[:], &m.Proof, 1); err != nil {
		return err
	}
	if err := r.db.AddPoetProof(m); err != nil {
		return err
	}
	if r.stored != nil {
		r.stored(m)
	} else {
		r.Stored(m)
	}
	return nil
}

func (r *rig) PublishATX(_ context.Context, a *types.ATX) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	end := r.network.PoetSchedule(r.params).End(uint32(a.PublishEpoch) - 1)
	r.atxs = append(r.atxs, published{a, time.Since(end)})
	info := &activation.Info{ID: a.ID(), Smesher: a.SmesherID, PublishEpoch: a.PublishEpoch, CommitmentATX: r.network.Golden(), Ticks: 1}
	return r.db.AddATX(a, info, time.Now())
}

// all returns what was published so far.
func (r *rig) all() []published {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.atxs)
}

// leaves returns how much work each published ATX stands on.
func (r *rig) leaves() (all []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.atxs {
		m, err := r.db.PoetProof(a.NIPosts[0].PoetProof)
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, m.Proof.NumLeaves)
	}
	return all
}

// canned answers every request alike.
type canned struct {
	body   []byte
	status uint
}

func (c canned) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: int(c.status), Status: fmt.Sprint(c.status), Body: io.NopCloser(bytes.NewReader(c.body)), Request: req}, nil
}
