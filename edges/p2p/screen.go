package p2p

import (
	"time"

	"tweedle/base/telemetry"
)

// Screen tells with whom the host is connected, and why others left. It may be called from any goroutine.
func (h *Host) Screen() telemetry.Peers {
	direction := func(inbound bool) string {
		if inbound {
			return "in"
		}
		return "out"
	}
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	now, left, limit := h.Sessions()
	p := telemetry.Peers{ID: h.id.String(), Addrs: h.Addrs(), Reached: h.Reached(), Limit: limit, Sessions: []telemetry.PeerSession{}, Left: []telemetry.PeerLeft{}}
	for _, s := range now {
		p.Sessions = append(p.Sessions, telemetry.PeerSession{
			Peer: s.Peer.String(), Addr: s.Addr.String(), Direction: direction(s.Inbound), Since: stamp(s.Since),
			State: s.State, Used: stamp(s.Used), BytesIn: s.In, BytesOut: s.Out, Score: s.Score,
		})
	}
	for _, l := range left {
		p.Left = append(p.Left, telemetry.PeerLeft{Peer: l.Peer.String(), Direction: direction(l.Inbound), Since: stamp(l.Since), At: stamp(l.At), Reason: l.Reason})
	}
	return p
}
