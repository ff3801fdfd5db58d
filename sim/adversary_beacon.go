package sim

import (
	"bytes"
	"slices"
	"time"

	"tweedle/protocol/beacon"
	"tweedle/protocol/core"
	"tweedle/values/codec"
)

// said returns the message of the beacon in what a node signs, nil if it is another.
func said(s core.Sign) *beacon.Message {
	m, _ := core.Content(s.Message).(*beacon.Message)
	return m
}

// tell brings a message of the beacon to the peers of one half, or of both.
func (n *node) tell(m *beacon.Message, to func(i int) bool) {
	n.acted = true
	for i, o := range n.links {
		if to(i) {
			n.push(o, core.TopicBeacon, codec.Encode(m))
		}
	}
}

func all(int) bool      { return true }
func evens(i int) bool  { return i%2 == 0 }
func others(i int) bool { return i%2 == 1 }

// beaconWithheld proposes and then says nothing: neither votes nor coins.
type beaconWithheld struct{ honesty }

func (*beaconWithheld) signs(n *node, s core.Sign) bool {
	m := said(s)
	n.acted = n.acted || m != nil && m.Kind != beacon.Propose
	return m != nil && m.Kind != beacon.Propose
}

// beaconLate says all at the end of its phase, so that it is in time for some.
type beaconLate struct{ honesty }

func (*beaconLate) signs(n *node, s core.Sign) bool {
	m := said(s)
	if m != nil {
		phases := time.Duration(1)
		if m.Kind == beacon.Propose {
			phases = 2
		}
		n.w.after(phases*n.w.cfg.Beacon.Phase-20*time.Millisecond, func() { n.tell(m, all) })
	}
	return m != nil
}

// beaconSplit votes and leads one way to one half and another way to the other, and proposes to one.
type beaconSplit struct{ honesty }

func (*beaconSplit) signs(n *node, s core.Sign) bool {
	m := said(s)
	if m == nil {
		return false
	}
	n.tell(m, evens)
	second := *m
	if m.Kind == beacon.Propose {
		return true
	}
	second.Yes = slices.Clone(m.Yes[:len(m.Yes)/2])
	second.Signature = n.key.Sign(second.Domain(), second.SignedBytes())
	n.tell(&second, others)
	return true
}

// beaconTwoFaces proposes to one half at once, and to the other when that is nearly too late.
type beaconTwoFaces struct{ honesty }

func (*beaconTwoFaces) signs(n *node, s core.Sign) bool {
	m := said(s)
	if m == nil || m.Kind != beacon.Propose {
		return false
	}
	n.tell(m, evens)
	n.w.after(2*n.w.cfg.Beacon.Phase-20*time.Millisecond, func() { n.tell(m, others) })
	return true
}

// beaconGround proposes and tosses the lowest that any of many nonces gives, instead of what its own does.
type beaconGround struct{ honesty }

func (*beaconGround) signs(n *node, s core.Sign) bool {
	m := said(s)
	if m == nil || m.Kind == beacon.Vote {
		return false
	}
	liked := *m
	for nonce := range uint64(100) {
		try := *m
		try.Nonce += 1 + nonce
		if try.Proof = n.key.VRF(try.Input()); nonce == 0 || bytes.Compare(try.Proof[:], liked.Proof[:]) < 0 {
			liked = try
		}
	}
	if m.Kind == beacon.Toss {
		liked.Signature = n.key.Sign(liked.Domain(), liked.SignedBytes())
	}
	n.tell(&liked, all)
	return true
}
