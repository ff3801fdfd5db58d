package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"tweedle/base/telemetry"
	"tweedle/edges/api/gen/gatewaypb"
	"tweedle/edges/front"
	"tweedle/edges/store"
	"tweedle/protocol/activation"
	"tweedle/protocol/core"
	"tweedle/protocol/mesh"
	"tweedle/protocol/txpool"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ledger is a node without a network: the real store, ledger and pool, and
// blocks that are made when the test says so.
type ledger struct {
	t        testing.TB
	db       *store.DB
	params   vm.Params
	schedule types.Schedule
	events   *Events
	atx      *types.ATX

	mu     sync.Mutex // guards what follows
	pool   *txpool.Pool
	chain  *mesh.History
	proofs map[types.PoetProofRef][]byte
	sick   error // what the next request fails with
}

// The clock of the tests stands in the middle of this layer.
const nowLayer = 25

func newLedger(t testing.TB) *ledger {
	genesis := time.Now().Add(-nowLayer*time.Hour - 30*time.Minute)
	l := &ledger{
		t: t, params: vm.LocalParams(), events: NewEvents(), proofs: map[types.PoetProofRef][]byte{},
		schedule: types.Schedule{Genesis: genesis, LayerDuration: time.Hour, LayersPerEpoch: 10},
	}
	l.params.Network = types.NetworkID(genesis, "api")
	for i := range 4 {
		l.params.Genesis = append(l.params.Genesis, vm.GenesisAccount{Address: l.address(i), Balance: 1000 * vm.Smidges})
	}
	var err error
	if l.db, err = store.Open(t.TempDir(), l.params.Network); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.db.Close() })
	state, err := vm.Genesis(l.params)
	if err != nil {
		t.Fatal(err)
	}
	var all []vm.Entry
	for a, account := range state.All() {
		all = append(all, vm.Entry{Address: a, Account: account})
	}
	first := l.schedule.FirstBallotLayer() - 1
	if err := l.db.Apply(store.LayerResult{Layer: first, Outcome: vm.Outcome{State: state, Changed: all}}); err != nil {
		t.Fatal(err)
	}
	limits := txpool.DefaultLimits()
	limits.PerAccount = 3
	l.pool = txpool.New(state, l.params, limits)
	l.chain = mesh.NewHistory(l.params, mesh.Link{Decision: types.Decision{Layer: first, StateRoot: state.Root()}, State: state})
	l.atx = &types.ATX{PublishEpoch: 1, Coinbase: types.DeriveAddress(vm.WalletTemplate(), []byte("coinbase")), SmesherID: types.NodeID{7}}
	l.activate(l.atx)
	return l
}

func (l *ledger) activate(a *types.ATX) store.ATXRecord {
	l.t.Helper()
	info := activation.Info{ID: a.ID(), Smesher: a.SmesherID, PublishEpoch: a.PublishEpoch, Coinbase: a.Coinbase, Units: 4, Weight: 40}
	if err := l.db.AddATX(a, &info, time.Now()); err != nil {
		l.t.Fatal(err)
	}
	record, err := l.db.ATXRecord(info.ID)
	if err != nil {
		l.t.Fatal(err)
	}
	l.events.Publish(Activated{record})
	return record
}

// signer owns account i, of four that have a balance at genesis.
func (l *ledger) signer(i int) *signing.Signer { return signerOf(i, l.params.Network) }

func signerOf(i int, network types.GenesisID) *signing.Signer {
	s, err := signing.NewSigner(bytes.Repeat([]byte{byte(i)}, signing.SeedSize), network)
	if err != nil {
		panic(err)
	}
	return s
}

func (l *ledger) address(i int) types.Address { return vm.WalletAddress(l.signer(i).NodeID()) }
func (l *ledger) bech32(i int) string         { return l.address(i).Bech32(l.params.HRP) }

// apply makes a block of all that waits, and of what others have, and applies it.
func (l *ledger) apply(layer types.Layer, more ...types.Transaction) store.LayerResult {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	block := mesh.BuildBlock(layer, []mesh.Share{{ATX: l.atx.ID(), Weight: 40, Slots: 2, Proofs: 1}}, nil)
	content := vm.Block{Layer: layer, Rewards: []vm.Share{{ATX: l.atx.ID(), Coinbase: l.atx.Coinbase, Num: 1, Den: 1}}}
	txs := l.pool.All()
	for _, raw := range more {
		tx, err := vm.Parse(raw)
		if err != nil {
			l.t.Fatal(err)
		}
		txs = append(txs, tx)
	}
	for _, tx := range txs {
		block.Txs = append(block.Txs, tx.ID)
		content.Txs = append(content.Txs, tx)
	}
	base := l.chain.Tip().Decision
	out, err := l.chain.Try(base.StateRoot, content)
	if err != nil {
		l.t.Fatal(err)
	}
	d := types.Decision{Layer: layer, Parent: base.StateRoot, Block: block.ID(), StateRoot: out.State.Root()}
	path, err := l.chain.Extend(&mesh.Draft{Decision: d, Block: block, Outcome: out})
	if err != nil {
		l.t.Fatal(err)
	}
	l.chain.Commit(path)
	result := store.LayerOf(core.WriteLayer{
		Base: base.Layer, Block: block, Certificate: &types.Certificate{Decision: d}, Txs: content.Txs, Outcome: out,
	})
	if err := l.db.Apply(result); err != nil {
		l.t.Fatal(err)
	}
	l.events.Publish(Applied{result})
	for _, tx := range l.pool.Applied(out.State) {
		if !slices.Contains(block.Txs, tx.ID) {
			l.events.Publish(Left{tx, core.Overtaken})
		}
	}
	return result
}

