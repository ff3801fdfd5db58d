package api

import (
	"context"
	"errors"
	"time"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tweedle/edges/api/gen/gatewaypb"
	"tweedle/edges/front"
	"tweedle/edges/store"
	"tweedle/values/types"
)

// gatewayService is spacemesh.v1.GatewayService, which the ecosystem's stubs
// do not have any more. Its codes are those of its proto file.
type gatewayService struct {
	gatewaypb.UnimplementedGatewayServiceServer
	*backend
}

// BroadcastPoet is the older form of PublishPoet.
func (s gatewayService) BroadcastPoet(ctx context.Context, req *gatewaypb.BroadcastPoetRequest) (*gatewaypb.BroadcastPoetResponse, error) {
	if _, err := s.publish(ctx, req.Data); err != nil {
		return nil, err
	}
	return &gatewaypb.BroadcastPoetResponse{Status: &statuspb.Status{Code: int32(codes.OK)}}, nil
}

// PublishPoet acknowledges a proof that was validated, stored, and handed to
// peers.
func (s gatewayService) PublishPoet(ctx context.Context, req *gatewaypb.PublishPoetRequest) (*gatewaypb.PublishPoetResponse, error) {
	if len(req.GenesisId) > 0 && string(req.GenesisId) != string(s.Network[:]) {
		return nil, status.Errorf(codes.FailedPrecondition, "this gateway is of network %v, the proof is for %x: use a gateway of that network",
			s.Network, req.GenesisId[:min(len(req.GenesisId), len(s.Network))])
	}
	p, err := s.publish(ctx, req.Data)
	if err != nil {
		return nil, err
	}
	return &gatewaypb.PublishPoetResponse{Ref: p.Ref[:], Known: p.Known, Validated: true, Stored: true, Peers: uint32(p.Peers)}, nil
}

func (s gatewayService) publish(ctx context.Context, data []byte) (Published, error) {
	if len(data) == 0 {
		return Published{}, invalid("data is empty")
	}
	if from, limited := front.From(ctx); limited && !s.publishers.Allow(from, time.Now()) {
		s.guard.Refuse("publish-rate", from.String())
		return Published{}, status.Error(codes.ResourceExhausted, "too many proofs from this address: send fewer a second")
	}
	select {
	case s.publishing <- struct{}{}:
		defer func() { <-s.publishing }()
	case <-ctx.Done():
		return Published{}, s.fail(ctx.Err())
	}
	p, err := s.Gateway.PublishPoet(ctx, data)
	return p, s.fail(err)
}

// GatewayPeers tells our name; other gateways are named by nobody but the PoET's
// operator.
func (s gatewayService) GatewayPeers(context.Context, *gatewaypb.GatewayPeersRequest) (*gatewaypb.GatewayPeersResponse, error) {
	return &gatewaypb.GatewayPeersResponse{Id: s.Gateway.GatewayID()}, nil
}

func (s gatewayService) GatewayProof(_ context.Context, req *gatewaypb.GatewayProofRequest) (*gatewaypb.GatewayProofResponse, error) {
	ref, err := bytes32[types.PoetProofRef]("ref", req.Ref)
	if err != nil {
		return nil, err
	}
	data, err := s.Gateway.PoetProof(ref)
	if errors.Is(err, store.ErrNotFound) {
		return nil, status.Errorf(codes.NotFound, "PoET proof %v is not stored here", ref)
	}
	if err != nil {
		return nil, s.fail(err)
	}
	return &gatewaypb.GatewayProofResponse{Data: data}, nil
}
