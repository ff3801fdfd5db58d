package p2p

import (
	"context"
	"net/netip"
	"testing"
)

// An eighth of the handshakes may be of one block; each limit has its name and gives way again.
func TestHandshakesAreBoundedByBlockAndInAll(t *testing.T) {
	o := halfOpen{limit: 16, blocks: make(map[netip.Prefix]int)}
	block := func(i byte) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{5, 0, i, 0}), 24) }
	ctx, cancel := context.WithCancel(t.Context())
	var leaves []func()
	for i := range byte(8) {
		for k := range 3 {
			leave, err := o.enter(ctx, block(i))
			if (err != nil) != (k == 2) || err != nil && i < 7 && err.reason != RefusedBlock {
				t.Fatalf("the %dth of block %d: %v", k, i, err)
			}
			if leave != nil {
				leaves = append(leaves, leave)
			}
		}
	}
	if _, err := o.enter(ctx, block(9)); err == nil || err.reason != RefusedOpening {
		t.Errorf("the 17th: %v", err)
	}
	leaves[0]()
	leaves[0]() // counts once
	if _, err := o.enter(ctx, block(0)); err != nil {
		t.Error(err)
	}
	cancel()
	within(t, patience, "all have left", func() bool { return o.count() == 0 })
	if len(o.blocks) != 0 {
		t.Errorf("blocks are kept: %v", o.blocks)
	}
}
