package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"tweedle/base/telemetry"
	"tweedle/edges/front"
)

// twoPeers has one peer with two sessions, one with one, and one that left.
func twoPeers() telemetry.Peers {
	return telemetry.Peers{
		ID: "us", Reached: true, Addrs: []string{"/ip4/5.0.0.1/udp/7513/quic-v1/p2p/us"}, Limit: 64,
		Sessions: []telemetry.PeerSession{
			{Peer: "a", Addr: "/ip4/5.0.0.2/udp/1/quic-v1", Direction: "in", Since: "2026-11-27T11:00:00Z", State: "useful", Used: "2026-11-27T11:59:57Z", BytesIn: 10, BytesOut: 1, Score: 1.25},
			{Peer: "b", Addr: "/ip4/5.0.0.3/udp/1/quic-v1", Direction: "out", Since: "2026-11-27T11:30:00Z", State: "chosen", Used: "2026-11-27T11:30:00Z", BytesIn: 20, BytesOut: 2},
			{Peer: "a", Addr: "/ip4/5.0.0.2/udp/2/quic-v1", Direction: "out", Since: "2026-11-27T11:45:00Z", State: "useful", Used: "2026-11-27T11:59:57Z", BytesIn: 40, BytesOut: 4, Score: 1.25},
		},
		Left: []telemetry.PeerLeft{{Peer: "c", Direction: "in", Since: "2026-11-27T10:00:00Z", At: "2026-11-27T10:30:00Z", Reason: "silent"}},
	}
}

// dialAdmin serves the admin API of a ledger and connects to it with its token.
func dialAdmin(t *testing.T) *grpc.ClientConn {
	t.Helper()
	tokens := filepath.Join(t.TempDir(), front.TokenFile)
	a := check[*front.Admin](t)(NewAdmin(tokens, &ledger{t: t}, Limits{}, front.Options{}))
	l, err := front.ListenLocal("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx, l) }()
	conn := check[*grpc.ClientConn](t)(front.DialAdmin(l.Addr().String(), tokens))
	t.Cleanup(func() {
		_ = conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return conn
}

// The ecosystem's calls tell what `tweedle node peers` shows: each session once, and why the last left.
func TestTheOperatorIsToldOfPeers(t *testing.T) {
	conn := dialAdmin(t)
	info := check[*spacemesh.NetworkInfoResponse](t)(spacemesh.NewDebugServiceClient(conn).NetworkInfo(deadline(t), &emptypb.Empty{}))
	if s := info.Stats["sessions"]; info.Reachability != spacemesh.NetworkInfoResponse_Public || info.Id != "us" || fmt.Sprint(info.ListenAddresses) != fmt.Sprint(twoPeers().Addrs) || s.GetBytesReceived() != 70 || s.GetBytesSent() != 7 {
		t.Errorf("%v", info)
	}
	stream := check[grpc.ServerStreamingClient[spacemesh.PeerInfo]](t)(spacemesh.NewAdminServiceClient(conn).PeerInfoStream(deadline(t), &emptypb.Empty{}))
	var got []*spacemesh.PeerInfo
	for {
		p, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p)
	}
	if len(got) != 3 || got[0].Id != "a" || got[1].Id != "b" || got[2].Id != "c" {
		t.Fatalf("%v", got)
	}
	a, b, c := got[0], got[1], got[2]
	if len(a.Connections) != 2 || a.Connections[0].Outbound || !a.Connections[1].Outbound || a.Connections[1].Kind != spacemesh.ConnectionInfo_Outbound ||
		a.BytesReceived != 50 || a.BytesSent != 5 || !slices.Contains(a.Tags, "state:useful") || !slices.Contains(a.Tags, "score:1.2") || !slices.Contains(a.Tags, "used:2026-11-27T11:59:57Z") {
		t.Errorf("%v", a)
	}
	since := check[time.Time](t)(time.Parse(time.RFC3339, "2026-11-27T11:30:00Z"))
	if len(b.Connections) != 1 || b.Connections[0].Address != "/ip4/5.0.0.3/udp/1/quic-v1" || (time.Since(since)-b.Connections[0].Uptime.AsDuration()).Abs() > time.Minute {
		t.Errorf("%v", b)
	}
	if len(c.Connections) != 0 || !slices.Contains(c.Tags, "left:silent") || !slices.Contains(c.Tags, "at:2026-11-27T10:30:00Z") {
		t.Errorf("%v", c)
	}
}
