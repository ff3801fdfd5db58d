package node

import (
	"bytes"
	"errors"
	"testing"

	"tweedle/edges/api"
	"tweedle/edges/store"
	"tweedle/protocol/core"
	"tweedle/values/bounded"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// The gateway of a node without peers never acknowledges, but keeps what is
// valid; nothing else is kept.
func TestAGatewayTakesOnlyValidProofs(t *testing.T) {
	w := openWorld(t)
	w.wait(t, func(s *core.Snapshot) bool { return s.Synced })
	spoilt := func(change func(*types.PoetProofMessage)) []byte {
		m := w.poet
		change(&m)
		return codec.Encode(&m)
	}
	good := codec.Encode(&w.poet)
	for _, tc := range []struct {
		name  string
		data  []byte
		want  error
		known bool
	}{
		{"nothing", nil, api.ErrInvalidProof, false},
		{"cut off", good[:len(good)/2], api.ErrInvalidProof, false},
		{"something after it", append(bytes.Clone(good), 0), api.ErrInvalidProof, false},
		{"another statement", spoilt(func(m *types.PoetProofMessage) { m.Statement[31]++ }), api.ErrInvalidProof, false},
		{"less than a tick", spoilt(func(m *types.PoetProofMessage) { m.Proof.NumLeaves = w.params.TickSize - 1 }), api.ErrInvalidProof, false},
		{"more work than it shows", spoilt(func(m *types.PoetProofMessage) { m.Proof.NumLeaves *= 2 }), api.ErrInvalidProof, false},
		{"more work than there was time for", spoilt(func(m *types.PoetProofMessage) { m.Proof.NumLeaves = 1 << 62 }), api.ErrInvalidProof, false},
		{"valid", good, errNoPeers, false},
		{"known", good, errNoPeers, true},
		{"known, of another statement", spoilt(func(m *types.PoetProofMessage) { m.Statement[0]++ }), api.ErrInvalidProof, false},
	} {
		out, err := w.PublishPoet(soon(t), tc.data)
		if !errors.Is(err, tc.want) || out.Known != tc.known || out.Peers != 0 {
			t.Errorf("%s: %+v, %v, want %v", tc.name, out, err, tc.want)
		}
		if errors.Is(tc.want, api.ErrInvalidProof) != errors.Is(err, api.ErrInvalidProof) {
			t.Errorf("%s: the PoET cannot tell whether to try again: %v", tc.name, err)
		}
		stored, err := w.PoetProof(w.poet.Proof.Ref())
		if kept := tc.want == errNoPeers || tc.name == "known, of another statement"; kept && !bytes.Equal(stored, good) || !kept && !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: stored %d bytes, %v", tc.name, len(stored), err)
		}
	}
}

func TestANodeThatIsNotSyncedIsNoGateway(t *testing.T) {
	w := openWorld(t, "/ip4/127.0.0.1/udp/1/quic-v1/p2p/12D3KooWGRUcMsGP5zXb1Uo1jVFUzBCeYxyKAaMhu1Ns7fVUsT3d")
	_, err := w.PublishPoet(soon(t), codec.Encode(&w.poet))
	if !errors.Is(err, errNotSynced) || !errors.Is(err, api.ErrNotReady) {
		t.Errorf("%v", err)
	}
	if _, err := w.PoetProof(w.poet.Proof.Ref()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the proof is stored: %v", err)
	}
}

func TestAPeerThatHandsAProofOverLearnsWhetherItWasKnown(t *testing.T) {
	w := openWorld(t)
	for _, known := range []bool{false, true} {
		b, err := w.servePoet(soon(t), peer, codec.Encode(&w.poet))
		var answer poetAnswer
		if err != nil || codec.Decode(b, &answer) != nil || answer.known != known {
			t.Errorf("known %v: answer %x, %v", known, b, err)
		}
	}
	bad := w.poet
	bad.Statement[0]++
	if _, err := w.servePoet(soon(t), peer, codec.Encode(&bad)); !errors.Is(err, api.ErrInvalidProof) {
		t.Errorf("another statement: %v", err)
	}
	if _, err := w.servePoet(soon(t), peer, nil); !errors.Is(err, errPoetForm) {
		t.Errorf("nothing: %v", err)
	}
}

func TestHandOversAreRememberedUpToALimit(t *testing.T) {
	h := handedOver{peers: bounded.New[types.PoetProofRef, int](maxHandedOver)}
	ref := func(i int) types.PoetProofRef { return types.PoetProofRef{byte(i), byte(i >> 8)} }
	for i := range 2 * maxHandedOver {
		h.most(ref(i), 3)
		h.most(ref(i), 1) // fewer later does not undo it
	}
	if h.peers.Len() != maxHandedOver {
		t.Fatalf("%d are remembered, the limit is %d", h.peers.Len(), maxHandedOver)
	}
	if h.most(ref(0), 0) != 0 || h.most(ref(maxHandedOver), 0) != 3 || h.most(ref(2*maxHandedOver-1), 0) != 3 {
		t.Error("not the oldest were forgotten")
	}
}
