//go:build linux

package network

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/spacemeshos/merkle-tree"
	"github.com/spacemeshos/poet/hash"
	"github.com/spacemeshos/poet/shared"
	"github.com/spacemeshos/poet/verifier"
)

// fetch does one HTTP request and returns what is answered.
func fetch(t *testing.T, method, url string, body []byte) (code int, answer []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, answer
}

// proof is what a PoET answers for a round.
type proof struct {
	Proof struct {
		Proof struct {
			Root                     []byte
			ProvenLeaves, ProofNodes [][]byte
		}
		Members [][]byte
		Leaves  uint64 `json:",string"`
	}
}

// convince verifies a proof with the published code, from the members up.
func (p proof) convince() error {
	tree, err := merkle.NewTreeBuilder().WithHashFunc(shared.HashMembershipTreeNode).Build()
	if err != nil {
		return err
	}
	for _, m := range p.Proof.Members {
		if err := tree.AddLeaf(m); err != nil {
			return err
		}
	}
	statement, in := tree.Root(), p.Proof.Proof
	return verifier.Validate(shared.MerkleProof{Root: in.Root, ProvenLeaves: in.ProvenLeaves, ProofNodes: in.ProofNodes},
		hash.GenLabelHashFunc(statement), hash.GenMerkleHashFunc(statement), p.Proof.Leaves, shared.T)
}

// A stranger registers at a PoET of the running network as a smesher does, by
// HTTP and JSON alone, beside the network's own smeshers; the published
// verifier takes the round's proof, and all others that the PoETs made so far.
func ourProofsConvinceTheReference(t *testing.T, n *testnet) {
	s := n.status(t)
	base := "http://" + s.Poets[0].REST
	var params struct {
		PowParams struct {
			Challenge  []byte `json:"challenge"`
			Difficulty uint   `json:"difficulty"`
		}
	}
	getJSON(t, base+"/v1/pow_params", &params)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	public, challenge, prefix := key.Public().(ed25519.PublicKey), bytes.Repeat([]byte{0xa5}, 32), []byte("of no network")
	nonce, err := shared.FindSubmitPowNonce(t.Context(), params.PowParams.Challenge, challenge, public, params.PowParams.Difficulty)
	if err != nil {
		t.Fatal(err)
	}
	request, err := json.Marshal(map[string]any{
		"nonce": strconv.FormatUint(nonce, 10), "powParams": params.PowParams, "prefix": prefix, "challenge": challenge,
		"pubkey": []byte(public), "signature": ed25519.Sign(key, slices.Concat(prefix, challenge)),
	})
	if err != nil {
		t.Fatal(err)
	}
	code, answer := fetch(t, http.MethodPost, base+"/v1/submit", request)
	var registered struct{ RoundID, RoundEnd string }
	if err := json.Unmarshal(answer, &registered); err != nil || code != http.StatusOK {
		t.Fatalf("submit: %d, %v: %s", code, err, answer)
	}
	left, err := time.ParseDuration(registered.RoundEnd)
	if err != nil || left <= 0 {
		t.Fatalf("the round ends in %q: %v", registered.RoundEnd, err)
	}
	round, err := strconv.Atoi(registered.RoundID)
	if err != nil {
		t.Fatal(err)
	}
	const proving = time.Minute // on a busy machine
	var p proof
	for deadline := time.Now().Add(left + proving); ; time.Sleep(poll) {
		if code, answer = fetch(t, http.MethodGet, fmt.Sprintf("%s/v1/proofs/%d", base, round), nil); code == http.StatusOK {
			break
		}
		if code != http.StatusNotFound || time.Now().After(deadline) {
			t.Fatalf("round %d, %v after its end: %d: %s", round, proving, code, answer)
		}
	}
	if err := json.Unmarshal(answer, &p); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(p.Proof.Members, func(m []byte) bool { return bytes.Equal(m, challenge) }) {
		t.Fatalf("our challenge is not among the %d members", len(p.Proof.Members))
	}
	if err := p.convince(); err != nil {
		t.Fatalf("the published verifier rejects the proof: %v", err)
	}
	t.Logf("the published verifier takes the proof of %d leaves for us and %d smeshers", p.Proof.Leaves, len(p.Proof.Members)-1)
	p.Proof.Members[0][0] ^= 1
	if p.convince() == nil {
		t.Fatal("it takes the proof for other members, too")
	}
	for _, poet := range s.Poets {
		for r := range round + 1 {
			url := fmt.Sprintf("http://%s/v1/proofs/%d", poet.REST, r)
			if code, answer := fetch(t, http.MethodGet, url, nil); code == http.StatusOK {
				var p proof
				if err := json.Unmarshal(answer, &p); err != nil {
					t.Fatal(err)
				}
				if err := p.convince(); err != nil {
					t.Errorf("round %d of %s: %v", r, poet.Name, err)
				}
			}
		}
	}
}
