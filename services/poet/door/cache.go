package door

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

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
// for REST. They never change.
type proofCache struct {
	backend Backend
	limit   int           // cacheBytes
	turn    chan struct{} // one proof is read and encoded at a time

	mu    sync.Mutex // guards what follows
	ready *lru.LRU[string, *cachedProof]
	bytes int
}

type cachedProof struct {
	etag       string
	grpc, json *front.Shared
}

func (e *cachedProof) size() int { return len(e.grpc.Bytes()) + len(e.json.Bytes()) }

func newProofCache(b Backend) *proofCache {
	c := &proofCache{backend: b, limit: cacheBytes, turn: make(chan struct{}, 1)}
	var err error
	// An encoded proof has more than a hundred bytes.
	c.ready, err = lru.NewLRU(cacheBytes/100, func(_ string, e *cachedProof) { c.bytes -= e.size() })
	if err != nil {
		panic(err) // the size is a constant
	}
	return c
}

// get returns a proof. Who asks for one that is ready waits for nobody; of
// those who ask for the same other one the first reads it.
func (c *proofCache) get(ctx context.Context, round string) (*cachedProof, error) {
	if len(round) > types.MaxPoetRoundID {
		round = round[:types.MaxPoetRoundID] // longer than any: not found
	}
	if e, ready := c.look(round); ready {
		return e, nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if e, ready := c.look(round); ready {
		return e, nil
	}
	record, err := c.backend.Proof(round)
	if err != nil {
		return nil, err
	}
	e, err := encodeProof(record)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += e.size()
	c.ready.Add(strings.Clone(round), e)
	for c.bytes > c.limit && c.ready.Len() > 1 {
		c.ready.RemoveOldest()
	}
	return e, nil
}

func (c *proofCache) look(round string) (*cachedProof, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready.Get(round)
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
