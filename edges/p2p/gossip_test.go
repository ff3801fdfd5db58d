package p2p

import (
	"runtime"
	"slices"
	"strings"
	"testing"
)

// gossipsub makes a context for each stream that it opens, and forgets it: a stranger that comes and goes for days
// would fill the memory. Nothing of the peers that came is left when they are gone. It is not parallel: what the
// whole process allocated is looked at.
func TestPeersThatComeAndGoLeaveNothingInGossip(t *testing.T) {
	defer func(rate int) { runtime.MemProfileRate = rate }(runtime.MemProfileRate)
	runtime.MemProfileRate = 1
	hub := forgetful(t, loopbackConfig(t, "test"))
	hub.Register(Topic{Name: "t", MaxSize: 100}, new(inbox).handle)
	run(t, hub)
	b, _ := guest(t)
	const times = 20
	for range times {
		if err := b.Connect(t.Context(), hub.Addrs()[0]); err != nil {
			t.Fatal(err)
		}
		for _, h := range []*Host{hub, b} {
			within(t, patience, "both are in gossip", func() bool { return len(h.gossip.Load().pubsub.ListPeers("t")) == 1 })
		}
		b.libp2p.Network().ClosePeer(hub.ID())
		for _, h := range []*Host{hub, b} {
			within(t, patience, "both are gone", func() bool { return len(h.gossip.Load().pubsub.ListPeers("")) == 0 && len(h.Peers()) == 0 })
		}
	}
	if made, left := streamContexts(t); made < 2*times || left > times/2 {
		t.Errorf("gossip made %d contexts for streams, and %d are left", made, left)
	}
}

// streamContexts counts the contexts that gossipsub made for streams: all, and those that are held.
func streamContexts(t *testing.T) (made, held int64) {
	runtime.GC() // what is free is known after the second
	runtime.GC()
	records := make([]runtime.MemProfileRecord, 1<<17)
	n, ok := runtime.MemProfile(records, true)
	if !ok {
		t.Fatalf("%d records", n)
	}
	for _, r := range records[:n] {
		var names []string
		for frames := runtime.CallersFrames(r.Stack()); ; {
			f, more := frames.Next()
			names = append(names, f.Function)
			if !more {
				break
			}
		}
		if slices.Contains(names, "context.WithCancel") && slices.ContainsFunc(names, func(s string) bool { return strings.HasSuffix(s, ".(*PubSub).handleNewPeer") }) {
			made, held = made+r.AllocObjects, held+r.InUseObjects()
		}
	}
	return made, held
}
