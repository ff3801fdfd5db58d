package node

import (
	"bytes"
	"slices"
	"testing"

	"tweedle/edges/store"
	"tweedle/values/codec"
	"tweedle/values/types"
)

type wire interface {
	codec.Encodable
	codec.Decodable
}

// wireSamples has each message of the request protocols, empty and full.
func wireSamples() []codec.Encodable {
	cert := types.Certificate{
		Decision:   types.Decision{Layer: 20, Block: types.BlockID{1}, StateRoot: types.Hash32{2}},
		Signatures: []types.CertifySignature{{ATX: types.ATXID{3}, Smesher: types.NodeID{4}, Signature: types.Signature{5}}},
	}
	return []codec.Encodable{
		objectsRequest{}, objectsRequest{name(store.KindATX, types.ATXID{1}), name20(store.KindBlock, types.BlockID{2}), {0, nil}},
		objectsAnswer{}, objectsAnswer{{1, 2, 3}, nil, {4}},
		number(0), number(1 << 31),
		epochAnswer{}, epochAnswer{{1}, {2}},
		&layersAnswer{}, &layersAnswer{tip: 21, certs: []types.Certificate{cert, {}}},
		poetAnswer{}, poetAnswer{true},
	}
}

// fuzzWire: decoding never panics, and what is accepted is the only spelling.
func fuzzWire[T any, P interface {
	*T
	wire
}](f *testing.F) {
	for _, v := range wireSamples() {
		f.Add(codec.Encode(v))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v := P(new(T))
		if codec.Decode(b, v) == nil && !bytes.Equal(codec.Encode(v), b) {
			t.Fatalf("accepted %x, encodes as %x", b, codec.Encode(v))
		}
	})
}

func FuzzObjectsRequest(f *testing.F) { fuzzWire[objectsRequest](f) }
func FuzzObjectsAnswer(f *testing.F)  { fuzzWire[objectsAnswer](f) }
func FuzzNumber(f *testing.F)         { fuzzWire[number](f) }
func FuzzEpochAnswer(f *testing.F)    { fuzzWire[epochAnswer](f) }
func FuzzLayersAnswer(f *testing.F)   { fuzzWire[layersAnswer](f) }
func FuzzPoetAnswer(f *testing.F)     { fuzzWire[poetAnswer](f) }

// The limits of the request protocols must hold the largest messages.
func TestTheLargestMessagesFitTheirLimits(t *testing.T) {
	req := make(objectsRequest, maxObjects)
	for i := range req {
		req[i] = name(store.KindATX, types.ATXID{byte(i)})
	}
	if got, limit := len(codec.Encode(req)), maxObjects*(maxObjectName+3)+8; got > limit {
		t.Errorf("a request of %d objects has %d bytes, the limit is %d", maxObjects, got, limit)
	}
	if got, limit := len(codec.Encode(make(epochAnswer, maxEpochATXs))), maxEpochATXs*32+8; got > limit {
		t.Errorf("an answer of %d ids has %d bytes, the limit is %d", maxEpochATXs, got, limit)
	}
	cert := types.Certificate{Signatures: make([]types.CertifySignature, types.MaxCertificateSignatures)}
	if got := len(codec.Encode(&cert)); got > maxCertificate {
		t.Errorf("a certificate has %d bytes, the limit is %d", got, maxCertificate)
	}
	poet := types.PoetProofMessage{RoundID: string(make([]byte, types.MaxPoetRoundID)), Proof: types.PoetProof{
		Leaves: make([]types.Hash32, types.MaxPoetLeaves), Nodes: make([]types.Hash32, types.MaxPoetNodes), NumLeaves: 1 << 63,
	}}
	if got := len(codec.Encode(&poet)); got > maxPoetSize {
		t.Errorf("a PoET proof has %d bytes, the limit is %d", got, maxPoetSize)
	}
	votes := slices.Repeat([]types.Vote{{Layer: 1<<32 - 1, Height: 1<<64 - 1}}, types.MaxVotes)
	proposal := types.Proposal{Txs: make([]types.TransactionID, types.MaxProposalTxs), Ballot: types.Ballot{
		Layer: 1<<32 - 1, EpochData: &types.EpochData{Eligibilities: 1<<32 - 1},
		Eligibilities: slices.Repeat([]types.Eligibility{{J: 1<<32 - 1}}, types.MaxEligibilities),
		Votes:         types.Votes{Support: votes, Against: votes, Abstain: slices.Repeat([]types.Layer{1<<32 - 1}, types.MaxVotes)},
	}}
	if got := len(codec.Encode(&proposal)); got > maxProposalSize {
		t.Errorf("a proposal has %d bytes, the limit is %d", got, maxProposalSize)
	}
	for name, msg := range map[string]struct {
		value codec.Encodable
		limit int
	}{
		"decision": {&types.CertifyMessage{Decision: types.Decision{Layer: 1<<32 - 1}}, maxCertifySize},
		"block":    {&types.Block{Rewards: slices.Repeat([]types.Reward{{Num: 1<<64 - 1, Den: 1<<64 - 1}}, types.MaxBlockRewards), Txs: make([]types.TransactionID, types.MaxBlockTxs)}, maxObjectSize},
	} {
		if got := len(codec.Encode(msg.value)); got > msg.limit {
			t.Errorf("a %s has %d bytes, the limit is %d", name, got, msg.limit)
		}
	}
}

func TestListsOverTheirLimitAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		in  codec.Encodable
		out codec.Decodable
	}{
		"objects wanted":  {make(objectsRequest, maxObjects+1), &objectsRequest{}},
		"objects":         {make(objectsAnswer, maxObjects+1), &objectsAnswer{}},
		"a long name":     {objectsRequest{{store.KindATX, make([]byte, maxObjectName+1)}}, &objectsRequest{}},
		"ATX ids":         {make(epochAnswer, maxEpochATXs+1), &epochAnswer{}},
		"certificates":    {&layersAnswer{certs: make([]types.Certificate, maxLayers+1)}, &layersAnswer{}},
		"one huge object": {objectsAnswer{make([]byte, maxObjectSize+1)}, &objectsAnswer{}},
	} {
		if err := codec.Decode(codec.Encode(tc.in), tc.out); err == nil {
			t.Errorf("%s: too many are accepted", name)
		}
	}
}
