package delivery

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"tweedle/edges/api/gen/gatewaypb"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// maxReply bounds a gateway's answer, in bytes: a proof and its frame.
const maxReply = MaxProofSize + 1024

// GRPC returns the Dialer for nodes that serve spacemesh.v1.GatewayService.
// The connection is plain text: a listener in between could forge an
// acknowledgement, never a proof.
func GRPC(genesis types.GenesisID, extra ...grpc.DialOption) Dialer {
	return func(addr string) (Gateway, error) {
		opts := append([]grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDisableServiceConfig(),
			grpc.WithDisableRetry(),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply)),
		}, extra...)
		conn, err := grpc.NewClient("passthrough:///"+addr, opts...)
		if err != nil {
			return nil, fmt.Errorf("gateway %s: %w", addr, err)
		}
		return &grpcGateway{conn: conn, genesis: genesis}, nil
	}
}

type grpcGateway struct {
	conn    *grpc.ClientConn
	genesis types.GenesisID
}

// Check asks for health, network, sync state, peers and name. A node without a
// health service is judged by the rest. The other gateways that it may tell of are
// not asked: who names gateways is the operator.
func (g *grpcGateway) Check(ctx context.Context) (Health, error) {
	health, err := healthpb.NewHealthClient(g.conn).Check(ctx, &healthpb.HealthCheckRequest{})
	switch {
	case status.Code(err) == codes.Unimplemented:
	case err != nil:
		return Health{}, plain(err)
	case health.GetStatus() != healthpb.HealthCheckResponse_SERVING:
		return Health{}, fmt.Errorf("reports %s", health.GetStatus())
	}
	var h Health
	id, err := spacemesh.NewMeshServiceClient(g.conn).GenesisID(ctx, &spacemesh.GenesisIDRequest{})
	if err != nil {
		return Health{}, plain(err)
	}
	if copy(h.Genesis[:], id.GetGenesisId()) != len(h.Genesis) {
		return Health{}, fmt.Errorf("names a genesis id of %d bytes", len(id.GetGenesisId()))
	}
	st, err := spacemesh.NewNodeServiceClient(g.conn).Status(ctx, &spacemesh.StatusRequest{})
	if err != nil {
		return Health{}, plain(err)
	}
	h.Synced, h.Peers = st.GetStatus().GetIsSynced(), st.GetStatus().GetConnectedPeers()
	peers, err := gatewaypb.NewGatewayServiceClient(g.conn).GatewayPeers(ctx, &gatewaypb.GatewayPeersRequest{})
	if err != nil {
		return Health{}, plain(err)
	}
	h.ID = peers.GetId()
	if len(h.ID) > MaxAddress {
		return Health{}, fmt.Errorf("names an identity of %d characters", len(h.ID))
	}
	return h, nil
}

// Publish hands a proof over.
func (g *grpcGateway) Publish(ctx context.Context, data []byte) (Answer, error) {
	in := &gatewaypb.PublishPoetRequest{Data: data}
	if g.genesis != (types.GenesisID{}) {
		in.GenesisId = g.genesis[:]
	}
	r, err := gatewaypb.NewGatewayServiceClient(g.conn).PublishPoet(ctx, in)
	if status.Code(err) == codes.InvalidArgument {
		return Answer{}, fmt.Errorf("%w: %w", ErrRejected, plain(err))
	}
	if err != nil {
		return Answer{}, plain(err)
	}
	out := Answer{Known: r.GetKnown(), Validated: r.GetValidated(), Stored: r.GetStored(), Peers: r.GetPeers()}
	if len(r.GetRef()) != len(out.Ref) {
		return Answer{}, fmt.Errorf("acknowledged a reference of %d bytes", len(r.GetRef()))
	}
	copy(out.Ref[:], r.GetRef())
	return out, nil
}

// Fetch asks for a proof. Only the work has to be the same: the name of the
// PoET beside it is not authenticated, and another one may have come first.
func (g *grpcGateway) Fetch(ctx context.Context, ref types.PoetProofRef) error {
	r, err := gatewaypb.NewGatewayServiceClient(g.conn).GatewayProof(ctx, &gatewaypb.GatewayProofRequest{Ref: ref[:]})
	if status.Code(err) == codes.NotFound {
		return ErrMissing
	}
	if err != nil {
		return plain(err)
	}
	var m types.PoetProofMessage
	if codec.Decode(r.GetData(), &m) != nil || m.Proof.Ref() != ref {
		return ErrMissing
	}
	return nil
}

// Close ends the connection.
func (g *grpcGateway) Close() error { return g.conn.Close() }

// maxErrorText bounds what a gateway's error adds to records and log lines, in
// bytes.
const maxErrorText = 200

// plain reduces a gRPC error to one short line that a terminal can show.
func plain(err error) error {
	s := status.Convert(err)
	text := s.Message()
	return fmt.Errorf("%s: %s", s.Code(), strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text[:min(len(text), maxErrorText)]))
}
