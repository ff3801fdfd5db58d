package node

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tweedle/edges/p2p"
	"tweedle/edges/preset"
	"tweedle/edges/store"
	"tweedle/proofs/post"
	"tweedle/protocol/core"
	"tweedle/protocol/malfeasance"
	"tweedle/protocol/syncer"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

func TestWhatIsMalformedIsRefusedOnEveryTopic(t *testing.T) {
	w := openWorld(t)
	for _, topic := range core.Topics() {
		for _, raw := range [][]byte{nil, {1, 2, 3}, make([]byte, topic.MaxSize()), make([]byte, topic.MaxSize()+1)} {
			if got := w.says(t, topic, raw); got != "reject" {
				t.Errorf("%s of %d bytes: %s", topic, len(raw), got)
			}
		}
	}
}

// Gossip brings a message once: a machine that is too busy to check it for longer
// than a verdict is waited for has not lost it.
func TestAMessageThatWaitsLongForItsCheckCounts(t *testing.T) {
	w := openWorld(t)
	leave, ok := w.driver.checks.enter(soon(t), core.Peer(peer))
	if !ok {
		t.Fatal("no turn")
	}
	judged := make(chan string, 1)
	go func() { judged <- w.onGossip(core.TopicTx)(soon(t), peer, w.spawn(t, 1)).String() }()
	select {
	case v := <-judged:
		t.Errorf("%s before its turn", v)
	case <-time.After(w.patience(core.TopicTx) + 50*time.Millisecond):
	}
	leave()
	w.wait(t, func(s *core.Snapshot) bool { return s.Waiting == 1 })
}

