package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"tweedle/edges/api/gen/gatewaypb"
	"tweedle/edges/front"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// connect returns a connection to a gateway that serves
// spacemesh.v1.GatewayService, for one call of the machine: what waits behind a
// backoff of its own would come later than ours. In plain text a listener in between
// could forge an acknowledgement, never a proof.
func (c *Courier) connect(addr string) (*grpc.ClientConn, error) {
	return front.Dial(addr, append([]grpc.DialOption{
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply)),
	}, c.Dial...)...)
}

// check asks for health, network, sync state, peers and name. A node without a
// health service is judged by the rest. The other gateways that it may tell of are
// not asked: who names gateways is the operator.
func (c *Courier) check(ctx context.Context, addr string) (h Health, err error) {
	conn, err := c.connect(addr)
	if err != nil {
		return h, err
	}
	defer conn.Close()
	health, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	switch {
	case status.Code(err) == codes.Unimplemented:
	case err != nil:
		return h, plain(err)
	case health.GetStatus() != healthpb.HealthCheckResponse_SERVING:
		return h, fmt.Errorf("reports %s", health.GetStatus())
	}
	id, err := spacemesh.NewMeshServiceClient(conn).GenesisID(ctx, &spacemesh.GenesisIDRequest{})
	if err != nil {
		return h, plain(err)
	}
	if copy(h.Genesis[:], id.GetGenesisId()) != len(h.Genesis) {
		return h, fmt.Errorf("names a genesis id of %d bytes", len(id.GetGenesisId()))
	}
	st, err := spacemesh.NewNodeServiceClient(conn).Status(ctx, &spacemesh.StatusRequest{})
	if err != nil {
		return h, plain(err)
	}
	h.Synced, h.Peers = st.GetStatus().GetIsSynced(), st.GetStatus().GetConnectedPeers()
	peers, err := gatewaypb.NewGatewayServiceClient(conn).GatewayPeers(ctx, &gatewaypb.GatewayPeersRequest{})
	if err != nil {
		return h, plain(err)
	}
	if h.ID = peers.GetId(); len(h.ID) > MaxAddress {
		return h, fmt.Errorf("names an identity of %d characters", len(h.ID))
	}
	return h, nil
}

// deliver hands a proof over, and a moment later asks for it.
func (c *Courier) deliver(ctx context.Context, addr string, m *types.PoetProofMessage) error {
	conn, err := c.connect(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	gateway, ref := gatewaypb.NewGatewayServiceClient(conn), m.Proof.Ref()
	if err := c.publish(ctx, gateway, codec.Encode(m), ref); err != nil {
		return err
	}
	select {
	case <-time.After(fetchDelay):
	case <-ctx.Done():
		return ctx.Err()
	}
	return fetch(ctx, gateway, ref)
}

// publish hands a proof over and returns nil if the gateway is the better for it.
func (c *Courier) publish(ctx context.Context, gateway gatewaypb.GatewayServiceClient, data []byte, ref types.PoetProofRef) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	in := &gatewaypb.PublishPoetRequest{Data: data}
	if genesis := c.m.cfg.Genesis; genesis != (types.GenesisID{}) {
		in.GenesisId = genesis[:]
	}
	a, err := gateway.PublishPoet(ctx, in)
	switch {
	case status.Code(err) == codes.InvalidArgument:
		return fmt.Errorf("%w: %w", errRejected, plain(err))
	case err != nil:
		return plain(err)
	case !bytes.Equal(a.GetRef(), ref[:]):
		return fmt.Errorf("acknowledged proof %.10x and not %s", a.GetRef(), ref.Short())
	case !a.GetKnown() && (!a.GetValidated() || !a.GetStored()):
		return errors.New("answered without validating and storing the proof")
	case a.GetPeers() < uint32(c.m.cfg.MinPeers):
		return fmt.Errorf("handed the proof to %d peers, %d are needed", a.GetPeers(), c.m.cfg.MinPeers)
	}
	return nil
}

// fetch asks for a proof. Only the work has to be the same: the name of the
// PoET beside it is not authenticated, and another one may have come first.
func fetch(ctx context.Context, gateway gatewaypb.GatewayServiceClient, ref types.PoetProofRef) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := gateway.GatewayProof(ctx, &gatewaypb.GatewayProofRequest{Ref: ref[:]})
	var m types.PoetProofMessage
	switch {
	case err != nil && status.Code(err) != codes.NotFound:
		return fmt.Errorf("%w: %w", errUnsure, plain(err))
	case err != nil, codec.Decode(r.GetData(), &m) != nil, m.Proof.Ref() != ref:
		return errLied
	}
	return nil
}

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
