package beacon

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

func messages() map[string]*Message {
	k := keyOf(1, 1)
	proved := func(m *Message) *Message {
		m.Proof = k.VRF(m.Input())
		return m
	}
	sign := func(m *Message) *Message {
		m.Smesher, m.Target = k.id, 7
		if m.Kind == Toss {
			proved(m)
		}
		m.Signature = k.Sign(m.Domain(), m.SignedBytes())
		return m
	}
	return map[string]*Message{
		"proposal":       proved(&Message{Kind: Propose, Target: 7, Smesher: k.id, Nonce: 9}),
		"first vote":     sign(&Message{Kind: Vote, Yes: []Value{{1}, {2}}}),
		"following vote": sign(&Message{Kind: Vote, Round: 3, Yes: []Value{{1}, {5}}}),
		"coin":           sign(&Message{Kind: Toss, Round: 3, Unit: 2, Yes: []Value{{5}}, Nonce: 9}),
	}
}

func TestMessagesHaveOneEncoding(t *testing.T) {
	golden := map[string]string{
		"proposal": "45632cd517719b1d", "first vote": "8f9e55c2e7b31599", "following vote": "2df92f93df422e1d", "coin": "3d01a8c2c1336f30",
	}
	for name, m := range messages() {
		raw := codec.Encode(m)
		var back Message
		if err := codec.Decode(raw, &back); err != nil || !bytes.Equal(codec.Encode(&back), raw) {
			t.Errorf("%s does not come back: %v", name, err)
		}
		if err := back.Check(hashes{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if sum := types.Sum(raw); hex.EncodeToString(sum[:8]) != golden[name] {
			t.Errorf("%s is encoded as %x, its hash is %x", name, raw, sum[:8])
		}
		for n := range raw {
			if codec.Decode(raw[:n], &Message{}) == nil {
				t.Errorf("%s: %d of %d bytes are enough", name, n, len(raw))
			}
		}
	}
}

func TestTheLongestMessageFits(t *testing.T) {
	m := messages()["coin"]
	m.Target, m.Unit, m.Nonce, m.Yes = 1<<32-1, 1<<32-1, 1<<64-1, make([]Value, MaxProposals)
	if n := len(codec.Encode(m)); n != MaxMessageSize {
		t.Errorf("%d bytes, not %d", n, MaxMessageSize)
	}
	m.Yes = append(m.Yes, Value{1})
	if codec.Decode(codec.Encode(m), &Message{}) == nil {
		t.Error("more than MaxProposals were decoded")
	}
}

func TestVotesThatNoHonestSmesherSends(t *testing.T) {
	k := keyOf(1, 1)
	for name, c := range map[string]struct {
		m    *Message
		want error
	}{
		"not in order":    {&Message{Kind: Vote, Yes: []Value{{2}, {1}}}, ErrOrder},
		"one twice":       {&Message{Kind: Toss, Yes: []Value{{1}, {1}}}, ErrOrder},
		"of another":      {&Message{Kind: Vote, Round: 1, Smesher: types.NodeID{9}}, ErrSignature},
		"of other domain": {&Message{Kind: Vote, Round: 1, Smesher: k.id}, ErrSignature},
		"of other proof":  {&Message{Kind: Toss, Smesher: k.id}, ErrProof},
		"of other nonce":  {&Message{Kind: Propose, Smesher: k.id, Nonce: 2, Proof: k.VRF(proposalInput(0, 1))}, ErrProof},
	} {
		c.m.Signature = k.Sign(c.m.Domain(), c.m.SignedBytes())
		if name == "of other domain" {
			c.m.Signature = k.Sign(signing.BeaconFirst, c.m.SignedBytes())
		}
		if err := c.m.Check(hashes{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzMessagesFromTheNetworkAreBounded(f *testing.F) {
	for _, m := range messages() {
		f.Add(codec.Encode(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		if codec.Decode(b, &m) != nil {
			return
		}
		if !bytes.Equal(codec.Encode(&m), b) {
			t.Fatal("two encodings of one message")
		}
		w := newWorld(1, 3, 0)
		_ = m.Check(hashes{})
		for at := range 53 {
			for _, k := range w.keys { // never panics, from whomever it is
				m.Smesher, m.Target = k.id, 5
				_ = w.nodes[0].Hear(w.p.Duration()*time.Duration(at)/52, &m)
			}
		}
		w.nodes[0].Step(w.p.Duration())
	})
}