func TestGossipedATXs(t *testing.T) {
	w := openWorld(t)
	first := w.miners[0].atx
	forged := copied(t, first)
	forged.Coinbase[23]++
	waited := make(chan string, 1)
	go func() { waited <- w.onGossip(core.TopicATX)(soon(t), peer, codec.Encode(w.miners[3].atx)).String() }()
	w.wait(t, func(s *core.Snapshot) bool { return s.Parked == 1 })
	for _, tc := range []struct {
		name  string
		topic core.Topic
		raw   []byte
		want  string
	}{
		{"a PoET proof", core.TopicPoet, codec.Encode(&w.poet), "accept"},
		{"a valid one", core.TopicATX, codec.Encode(first), "accept"},
		{"the same again", core.TopicATX, codec.Encode(first), "ignore"},
		{"with another's signature", core.TopicATX, codec.Encode(forged), "reject"},
		{"a second one of its smesher", core.TopicATX, codec.Encode(w.second), "accept"},
		{"of another smesher", core.TopicATX, codec.Encode(w.miners[1].atx), "accept"},
	} {
		if got := w.says(t, tc.topic, tc.raw); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
	// Both are kept, for those who build on one of them, and their smesher is caught.
	for _, a := range []*types.ATX{first, w.second} {
		if _, err := w.db.ATXRecord(a.ID()); err != nil {
			t.Errorf("%v", err)
		}
	}
	evil, err := store.Core{Reader: w.db.Reader}.Malicious()
	if err != nil || len(evil) != 1 || evil[first.SmesherID].IsZero() {
		t.Errorf("malicious: %v, %v", evil, err)
	}
	body, err := store.Core{Reader: w.db.Reader}.Object(syncer.Name{Kind: syncer.Malfeasance, ID: first.SmesherID})
	var proof malfeasance.Proof
	if err != nil || codec.Decode(body, &proof) != nil || proof.Check(signing.NewVerifier(w.activation.Network)) != nil {
		t.Errorf("the proof that is served convinces nobody: %v", err)
	}
	// The one that waited for the PoET proof came through by itself.
	if got := <-waited; got != "accept" {
		t.Errorf("before its PoET proof is known: %s", got)
	}
	w.wait(t, func(*core.Snapshot) bool {
		_, err := w.db.ATXRecord(w.miners[3].atx.ID())
		return err == nil
	})
}

// One wrong label of many: some nodes find it, most do not. Whoever does takes
// the smesher's weight with a proof, and blames nobody who passed the ATX on.
func TestAWrongLabelCostsItsSmesherAndNobodyElse(t *testing.T) {
	bad, ordinal := oneWrongLabel(t)
	found := 0
	for runs := 0; runs < 5 || found == 0; runs++ { // each node looks at other labels
		w := openWorld(t)
		if got := w.says(t, core.TopicPoet, codec.Encode(&w.poet)); got != "accept" {
			t.Fatal(got)
		}
		got := w.says(t, core.TopicATX, codec.Encode(bad))
		if got == "reject" {
			t.Error("who passed it on is blamed")
		}
		if got != "accept" {
			found++
		}
		if _, err := w.db.ATXRecord(bad.ID()); err != nil {
			t.Errorf("what others build on is not known here: %v", err)
		}
		proof := &malfeasance.Proof{Kind: malfeasance.InvalidPost, Smesher: bad.SmesherID, ATX: bad, Ordinal: ordinal}
		if got := w.says(t, core.TopicMalfeasance, codec.Encode(proof)); got == "reject" {
			t.Error("the proof is refused")
		}
		evil, err := store.Core{Reader: w.db.Reader}.Malicious()
		if err != nil || evil[bad.SmesherID].IsZero() {
			t.Errorf("its smesher is not known as malicious: %v, %v", evil, err)
		}
		proof.Ordinal++
		proof.Smesher, proof.ATX = w.miners[1].atx.SmesherID, w.miners[1].atx
		if got := w.says(t, core.TopicMalfeasance, codec.Encode(proof)); got != "reject" {
			t.Errorf("an honest smesher's labels: %s", got)
		}
	}
	t.Logf("%d nodes found the label", found)
}

// oneWrongLabel is an ATX of which one label does not pass, and its place.
func oneWrongLabel(t *testing.T) (*types.ATX, uint32) {
	t.Helper()
	m := proofsOf(t)
	network := stillNetwork()
	p, err := network.Params()
	if err != nil {
		t.Fatal(err)
	}
	rules, miner := network.Activation(p), m.miners[2]
	sub := miner.atx.NIPosts[0].Posts[0]
	meta := post.ProofMetadata{
		NodeID: miner.id.NodeID(), CommitmentATX: rules.Golden, NumUnits: sub.NumUnits, Challenge: miner.atx.NIPosts[0].PoetProof,
	}
	for bit := range 8 * len(sub.Post.Indices) {
		bad := copied(t, miner.atx)
		indices := bad.NIPosts[0].Posts[0].Post.Indices
		indices[bit/8] ^= 1 << (bit % 8)
		wrong := []int(nil)
		for o := range int(rules.Post.K2) {
			if post.Verify(post.Proof{Nonce: sub.Post.Nonce, Indices: indices, Pow: sub.Post.Pow}, meta, rules.Post, post.One(o)) != nil {
				wrong = append(wrong, o)
			}
		}
		if len(wrong) == 1 {
			miner.sign(bad)
			return bad, uint32(wrong[0])
		}
	}
	t.Fatal("no bit makes exactly one label wrong")
	return nil, 0
}

func TestTransactionsOfUsersAndPeers(t *testing.T) {
	w := openWorld(t)
	good := w.spawn(t, 2)
	if err := w.SubmitTransaction(soon(t), good); err != nil {
		t.Fatal(err)
	}
	// It waits in memory, and peers who ask get it from there.
	if _, err := w.db.Transaction(good.ID()); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("a transaction that waits is stored: %v", err)
	}
	request := core.Request{Objects: []syncer.Name{{Kind: syncer.Transaction, ID: good.ID()}}}
	var answer core.ObjectsAnswer
	if raw, err := w.serveAsk(soon(t), peer, codec.Encode(&request)); err != nil || codec.Decode(raw, &answer) != nil || !bytes.Equal(answer[0], good) {
		t.Fatalf("peers get %x, %v", answer, err)
	}
	bad := w.spawn(t, 3)
	bad[len(bad)-1] ^= 1
	if err := w.SubmitTransaction(soon(t), bad); !errors.Is(err, vm.ErrSignature) {
		t.Errorf("a wrong signature: %v", err)
	}
	if err := w.SubmitTransaction(soon(t), types.Transaction{1, 2}); !errors.Is(err, vm.ErrMalformed) {
		t.Errorf("no transaction: %v", err)
	}
	for name, tc := range map[string]struct {
		raw  types.Transaction
		want string
	}{
		"known":           {good, "ignore"},
		"wrong signature": {bad, "reject"},
		"a higher price":  {w.spawn(t, 4), "accept"},
	} {
		if got := w.says(t, core.TopicTx, tc.raw); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
	nonce, balance, err := w.Projected(t.Context(), vm.WalletAddress(richKey()))
	if err != nil || nonce != 1 || balance >= 1000*vm.Smidges {
		t.Errorf("projected nonce %d, balance %d, %v", nonce, balance, err)
	}
	if n := w.Status().Mempool; n != 1 {
		t.Errorf("%d transactions wait", n)
	}
}

// A disk that fails once ends the node: it must not go on with a machine that
// is ahead of what is stored.
func TestAClosedDatabaseEndsTheNode(t *testing.T) {
	w := &world{material: proofsOf(t), cfg: config(t.TempDir())}
	var err error
	if w.Node, err = Open(w.cfg); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.Run(t.Context()) }()
	<-w.host.Running()
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(soon(t))
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		w.onGossip(core.TopicPoet)(ctx, peer, codec.Encode(&w.poet)) // nobody may be left to answer
	}()
	if err := <-done; err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("the node ended with %v", err)
	}
	cancel()
	<-asked
}

