package smeshing

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tweedle/base/words"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/protocol/activation"
	"tweedle/protocol/registration"
	"tweedle/values/merkle"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// maxAnswer bounds what is read from a PoET, in bytes: a proof with the
// members of its round.
const maxAnswer = 64 << 20

// maxDifficulty bounds the proof of work that a PoET may ask for, in bits: some
// minutes of one core.
const maxDifficulty = 30

// errNotReady says that the round has no proof yet.
var errNotReady = errors.New("proof is not ready")

// errRefused wraps the reason why a PoET does not take a registration and
// never will.
var errRefused = errors.New("refused")

// client speaks the REST API of a PoET (reference/poet.md 1.7).
type client struct {
	base           string // http://host:port
	http           *http.Client
	timeout        time.Duration // of one call
	trouble, times nag
	last           atomic.Pointer[string] // why the last call failed; nil: it did not
	doubt          atomic.Pointer[string] // why what it answered in good form is not used; nil: it is
}

// judge notes whether what the PoET answered is of use.
func (c *client) judge(err error) {
	if err == nil {
		c.doubt.Store(nil)
		return
	}
	why := words.Of(err)
	c.doubt.Store(&why)
}

// call sends in, if it is not nil, reads the answer into out, and notes how it ended.
func (c *client) call(ctx context.Context, method, path string, in, out proto.Message) error {
	err := c.exchange(ctx, method, path, in, out)
	switch {
	case err == nil || errors.Is(err, errNotReady):
		c.last.Store(nil)
	case ctx.Err() == nil: // else nobody waits for it any more
		why := words.Of(err)
		c.last.Store(&why)
	}
	return err
}

func (c *client) exchange(ctx context.Context, method, path string, in, out proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
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
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return err
	}
	if len(b) > maxAnswer {
		return fmt.Errorf("it answers with more than %d bytes", maxAnswer)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, out); err != nil {
			return fmt.Errorf("its answer is not one of a PoET: %w", err)
		}
		return nil
	case http.StatusNotFound:
		return errNotReady
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusConflict:
		return fmt.Errorf("%w: %s %s", errRefused, resp.Status, strings.TrimSpace(string(b[:min(len(b), 200)])))
	}
	return fmt.Errorf("it answers %s: %s", resp.Status, strings.TrimSpace(string(b[:min(len(b), 200)])))
}

// solvePoW works until the nonce is found or ctx ends.
func solvePoW(ctx context.Context, p *poetpb.PowParams, node types.NodeID, challenge types.Hash32) (uint64, error) {
	params := registration.PowParams{Challenge: p.GetChallenge(), Difficulty: uint(p.GetDifficulty())}
	if params.Difficulty > maxDifficulty {
		return 0, fmt.Errorf("it asks for a proof of work of %d bits, more than %d are not done: leave it out, or ask its operator for less", params.Difficulty, maxDifficulty)
	}
	nonce, ok := registration.SolvePowWhile(params, node[:], challenge[:], func(tried uint64) bool {
		return tried%1024 != 0 || ctx.Err() == nil
	})
	if !ok {
		return 0, fmt.Errorf("its proof of work of %d bits took too long: %w", params.Difficulty, ctx.Err())
	}
	return nonce, nil
}

// register submits a signed challenge for the round that is open and returns
// its name, with what the PoET signed for it, if it did.
func (c *client) register(ctx context.Context, network types.GenesisID, id *signing.Signer, challenge types.Hash32, deadline time.Time) (string, *poetpb.Receipt, error) {
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
		return "", nil, errors.New("it answers without a round")
	}
	return resp.GetRoundId(), resp.GetReceipt(), nil
}

// proof is a round's proof with the members that it is for.
type proof struct {
	msg     types.PoetProofMessage
	members [][32]byte
}

// proof gets the proof of a round. The caller verifies it.
func (c *client) proof(ctx context.Context, round string) (*proof, error) {
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

// place gets our place in the statement of a round that has started. The caller
// checks that it holds.
func (c *client) place(ctx context.Context, round string, id types.NodeID) (*activation.Place, error) {
	var resp poetpb.MemberResponse
	err := c.call(ctx, http.MethodGet, "/v1/rounds/"+round+"/members/"+hex.EncodeToString(id[:]), nil, &resp)
	if err != nil {
		return nil, err
	}
	p := &activation.Place{Index: resp.GetIndex(), Members: resp.GetMembers()}
	if p.Statement, err = hash32(resp.GetRoot()); err != nil {
		return nil, err
	}
	p.Path, err = hash32s(resp.GetPath(), types.MaxMembershipNodes)
	return p, err
}

// serviceID gets the PoET's own name.
func (c *client) serviceID(ctx context.Context) (types.NodeID, error) {
	info, err := c.info(ctx)
	if err != nil {
		return types.NodeID{}, err
	}
	h, err := hash32(info.GetServicePubkey())
	return types.NodeID(h), err
}

// info gets what the PoET says of itself.
func (c *client) info(ctx context.Context) (*poetpb.InfoResponse, error) {
	var resp poetpb.InfoResponse
	return &resp, c.call(ctx, http.MethodGet, "/v1/info", nil, &resp)
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
