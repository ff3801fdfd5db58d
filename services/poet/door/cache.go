package door

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"tweedle/edges/api/gen/poetpb"
	"tweedle/values/types"
)

// maxCached bounds the proofs kept ready. At a round's end everybody asks for
// the same one; a proof with a million members is 80 MB as JSON.
const maxCached = 2

// proofCache keeps the latest asked proofs as replies, which never change.
type proofCache struct {
	backend Backend

	mu      sync.Mutex
	entries []*cachedProof // latest first
}

type cachedProof struct {
	round string
	reply *poetpb.ProofResponse
	etag  string

	encode sync.Once
	json   []byte
	err    error
}

func newProofCache(b Backend) *proofCache { return &proofCache{backend: b} }

// get returns a proof. Concurrent callers share one read of the database.
func (c *proofCache) get(round string) (*cachedProof, error) {
	if len(round) > types.MaxPoetRoundID {
		round = round[:types.MaxPoetRoundID] // longer than any: not found
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.entries, func(e *cachedProof) bool { return e.round == round })
	if i >= 0 {
		return c.entries[i], nil
	}
	record, err := c.backend.Proof(round)
	if err != nil {
		return nil, err
	}
	proof := &record.Message.Proof
	ref := proof.Ref()
	e := &cachedProof{
		round: strings.Clone(round),
		etag:  fmt.Sprintf("%q", ref),
		reply: &poetpb.ProofResponse{
			Pubkey: record.Message.PoetID[:],
			Proof: &poetpb.PoetProof{
				Proof: &poetpb.MerkleProof{
					Root: proof.Root[:], ProvenLeaves: slicesOf(proof.Leaves), ProofNodes: slicesOf(proof.Nodes)},
				Members: slicesOf(record.Members),
				Leaves:  proof.NumLeaves,
			},
		},
	}
	c.entries = slices.Insert(c.entries, 0, e)
	c.entries = c.entries[:min(len(c.entries), maxCached)]
	return e, nil
}

func slicesOf[T ~[32]byte](list []T) [][]byte {
	out := make([][]byte, len(list))
	for i := range list {
		b := [32]byte(list[i])
		out[i] = b[:]
	}
	return out
}

// serve answers GET /v1/proofs/{round_id}: immutable, so that any cache on the
// way may keep it for ever.
func (p *public) serveProof(mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, round string) {
	e, err := p.proofs.get(round)
	if err != nil {
		runtime.HTTPError(r.Context(), mux, m, w, r, p.failure(err))
		return
	}
	w.Header().Set("ETag", e.etag)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	if matches(r.Header.Get("If-None-Match"), e.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	e.encode.Do(func() { e.json, e.err = m.Marshal(e.reply) })
	if e.err != nil {
		runtime.HTTPError(r.Context(), mux, m, w, r, e.err)
		return
	}
	w.Header().Set("Content-Type", m.ContentType(e.reply))
	w.Header().Set("Content-Length", fmt.Sprint(len(e.json)))
	_, _ = w.Write(e.json) // the client has gone: nothing to do
}

// matches tells whether an If-None-Match header names the tag
// (RFC 9110 13.1.2, weak comparison).
func matches(header, etag string) bool {
	if strings.TrimSpace(header) == "*" {
		return true
	}
	for tag := range strings.SplitSeq(header, ",") {
		if strings.TrimPrefix(strings.TrimSpace(tag), "W/") == etag {
			return true
		}
	}
	return false
}