// What waits for a block waits over a restart.
func TestWhatWaitsWaitsOverARestart(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "node"))
	for i := range 3 {
		n, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := n.Status().Mempool; got != min(i, 1) {
			t.Errorf("start %d: %d transactions wait", i, got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.driver.loop(ctx) }()
		w := world{Node: n}
		if err := n.SubmitTransaction(soon(t), w.spawn(t, 2)); (err == nil) != (i == 0) {
			t.Errorf("start %d: %v", i, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		n.Close()
	}
}

// A user who sends more transactions than can be gossiped takes no place of what the
// node says for the protocol, and that goes first.
func TestUsersTransactionsDoNotDelayOurOwnMessages(t *testing.T) {
	w := openWorld(t)
	for i := range 2 * maxSends {
		w.send(core.TopicTx, []byte{byte(i)})
	}
	w.send(core.TopicDecision, []byte("signed"))
	s, ok := w.nextSend(t.Context())
	if !ok || string(s.msg) != "signed" {
		t.Errorf("the next message is %q", s.msg)
	}
	if len(w.txs) != maxSends {
		t.Errorf("%d transactions wait", len(w.txs))
	}
}

// A layer has two seconds in some networks and five minutes in others. What a message, a
// question and the list of peers are waited for is a part of it, and bounded.
func TestTimesFollowTheLayers(t *testing.T) {
	for _, layer := range []time.Duration{2 * time.Second, 15 * time.Second, 5 * time.Minute} {
		n := &Node{params: preset.Params{LayerDuration: layer}}
		for name, got := range map[string]time.Duration{
			"a proposal": n.patience(core.TopicProposal), "a signature": n.patience(core.TopicDecision), "a transaction": n.patience(core.TopicTx), "the peers": n.peersEvery(),
		} {
			if got <= 0 || got > layer/8 || got > time.Second {
				t.Errorf("layers of %v: %s is waited for %v", layer, name, got)
			}
		}
		if got := n.patience(core.TopicATX); got <= 0 || got > layer || got > p2p.DefaultTopicTimeout {
			t.Errorf("layers of %v: an ATX is waited for %v", layer, got)
		}
		if got := n.askTimeout(); got < time.Second || got > max(layer/2, time.Second) || got > 10*time.Second {
			t.Errorf("layers of %v: an answer is waited for %v", layer, got)
		}
	}
}
