package core

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"tweedle/proofs/post"
	"tweedle/proofs/posw/bench"
	"tweedle/protocol/activation"
	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// known has what the ATXs of smeshers refer to: their ATXs of the epoch before, and a PoET
// proof.
type known struct {
	atxs map[types.ATXID]*activation.Info
	poet activation.Poet
}

func (k *known) ATX(id types.ATXID) (*activation.Info, error)      { return k.atxs[id], nil }
func (k *known) Poet(types.PoetProofRef) (*activation.Poet, error) { return &k.poet, nil }
func (k *known) claim(b *testing.B, r Real, raw []byte) CheckSpace {
	m, err := Check(r, TopicATX, raw)
	if err != nil {
		b.Fatal(err)
	}
	a := m.(*atxMessage)
	claim, err := activation.Derive(r.Params, a.atx, a.id, a.atx.PublishEpoch, k)
	if err != nil {
		b.Fatal(err)
	}
	return CheckSpace{claim}
}

// members are how many a PoET's round has: the path to one of them has 13 hashes.
const members = 1 << 13

// published returns gossip messages of so many smeshers, each with its second ATX: mainnet's
// rules but for the smallest space, of 64 labels, that has such proofs.
func published(b *testing.B, n int) (Real, *known, [][]byte) {
	p := activation.Params{Network: network, Golden: types.ATXID{1}, TickSize: 1, Post: post.MainnetParams()}
	p.Post.LabelsPerUnit, p.Post.MinUnits, p.Post.MaxUnits, p.Post.PoW = 64, 1, 1, post.Blake3{}
	for i := range p.Post.PowDifficulty {
		p.Post.PowDifficulty[i] = 0xff
	}
	k := &known{atxs: map[types.ATXID]*activation.Info{}}
	ref := types.PoetProofRef{3}
	leaves := make([][32]byte, members)
	random := rand.NewChaCha8([32]byte{})
	for i := range leaves {
		random.Read(leaves[i][:]) //nolint:errcheck // it never fails
	}
	var atxs []*types.ATX
	var ids []*signing.Signer
	for i := range n {
		id := signer(fmt.Sprint("smesher ", i))
		dir := filepath.Join(b.TempDir(), fmt.Sprint(i))
		space := post.Setup{NodeID: id.NodeID(), CommitmentATX: p.Golden, NumUnits: 1}
		meta, err := post.Init(dir, p.Post, space, post.InitOptions{})
		if err != nil {
			b.Fatal(err)
		}
		data, err := post.Open(dir)
		if err != nil {
			b.Fatal(err)
		}
		proof, err := data.Prove(ref, p.Post, post.ProveOptions{})
		if err != nil {
			b.Fatal(err)
		}
		before := types.ATXID(types.Sum([]byte("before"), []byte{byte(i)}))
		k.atxs[before] = &activation.Info{ID: before, Smesher: id.NodeID(), PublishEpoch: 1, CommitmentATX: p.Golden, VRFNonce: *meta.Nonce, Units: 1, Ticks: 1}
		a := &types.ATX{
			PublishEpoch: 2, PositioningATX: before, PreviousATXs: []types.ATXID{before}, SmesherID: id.NodeID(), VRFNonce: *meta.Nonce,
			NIPosts: []types.NIPost{{NumMembers: members, PoetProof: ref, Posts: []types.SubPost{{
				MembershipLeafIndex: uint64(i), NumUnits: 1, Post: types.PostProof{Nonce: proof.Nonce, Indices: proof.Indices, Pow: proof.Pow},
			}}}},
		}
		c := activation.Challenge(a)
		leaves[i] = c.Hash()
		atxs, ids = append(atxs, a), append(ids, id)
	}
	k.poet = activation.Poet{Statement: merkle.Root(leaves), NumLeaves: 5}
	var raws [][]byte
	for i, a := range atxs {
		for _, h := range merkle.Proof(leaves, uint64(i)) {
			a.NIPosts[0].Membership = append(a.NIPosts[0].Membership, h)
		}
		id := a.ID()
		a.Signature = ids[i].Sign(signing.ATX, id[:])
		raws = append(raws, codec.Encode(a))
	}
	return Real{Verifier: signing.NewVerifier(network), Params: p, Peer: []byte("us")}, k, raws
}

// BenchmarkATXs is how many ATXs a core checks in a second of its CPU time, from the message's
// bytes to the verdict: decoding, id, signature, rules, membership, and the label that mainnet
// draws (K3 = 1). The PoET's proof, which all share, and the ATX before are known.
func BenchmarkATXs(b *testing.B) {
	const n = 80
	if name := os.Getenv("TWEEDLE_KERNEL"); name != "" {
		if err := post.UseKernel(name); err != nil {
			b.Fatal(err)
		}
	}
	crypto, view, raws := published(b, n)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	run := func(check func(raws [][]byte), some [][]byte) float64 {
		begin := bench.ThreadTime()
		check(some)
		return float64(len(some)) / (bench.ThreadTime() - begin).Seconds()
	}
	at := func(together int) func([][]byte) {
		return func(raws [][]byte) {
			for some := range slices.Chunk(raws, together) {
				var work []CheckSpace
				for _, raw := range some {
					work = append(work, view.claim(b, crypto, raw))
				}
				for _, v := range CheckSpaces(crypto, work) {
					if v.Class != Accept {
						b.Fatal(v.Why)
					}
				}
			}
		}
	}
	rules := func(raws [][]byte) {
		for _, raw := range raws {
			view.claim(b, crypto, raw)
		}
	}
	together := []int{1, 4, 16, 40, 80}
	kernel, err := post.Kernel()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		rates := make(map[int][]float64)
		ratios := make(map[int][]float64)
		for range 15 {
			rates[0] = append(rates[0], run(rules, raws))
			for _, k := range together {
				rates[k] = append(rates[k], run(at(k), raws))
				i := len(rates[k]) - 1
				ratios[k] = append(ratios[k], rates[k][i]/rates[1][i])
			}
		}
		b.Logf("kernel %s, all but the labels: %.0f ATXs per CPU-second", kernel, median(rates[0]))
		for _, k := range together {
			b.Logf("%2d together: %5.0f ATXs per CPU-second (%.0f to %.0f), %.2f x one by one", k, median(rates[k]), slices.Min(rates[k]), slices.Max(rates[k]), median(ratios[k]))
		}
	}
}

func median[T cmp.Ordered](of []T) T { return slices.Sorted(slices.Values(of))[len(of)/2] }
