package node

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tweedle/edges/p2p"
	"tweedle/edges/preset"
	"tweedle/proofs/post"
	"tweedle/proofs/posw"
	"tweedle/protocol/activation"
	"tweedle/protocol/core"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// stillLayer is the layer in which this process began: the second of epoch 2,
// in which the ATXs of epoch 1 count.
const stillLayer types.Layer = 9

// peer is somebody who sends messages, but whom nobody can ask anything.
const peer p2p.PeerID = "somebody"

// stillNetwork has one genesis for the whole process, so that all proofs are
// made once.
var stillNetwork = sync.OnceValue(func() preset.Network {
	layer := preset.Test().LayerDuration
	return preset.Network{
		Name: "still", Preset: "test", Genesis: time.Now().Add(-time.Duration(stillLayer)*layer - layer/5).Truncate(time.Second),
		Accounts: []preset.Account{{Address: vm.WalletAddress(richKey()).Bech32("stest"), Balance: 1000 * vm.Smidges}},
	}
})

func richSigner() *signing.Signer {
	s, err := signing.NewSigner(signing.SeedFrom("rich"), types.GenesisID{})
	if err != nil {
		panic(err)
	}
	return s
}

func richKey() types.NodeID { return richSigner().NodeID() }

// config is that of a node that talks to nobody.
func config(dir string) Config {
	return Config{Network: stillNetwork(), Dir: dir, Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, PeersPerAddress: 64}
}

// world is a node whose machine runs, and nothing else of it, and the smeshers
// of its network.
type world struct {
	*Node
	*material
	cfg Config
}

func openWorld(tb testing.TB, bootnodes ...string) *world {
	tb.Helper()
	w := &world{material: proofsOf(tb), cfg: config(filepath.Join(tb.TempDir(), "node"))}
	w.cfg.Bootnodes = bootnodes
	var err error
	if w.Node, err = Open(w.cfg); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.driver.loop(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("the machine's driver ended: %v", err)
		}
		w.Close()
	})
	return w
}

// says gives the node a gossip message and returns its verdict.
func (w *world) says(tb testing.TB, t core.Topic, raw []byte) string {
	tb.Helper()
	return w.onGossip(t)(soon(tb), peer, raw).String()
}

// wait waits until something holds that the machine comes to by itself.
func (w *world) wait(tb testing.TB, holds func(*core.Snapshot) bool) {
	tb.Helper()
	for until := time.Now().Add(20 * time.Second); !holds(w.snapshot.Load()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			tb.Fatalf("it does not come to it: %+v", w.snapshot.Load())
		}
	}
}

// soon bounds what handlers may take.
func soon(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

// miner is a smesher with its first ATX.
type miner struct {
	id  *signing.Signer
	atx *types.ATX
}

// material is what it takes real work to make.
type material struct {
	poet   types.PoetProofMessage
	miners []*miner
	// second is another valid ATX of the first miner in the same epoch.
	second *types.ATX
}

var made struct {
	once sync.Once
	material
	err error
}

// proofsOf returns the material of the still network, made once a process.
func proofsOf(tb testing.TB) *material {
	tb.Helper()
	made.once.Do(func() { made.err = made.material.make() })
	if made.err != nil {
		tb.Fatal(made.err)
	}
	return &made.material
}

// make plays four smeshers with real space and a PoET that worked for them.
func (m *material) make() error {
	dir, err := os.MkdirTemp("", "proofs")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	network := stillNetwork()
	p, err := network.Params()
	if err != nil {
		return err
	}
	rules := network.Activation(p)
	var members [][32]byte
	for _, name := range []string{"alice", "bob", "carol", "dave"} {
		id, err := signing.NewSigner(signing.SeedFrom(name), rules.Network)
		if err != nil {
			return err
		}
		space := post.Setup{NodeID: id.NodeID(), CommitmentATX: rules.Golden, NumUnits: p.Post.MinUnits}
		meta, err := post.Init(filepath.Join(dir, name), p.Post, space, post.InitOptions{})
		if err != nil {
			return err
		}
		initial, err := prove(filepath.Join(dir, name), types.PoetProofRef{}, p.Post)
		if err != nil {
			return err
		}
		a := &types.ATX{
			PublishEpoch: 1, PositioningATX: rules.Golden, Coinbase: types.Address{23: byte(len(m.miners) + 1)},
			Initial:  &types.InitialATX{CommitmentATX: rules.Golden, Post: initial},
			VRFNonce: *meta.Nonce, SmesherID: id.NodeID(),
		}
		c := activation.Challenge(a)
		members = append(members, c.Hash())
		m.miners = append(m.miners, &miner{id, a})
	}
	if m.poet, err = work(merkle.Root(members), 300, "7"); err != nil {
		return err
	}
	for i, miner := range m.miners {
		proof, err := prove(filepath.Join(dir, []string{"alice", "bob", "carol", "dave"}[i]), m.poet.Proof.Ref(), p.Post)
		if err != nil {
			return err
		}
		n := types.NIPost{NumMembers: uint64(len(members)), PoetProof: m.poet.Proof.Ref()}
		for _, h := range merkle.Proof(members, uint64(i)) {
			n.Membership = append(n.Membership, h)
		}
		n.Posts = []types.SubPost{{MembershipLeafIndex: uint64(i), Post: proof, NumUnits: p.Post.MinUnits}}
		miner.atx.NIPosts = []types.NIPost{n}
		miner.sign(miner.atx)
	}
	second := *m.miners[0].atx
	second.Coinbase = types.Address{23: 99}
	m.miners[0].sign(&second)
	m.second = &second
	return nil
}

func prove(dir string, challenge types.PoetProofRef, p post.Params) (types.PostProof, error) {
	data, err := post.Open(dir)
	if err != nil {
		return types.PostProof{}, err
	}
	proof, err := data.Prove(challenge, p, post.ProveOptions{})
	return types.PostProof{Nonce: proof.Nonce, Indices: proof.Indices, Pow: proof.Pow}, err
}

// work does the work of a PoET round.
func work(statement types.Hash32, leaves uint64, round string) (types.PoetProofMessage, error) {
	prover := posw.NewProver(statement[:], 4)
	kept := prover.Advance(leaves, nil)
	proof, err := prover.Prove(bytes.NewReader(kept), 1, nil)
	return types.PoetProofMessage{Proof: proof, PoetID: types.NodeID{42}, RoundID: round, Statement: statement}, err
}

func (m *miner) sign(a *types.ATX) {
	id := a.ID()
	a.Signature = m.id.Sign(signing.ATX, id[:])
}

// spawn is a transaction that is valid in the genesis state.
func (w *world) spawn(tb testing.TB, gasPrice uint64) types.Transaction {
	tb.Helper()
	s, err := signing.NewSigner(signing.SeedFrom("rich"), w.activation.Network)
	if err != nil {
		tb.Fatal(err)
	}
	return vm.Spawn(s, 0, gasPrice)
}

func copied(tb testing.TB, a *types.ATX) *types.ATX {
	tb.Helper()
	var b types.ATX
	if err := codec.Decode(codec.Encode(a), &b); err != nil {
		tb.Fatal(err)
	}
	return &b
}
