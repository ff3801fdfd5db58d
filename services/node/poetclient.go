package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tweedle/edges/api/gen/poetpb"
	"tweedle/protocol/registration"
	"tweedle/values/merkle"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// maxPoetAnswer bounds what is read from a PoET, in bytes: a proof with the
// members of its round.
const maxPoetAnswer = 64 << 20

// poetCallTimeout bounds one call of a PoET.
const poetCallTimeout = 10 * time.Second

// errPoetNotReady says that the round has no proof yet.
var errPoetNotReady = errors.New("proof is not ready")

// errPoetRefused wraps the reason why a PoET does not take a registration and
// never will.
var errPoetRefused = errors.New("refused")

// poetClient speaks the REST API of a PoET (reference/poet.md 1.7).
type poetClient struct {
	base string // http://host:port
	http *http.Client
}

// call sends in, if it is not nil, and reads the answer into out.
func (c *poetClient) call(ctx context.Context, method, path string, in, out proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, poetCallTimeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := protojson.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxPoetAnswer))
	if err != nil {
		return err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, out)
	case http.StatusNotFound:
		return errPoetNotReady
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusConflict:
		return fmt.Errorf("%w: %s %s", errPoetRefused, resp.Status, strings.TrimSpace(string(b[:min(len(b), 200)])))
	}
	return fmt.Errorf("PoET %s answers %s: %s", c.base, resp.Status, strings.TrimSpace(string(b[:min(len(b), 200)])))
}

// solvePoW works until the nonce is found or ctx ends.
func solvePoW(ctx context.Context, p *poetpb.PowParams, node types.NodeID, challenge types.Hash32) (uint64, error) {
	params := registration.PowParams{Challenge: p.GetChallenge(), Difficulty: uint(p.GetDifficulty())}
	// Twice as many tries each time: the deadline is looked at in between.
	for tries := uint64(1 << 16); ; tries *= 2 {
		if nonce, ok := registration.SolvePow(params, node[:], challenge[:], tries); ok {
			return nonce, nil
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
}

// register submits a signed challenge for the round that is open and returns
// its name, with what the PoET signed for it, if it did.
func (c *poetClient) register(ctx context.Context, network types.GenesisID, id *signing.Signer, challenge types.Hash32, deadline time.Time) (string, *poetpb.Receipt, error) {
	var pow poetpb.PowParamsResponse
	if err := c.call(ctx, http.MethodGet, "/v1/pow_params", nil, &pow); err != nil {
		return "", nil, err
	}
	node := id.NodeID()
	nonce, err := solvePoW(ctx, pow.GetPowParams(), node, challenge)
	if err != nil {
		return "", nil, err
	}
	prefix := append(network[:len(network):len(network)], byte(signing.Poet))
	sig := id.SignPrefixed(prefix, challenge[:])
	req := &poetpb.SubmitRequest{
		Nonce: nonce, PowParams: pow.GetPowParams(), Prefix: prefix, Challenge: challenge[:],
		Pubkey: node[:], Signature: sig[:], Deadline: timestamppb.New(deadline),
	}
	var resp poetpb.SubmitResponse
	if err := c.call(ctx, http.MethodPost, "/v1/submit", req, &resp); err != nil {
		return "", nil, err
	}
	if resp.GetRoundId() == "" || len(resp.GetRoundId()) > types.MaxPoetRoundID {
		return "", nil, fmt.Errorf("PoET %s answers without a round", c.base)
	}
	return resp.GetRoundId(), resp.GetReceipt(), nil
}

// proof is a round's proof with the members that it is for.
type proof struct {
	msg     types.PoetProofMessage
	members [][32]byte
}

// proof gets the proof of a round. The caller verifies it.
func (c *poetClient) proof(ctx context.Context, round string) (*proof, error) {
	var resp poetpb.ProofResponse
	if err := c.call(ctx, http.MethodGet, "/v1/proofs/"+round, nil, &resp); err != nil {
		return nil, err
	}
	p := resp.GetProof()
	out := &proof{msg: types.PoetProofMessage{RoundID: round}}
	out.msg.Proof.NumLeaves = p.GetLeaves()
	copy(out.msg.PoetID[:], resp.GetPubkey())
	var err error
	if out.msg.Proof.Root, err = hash32(p.GetProof().GetRoot()); err != nil {
		return nil, err
	}
	if out.msg.Proof.Leaves, err = hash32s(p.GetProof().GetProvenLeaves(), types.MaxPoetLeaves); err != nil {
		return nil, err
	}
	if out.msg.Proof.Nodes, err = hash32s(p.GetProof().GetProofNodes(), types.MaxPoetNodes); err != nil {
		return nil, err
	}
	for _, m := range p.GetMembers() {
		h, err := hash32(m)
		if err != nil {
			return nil, err
		}
		out.members = append(out.members, h)
	}
	out.msg.Statement = merkle.Root(out.members)
	return out, nil
}

// member gets the proof that our registration is in the statement of a round
// that has started: with it, the round's proof is of use from whoever has it.
func (c *poetClient) member(ctx context.Context, round string, id types.NodeID) (*poetpb.MemberResponse, error) {
	var resp poetpb.MemberResponse
	err := c.call(ctx, http.MethodGet, "/v1/rounds/"+round+"/members/"+hex.EncodeToString(id[:]), nil, &resp)
	return &resp, err
}

// serviceID gets the PoET's own name.
func (c *poetClient) serviceID(ctx context.Context) (types.NodeID, error) {
	var resp poetpb.InfoResponse
	if err := c.call(ctx, http.MethodGet, "/v1/info", nil, &resp); err != nil {
		return types.NodeID{}, err
	}
	h, err := hash32(resp.GetServicePubkey())
	return types.NodeID(h), err
}

func hash32(b []byte) (types.Hash32, error) {
	if len(b) != len(types.Hash32{}) {
		return types.Hash32{}, fmt.Errorf("PoET sends a hash of %d bytes", len(b))
	}
	return types.Hash32(b), nil
}

func hash32s(list [][]byte, limit int) ([]types.Hash32, error) {
	if len(list) > limit {
		return nil, fmt.Errorf("PoET sends a proof with %d nodes", len(list))
	}
	out := make([]types.Hash32, len(list))
	for i, b := range list {
		h, err := hash32(b)
		if err != nil {
			return nil, err
		}
		out[i] = h
	}
	return out, nil
}
