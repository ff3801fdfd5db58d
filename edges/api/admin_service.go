package api

import (
	"context"
	"fmt"
	"time"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"tweedle/base/telemetry"
	"tweedle/edges/front"
)

// adminMethods are the methods of the admin listener. The others of these services
// change a node, or tell what the public services tell too.
func adminMethods() map[string]bool {
	return map[string]bool{
		spacemesh.DebugService_NetworkInfo_FullMethodName:    true,
		spacemesh.AdminService_PeerInfoStream_FullMethodName: true,
	}
}

// NewAdmin returns the API of a node's operator, which asks for a token of the file.
func NewAdmin(tokenFile string, n Node, l Limits, o front.Options) (*front.Admin, error) {
	if l == (Limits{}) {
		l = DefaultLimits()
	}
	return front.NewAdmin(tokenFile, adminMethods(), l.Limits, o, func(s grpc.ServiceRegistrar) {
		spacemesh.RegisterDebugServiceServer(s, debugService{node: n})
		spacemesh.RegisterAdminServiceServer(s, adminService{node: n})
	})
}

// debugService is spacemesh.v1.DebugService, as far as it tells of peers.
type debugService struct {
	spacemesh.UnimplementedDebugServiceServer
	node Node
}

// NetworkInfo tells who and where we are, and the bytes of all sessions that last.
func (s debugService) NetworkInfo(context.Context, *emptypb.Empty) (*spacemesh.NetworkInfoResponse, error) {
	p := s.node.Peers()
	all := &spacemesh.DataStats{}
	for _, one := range p.Sessions {
		all.BytesReceived += one.BytesIn
		all.BytesSent += one.BytesOut
	}
	reachable := spacemesh.NetworkInfoResponse_ReachabilityUnknown
	if p.Reached {
		reachable = spacemesh.NetworkInfoResponse_Public
	}
	return &spacemesh.NetworkInfoResponse{
		Reachability: reachable,
		Id:           p.ID, ListenAddresses: p.Addrs, KnownAddresses: p.Addrs, Stats: map[string]*spacemesh.DataStats{"sessions": all},
	}, nil
}

// adminService is spacemesh.v1.AdminService, as far as it tells of peers.
type adminService struct {
	spacemesh.UnimplementedAdminServiceServer
	node Node
}

// PeerInfoStream sends each peer with its sessions, the oldest first, and after them
// those that left, the newest first, without any; tags say the rest in words of
// telemetry.Peers, as in "state:useful" and "left:silent". It ends with the last.
func (s adminService) PeerInfoStream(_ *emptypb.Empty, out grpc.ServerStreamingServer[spacemesh.PeerInfo]) error {
	for _, info := range peerInfos(s.node.Peers(), time.Now()) {
		if err := out.Send(info); err != nil {
			return err
		}
	}
	return nil
}

func peerInfos(p telemetry.Peers, now time.Time) (infos []*spacemesh.PeerInfo) {
	of := make(map[string]*spacemesh.PeerInfo)
	for _, one := range p.Sessions {
		info := of[one.Peer]
		if info == nil {
			info = &spacemesh.PeerInfo{Id: one.Peer, Tags: []string{
				"state:" + one.State, "used:" + one.Used, fmt.Sprintf("score:%.1f", one.Score),
			}}
			of[one.Peer] = info
			infos = append(infos, info)
		}
		kind := spacemesh.ConnectionInfo_Inbound
		if one.Direction == "out" {
			kind = spacemesh.ConnectionInfo_Outbound
		}
		since, _ := time.Parse(time.RFC3339, one.Since) // the host's own
		info.Connections = append(info.Connections, &spacemesh.ConnectionInfo{
			Address: one.Addr, Uptime: durationpb.New(now.Sub(since)), Outbound: one.Direction == "out", Kind: kind,
		})
		info.BytesReceived += one.BytesIn
		info.BytesSent += one.BytesOut
	}
	for _, l := range p.Left {
		infos = append(infos, &spacemesh.PeerInfo{Id: l.Peer, Tags: []string{
			"left:" + l.Reason, "at:" + l.At, "since:" + l.Since, "direction:" + l.Direction,
		}})
	}
	return infos
}
