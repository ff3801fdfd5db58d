package api

import (
	"context"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"tweedle/values/types"
)

// nodeService is spacemesh.v1.NodeService.
type nodeService struct {
	spacemesh.UnimplementedNodeServiceServer
	*backend
}

func text(s string) *spacemesh.SimpleString { return &spacemesh.SimpleString{Value: s} }

// Echo answers what it was sent: a client's check of its connection.
func (s nodeService) Echo(_ context.Context, req *spacemesh.EchoRequest) (*spacemesh.EchoResponse, error) {
	if req.Msg == nil {
		return nil, invalid("msg is missing")
	}
	return &spacemesh.EchoResponse{Msg: text(req.Msg.Value)}, nil
}

func (s nodeService) Version(context.Context, *emptypb.Empty) (*spacemesh.VersionResponse, error) {
	return &spacemesh.VersionResponse{VersionString: text(s.backend.Version)}, nil
}

func (s nodeService) Build(context.Context, *emptypb.Empty) (*spacemesh.BuildResponse, error) {
	return &spacemesh.BuildResponse{BuildString: text(s.backend.Build)}, nil
}

func (s nodeService) Status(context.Context, *spacemesh.StatusRequest) (*spacemesh.StatusResponse, error) {
	return &spacemesh.StatusResponse{Status: s.status()}, nil
}

func (s nodeService) status() *spacemesh.NodeStatus {
	st := s.Node.Status()
	applied := layerNumber(types.Layer(st.AppliedLayer))
	return &spacemesh.NodeStatus{
		ConnectedPeers: uint64(st.Peers), IsSynced: st.Synced,
		SyncedLayer: applied, TopLayer: layerNumber(types.Layer(st.Layer)), VerifiedLayer: applied,
	}
}

func (s nodeService) NodeInfo(context.Context, *emptypb.Empty) (*spacemesh.NodeInfoResponse, error) {
	genesis := uint32(s.Schedule.FirstBallotLayer()) - 1
	return &spacemesh.NodeInfoResponse{
		Hrp: s.VM.HRP, FirstGenesis: genesis, EffectiveGenesis: genesis, EpochSize: s.Schedule.LayersPerEpoch,
	}, nil
}

// StatusStream sends the status at once, and whenever a layer is applied.
func (s nodeService) StatusStream(_ *spacemesh.StatusStreamRequest, out grpc.ServerStreamingServer[spacemesh.StatusStreamResponse]) error {
	send := func() error { return out.Send(&spacemesh.StatusStreamResponse{Status: s.status()}) }
	return s.Events.follow(out.Context(), send, func(ev Event) error {
		if _, ok := ev.(Applied); !ok {
			return nil
		}
		return send()
	})
}

func (s nodeService) ErrorStream(*spacemesh.ErrorStreamRequest, grpc.ServerStreamingServer[spacemesh.ErrorStreamResponse]) error {
	return status.Error(codes.Unimplemented, "errors are not streamed: read the node's log")
}
