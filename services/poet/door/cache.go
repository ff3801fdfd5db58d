package door

import (
	"context"
	"fmt"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tweedle/base/kept"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/edges/front"
	"tweedle/services/poet"
	"tweedle/values/types"
)

// cacheBytes bounds the encoded proofs that are kept ready: a hundred of
// mainnet's rounds, so that who asks for old ones cannot drive out the one that
// everybody wants. A larger proof is kept alone.
const cacheBytes = 64 << 20

// proofCache keeps the proofs that were asked for lately, encoded for gRPC and
// for REST.
type proofCache struct {
	backend Backend
	ready   *kept.Values[string, *cachedProof]
}

type cachedProof struct {
	etag       string
	grpc, json *front.Shared
}

func (e *cachedProof) size() int { return len(e.grpc.Bytes()) + len(e.json.Bytes()) }

func newProofCache(b Backend) *proofCache {
	return &proofCache{b, kept.New[string](cacheBytes, (*cachedProof).size)}
}

func (c *proofCache) get(ctx context.Context, round string) (*cachedProof, error) {
	if len(round) > types.MaxPoetRoundID {
		round = round[:types.MaxPoetRoundID] // longer than any: not found
	}
	round = strings.Clone(round) // it may be part of a whole request
	return c.ready.Get(ctx, round, func() (*cachedProof, error) {
		record, err := c.backend.Proof(ctx, round)
		if err != nil {
			return nil, err
		}
		return encodeProof(record)
	})
}

func encodeProof(record poet.ProofRecord) (*cachedProof, error) {
	proof := &record.Message.Proof
	reply := &poetpb.ProofResponse{
		Pubkey: record.Message.PoetID[:],
		Proof: &poetpb.PoetProof{
			Proof: &poetpb.MerkleProof{
				Root: proof.Root[:], ProvenLeaves: slicesOf(proof.Leaves), ProofNodes: slicesOf(proof.Nodes)},
			Members: slicesOf(record.Members),
			Leaves:  proof.NumLeaves,
		},
	}
	wire, err := proto.Marshal(reply)
	if err != nil {
		return nil, err
	}
	marshaler := runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{EmitUnpopulated: true}} // as the gateway's own
	json, err := marshaler.Marshal(reply)
	if err != nil {
		return nil, err
	}
	return &cachedProof{etag: fmt.Sprintf("%q", proof.Ref()), grpc: front.NewShared(wire), json: front.NewShared(json)}, nil
}

// encoded answers Proof with bytes that all callers share; every other call
// goes on.
func (p *public) encoded(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	in, proof := req.(*poetpb.ProofRequest)
	if !proof {
		return handle(ctx, req)
	}
	e, err := p.proofs.get(ctx, in.GetRoundId())
	if err != nil {
		return nil, p.failure(err)
	}
	return e.grpc, nil
}

func slicesOf[T ~[32]byte](list []T) [][]byte {
	out := make([][]byte, len(list))
	for i := range list {
		out[i] = list[i][:]
	}
	return out
}
