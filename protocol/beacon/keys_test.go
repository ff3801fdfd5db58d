package beacon

import (
	"testing"
	"time"

	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

type verifier struct{ signing.Verifier }

func (verifier) VerifyVRF(id types.NodeID, msg []byte, sig types.VRFSignature) bool {
	return signing.VerifyVRF(id, msg, sig)
}

// With real keys: what one machine says is what another one can check.
func TestRealKeys(t *testing.T) {
	network := types.GenesisID{7}
	keysOf := verifier{signing.NewVerifier(network)}
	p := Params{time.Second, 2}
	var keys []*signing.Signer
	var members []Member
	for i := range 3 {
		seed := types.Sum([]byte{byte(i)})
		k, err := signing.NewSigner(seed[:], network)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
		members = append(members, Member{k.NodeID(), 10, 2, uint64(i), true})
	}
	var nodes []*Machine
	for i := range keys {
		nodes = append(nodes, New(p, 5, members, []Identity{keys[i]}, 0))
	}
	nodes = append(nodes, New(p, 5, members, nil, 0)) // it only listens
	said := map[Kind]int{}
	for !nodes[0].Done() {
		now, _ := nodes[0].Next()
		var all []*Message
		for _, m := range nodes {
			all = append(all, m.Step(now)...)
		}
		for _, sent := range all {
			var msg Message
			if err := codec.Decode(codec.Encode(sent), &msg); err != nil {
				t.Fatal(err)
			}
			if err := msg.Check(keysOf); err != nil {
				t.Fatal(err)
			}
			said[msg.Kind]++
			for i, m := range nodes {
				if err := m.Hear(now, &msg); err != nil {
					t.Fatalf("node %d, kind %d: %v", i, msg.Kind, err)
				}
			}
		}
	}
	for i, m := range nodes {
		if got, known := m.Result(); !known || len(got) != 3 {
			t.Errorf("node %d has %v (%v)", i, got, known)
		}
	}
	if said[Propose] != 3 || said[Vote] != 9 || said[Toss] != 0 { // no dispute, no coin
		t.Errorf("said %v", said)
	}
}

func TestTheSameSeedIsTheSameRun(t *testing.T) {
	for seed := range uint64(5) {
		var got [2]types.Beacon
		var order [2]int
		for i := range got {
			w := newWorld(seed, 9, 3)
			w.sends = lies["draws by lot"]
			w.run()
			got[i], _ = w.agreed()
			order[i] = w.order
		}
		if got[0] != got[1] || order[0] != order[1] {
			t.Errorf("seed %d: %s after %d messages, then %s after %d", seed, got[0], order[0], got[1], order[1])
		}
	}
}