func (l *ledger) Status() telemetry.NodeStatus {
	last, err := l.db.LastApplied()
	if err != nil {
		l.t.Error(err)
	}
	return telemetry.NodeStatus{Layer: nowLayer, AppliedLayer: uint32(last.Layer), Synced: true, Peers: 4}
}

func (l *ledger) Peers() telemetry.Peers { return twoPeers() }

func (l *ledger) SubmitTransaction(_ context.Context, raw types.Transaction) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sick != nil {
		return l.sick
	}
	tx, err := vm.Parse(raw)
	if err != nil {
		return err
	}
	replaced, err := l.pool.Add(tx)
	if err != nil {
		return err
	}
	l.events.Publish(Accepted{tx})
	for _, tx := range replaced {
		l.events.Publish(Left{tx, core.Replaced})
	}
	return nil
}

func (l *ledger) Projected(_ context.Context, a types.Address) (uint64, uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	nonce, balance := l.pool.Projected(a)
	return nonce, balance, nil
}

func (l *ledger) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pool.Len()
}

func (l *ledger) PublishPoet(_ context.Context, data []byte) (Published, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sick != nil {
		return Published{}, l.sick
	}
	var m types.PoetProofMessage
	if err := codec.Decode(data, &m); err != nil {
		return Published{}, fmt.Errorf("%w: %w", ErrInvalidProof, err)
	}
	ref := m.Proof.Ref()
	_, known := l.proofs[ref]
	l.proofs[ref] = data
	return Published{Ref: ref, Known: known, Peers: 3}, nil
}

func (l *ledger) PoetProof(ref types.PoetProofRef) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if data, ok := l.proofs[ref]; ok {
		return data, nil
	}
	return nil, store.ErrNotFound
}

func (l *ledger) GatewayID() string { return "gateway-1" }

// served is a running server with its clients.
type served struct {
	*ledger
	*Server
	conn    *grpc.ClientConn
	node    spacemesh.NodeServiceClient
	mesh    spacemesh.MeshServiceClient
	tx      spacemesh.TransactionServiceClient
	state   spacemesh.GlobalStateServiceClient
	gateway gatewaypb.GatewayServiceClient
	http    *http.Client
	stop    func() error // ends Run and returns what it said
}

func serve(t testing.TB, adjust ...func(*Config)) *served {
	t.Helper()
	l := newLedger(t)
	cfg := Config{
		Network: l.params.Network, Schedule: l.schedule, VM: l.params, Version: "v1", Build: "abc",
		Store: l.db.Public(), Node: l, Gateway: l, Events: l.events,
		Front: front.Options{Free: []netip.Prefix{}}, // here this machine is a client like any other
	}
	var err error
	if cfg.GRPC, err = front.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if cfg.REST, err = front.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	for _, a := range adjust {
		a(&cfg)
	}
	s := &served{ledger: l}
	if s.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	s.conn, err = grpc.NewClient(cfg.GRPC.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	s.node, s.mesh = spacemesh.NewNodeServiceClient(s.conn), spacemesh.NewMeshServiceClient(s.conn)
	s.tx, s.state = spacemesh.NewTransactionServiceClient(s.conn), spacemesh.NewGlobalStateServiceClient(s.conn)
	s.gateway = gatewaypb.NewGatewayServiceClient(s.conn)
	s.http = &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		s.http.CloseIdleConnections()
		_ = s.conn.Close()
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// deadline is for calls that answer at once; it only ends a test that hangs.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (s *served) submit(t testing.TB, raw types.Transaction) error {
	_, err := s.tx.SubmitTransaction(deadline(t), &spacemesh.SubmitTransactionRequest{Transaction: raw})
	return err
}

func (s *served) mustSubmit(t testing.TB, raw types.Transaction) {
	t.Helper()
	if err := s.submit(t, raw); err != nil {
		t.Fatal(err)
	}
}

// post sends a JSON request and returns its status and body.
func (s *served) post(t testing.TB, path, body string) (int, map[string]any) {
	t.Helper()
	resp, err := s.http.Post("http://"+s.cfg.REST.Addr().String()+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&out); err != nil {
		t.Fatalf("%s answered %q, which is not JSON: %v", path, b, err)
	}
	return resp.StatusCode, out
}

// wantStatus checks the code and a part of the one-line reason.
func wantStatus(t testing.TB, err error, code codes.Code, reason string) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != code || !strings.Contains(st.Message(), reason) || strings.Contains(st.Message(), "\n") {
		t.Errorf("got %v %q, want %v with %q in one line", st.Code(), st.Message(), code, reason)
	}
}

func check[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

var errDisk = errors.New("open /secret/path: disk is on fire")
