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
	"tweedle/protocol/eligibility"
	"tweedle/protocol/hare"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// stillLayer is the layer in which time stands still: not the first of its
// epoch, so that there are layers of the epoch before and after it.
const stillLayer types.Layer = 9

// peer is somebody who sends messages, but whom nobody can ask anything.
const peer p2p.PeerID = "somebody"

// world is a node whose layers last for months, so that the clock stands in
// the middle of stillLayer, and the smeshers of its network.
type world struct {
	*Node
	*material
	cfg Config
}

// stillNetwork has a fixed genesis, so that all proofs can be made once.
func stillNetwork() preset.Network {
	return preset.Network{
		Name: "still", Preset: "test", Genesis: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC),
		Accounts: []preset.Account{{Address: vm.WalletAddress(richKey()).Bech32("stest"), Balance: 1000 * vm.Smidges}},
	}
}

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
	return Config{Network: stillNetwork(), Dir: dir, Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}}
}

// openWorld opens a node of the still network without peers and ATXs.
func openWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{material: proofsOf(tb), cfg: config(filepath.Join(tb.TempDir(), "node"))}
	var err error
	if w.Node, err = Open(w.cfg); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.Close)
	// Nothing has run yet, so nobody sees these fields change.
	sinceGenesis := time.Since(w.schedule.Genesis)
	w.schedule.LayerDuration = sinceGenesis * 2 / (2*time.Duration(stillLayer) + 1)
	w.params.LayerDuration, w.params.ProposalWindow = w.schedule.LayerDuration, w.schedule.LayerDuration*3/4
	w.layer = stillLayer
	w.agreement = hare.NewInTime(w.schedule, w.params.ProposalWindow, stillLayer-1)
	w.certifier = hare.NewCertifier(w.schedule.FirstBallotLayer())
	if got := w.schedule.LayerAt(time.Now()); got != stillLayer {
		tb.Fatalf("the clock stands in layer %d, not %d", got, stillLayer)
	}
	return w
}

// populated is openWorld with the ATXs that count in the epoch of stillLayer.
func populated(tb testing.TB) *world {
	tb.Helper()
	w := openWorld(tb)
	w.populate(tb)
	return w
}

func (w *world) populate(tb testing.TB) {
	tb.Helper()
	if _, err := w.addPoet(&w.poet); err != nil {
		tb.Fatal(err)
	}
	for _, m := range w.miners {
		if _, err := w.addATX(m.atx); err != nil {
			tb.Fatal(err)
		}
	}
	w.drain()
}

// drain throws away what the loop was told, while it does not run.
func (w *world) drain() {
	for len(w.inputs) > 0 {
		<-w.inputs
	}
}

// runLoop runs the owner of the consensus state, and nothing else of the node.
func (w *world) runLoop(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.loop(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("the loop ended: %v", err)
		}
	})
}

// soon bounds what handlers may take.
func soon(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
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

// propose makes the smesher's proposal for stillLayer, the first of its epoch;
// change may spoil it before it is signed.
func (w *world) proposal(tb testing.TB, m *miner, change func(*types.Proposal)) *types.Proposal {
	tb.Helper()
	epoch := w.schedule.EpochOf(stillLayer)
	el, err := w.epochs.Electorate(epoch)
	if err != nil {
		tb.Fatal(err)
	}
	beacon, err := w.epochs.Beacon(epoch)
	if err != nil {
		tb.Fatal(err)
	}
	rules := w.params.Eligibility()
	atx := el.atxs[m.atx.ID()]
	slots := eligibility.Slots(rules, atx.Weight, el.total)
	p := &types.Proposal{Ballot: types.Ballot{
		Layer: stillLayer, ATX: m.atx.ID(), Smesher: m.id.NodeID(),
		EpochData:     &types.EpochData{ActiveSet: el.ids.Hash(), Beacon: beacon, Eligibilities: slots},
		Eligibilities: eligibility.Assign(rules, m.id, beacon, epoch, m.atx.VRFNonce, slots)[stillLayer],
	}}
	if len(p.Ballot.Eligibilities) == 0 {
		tb.Fatal("the smesher has no slot in the layer")
	}
	if change != nil {
		change(p)
	}
	m.signProposal(p)
	return p
}

func (m *miner) signProposal(p *types.Proposal) {
	p.Ballot.Signature = m.id.Sign(signing.Ballot, p.Ballot.SignedBytes())
	p.Signature = m.id.Sign(signing.Proposal, p.SignedBytes())
}

// certify makes the smesher's signature under a decision.
func (m *miner) certify(d types.Decision) types.CertifyMessage {
	return types.CertifyMessage{Decision: d, By: types.CertifySignature{
		ATX: m.atx.ID(), Smesher: m.id.NodeID(), Signature: m.id.Sign(signing.Certify, codec.Encode(&d)),
	}}
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
