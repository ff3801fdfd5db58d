// Package api serves users of a node: the ecosystem's gRPC services and their
// JSON form, the service through which PoETs hand over proofs, health and
// reflection.
//
// It promises: what a client sends is answered with a status code and a one-line
// reason, and changes nothing unless it is accepted; connections, requests,
// streams and replies are bounded as package front says, a client that is too
// slow for its stream is dropped; only the services of an explicit list can be
// reached.
// Nothing here administers the node; NewAdmin tells its operator, who shows a token,
// what is not for everybody. New checks and starts nothing, Run leaves
// nothing behind.
//
// It leaves to the caller: opening the listeners (front.Listen), the node behind
// Node and Gateway, and publishing Events. Past events are read from the
// store, so a restart forgets none of them.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"tweedle/base/telemetry"
	"tweedle/edges/api/gen/gatewaypb"
	"tweedle/edges/front"
	"tweedle/edges/store"
	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// Node is what the services ask of the running node. Everything that is applied
// they read from the store.
type Node interface {
	Status() telemetry.NodeStatus
	// Peers tells with whom the node is connected, and why others left.
	Peers() telemetry.Peers
	// SubmitTransaction lets a transaction wait for a block and gossips it. An
	// error wraps a reason of package vm or txpool, or ErrNotReady.
	SubmitTransaction(ctx context.Context, raw types.Transaction) error
	// Projected returns the nonce and the balance, in smidges, that an account
	// will have when all its waiting transactions are executed.
	Projected(ctx context.Context, a types.Address) (nextNonce, balance uint64, err error)
}

// Gateway takes proofs from PoETs.
type Gateway interface {
	// PublishPoet validates a proof, stores it, and hands it to peers. An
	// error wraps ErrNotReady or ErrInvalidProof.
	PublishPoet(ctx context.Context, data []byte) (Published, error)
	// PoetProof returns a stored proof, or store.ErrNotFound.
	PoetProof(ref types.PoetProofRef) ([]byte, error)
	// GatewayID returns our name as a gateway, the same after a restart.
	GatewayID() string
}

// Published is what a gateway acknowledges.
type Published struct {
	Ref   types.PoetProofRef
	Known bool // was stored before this call
	Peers int  // to how many it was handed, now or earlier
}

// Errors that a Node or Gateway wraps so that users get the right status.
var (
	// ErrNotReady says that the same request may succeed later, or elsewhere.
	ErrNotReady = errors.New("node is not ready")
	// ErrInvalidProof says that no repetition will make the proof valid.
	ErrInvalidProof = errors.New("PoET proof is not valid")
)

// Config is what a server needs.
type Config struct {
	// GRPC and REST are open listeners; nil is not served. Run closes them.
	GRPC, REST net.Listener

	Network  types.GenesisID
	Schedule types.Schedule
	VM       vm.Params
	Version  string
	Build    string // which source it was built from

	Store   *store.Reader // of a Reader that strangers may keep busy
	Node    Node
	Gateway Gateway // nil: the service is absent
	Events  *Events // nil: streams tell only what was before
	Limits  Limits  // zero: DefaultLimits
	Front   front.Options
	Log     *slog.Logger
}

// Server serves until its Run ends.
type Server struct {
	cfg    Config
	guard  *front.Guard
	grpc   *grpc.Server
	rest   *http.Server
	health *health.Server
}

// New returns a server of the services that cfg allows.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Limits == (Limits{}) {
		cfg.Limits = DefaultLimits()
	}
	if cfg.Events == nil {
		cfg.Events = NewEvents()
	}
	guard := front.New(cfg.Limits.Limits, cfg.Front)
	s := &Server{cfg: cfg, guard: guard, grpc: guard.Server(), health: health.NewServer()}
	b := &backend{
		Config: cfg, guard: guard, publishing: make(chan struct{}, cfg.Limits.Publish),
		publishers: front.NewRates[netip.Prefix](cfg.Limits.PublishRate, cfg.Limits.PublishBurst),
	}
	mux := newMux(guard)
	for _, register := range b.public() {
		if err := register(s.grpc, mux, guard); err != nil {
			return nil, err
		}
	}
	healthpb.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.rest = guard.HTTP(oneValue(mux))
	return s, nil
}

// register adds one service to the gRPC server, and to JSON if it has that form.
type register func(*grpc.Server, *runtime.ServeMux, *front.Guard) error

// public lists the services that everybody may use. A service that is not
// here cannot be reached.
func (b *backend) public() []register {
	list := []register{
		withJSON[spacemesh.NodeServiceServer](&spacemesh.NodeService_ServiceDesc, nodeService{backend: b}, spacemesh.RegisterNodeServiceServer, spacemesh.RegisterNodeServiceHandlerServer),
		withJSON[spacemesh.MeshServiceServer](&spacemesh.MeshService_ServiceDesc, meshService{backend: b}, spacemesh.RegisterMeshServiceServer, spacemesh.RegisterMeshServiceHandlerServer),
		withJSON[spacemesh.TransactionServiceServer](&spacemesh.TransactionService_ServiceDesc, txService{backend: b}, spacemesh.RegisterTransactionServiceServer, spacemesh.RegisterTransactionServiceHandlerServer),
		withJSON[spacemesh.GlobalStateServiceServer](&spacemesh.GlobalStateService_ServiceDesc, stateService{backend: b}, spacemesh.RegisterGlobalStateServiceServer, spacemesh.RegisterGlobalStateServiceHandlerServer),
	}
	if b.Gateway != nil {
		list = append(list, func(g *grpc.Server, _ *runtime.ServeMux, _ *front.Guard) error {
			gatewaypb.RegisterGatewayServiceServer(g, gatewayService{backend: b})
			return nil
		})
	}
	return list
}

// withJSON is a service with its JSON form, streams included.
func withJSON[S any](desc *grpc.ServiceDesc, srv S, calls func(grpc.ServiceRegistrar, S), rest func(context.Context, *runtime.ServeMux, S) error) register {
	return func(g *grpc.Server, m *runtime.ServeMux, guard *front.Guard) error {
		calls(g, srv)
		if err := rest(context.Background(), m, srv); err != nil { // the handlers do not use the context
			return err
		}
		return guard.Streams(m, desc, srv) // after rest, whose streams only say that there are none
	}
}

// Run serves until ctx ends, or a listener fails. It is not to be run again.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	// Streams end by themselves, with a status that says why.
	stop := context.AfterFunc(ctx, func() {
		s.health.Shutdown()
		s.cfg.Events.close()
	})
	defer stop()
	if s.cfg.GRPC != nil {
		group.Go(func() error { return s.guard.Serve(ctx, s.grpc, s.cfg.GRPC) })
	}
	if s.cfg.REST != nil {
		group.Go(func() error { return s.guard.ServeHTTP(ctx, s.rest, s.cfg.REST) })
	}
	return group.Wait()
}
