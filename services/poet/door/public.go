package door

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tweedle/edges/api/gen/poetpb"
	"tweedle/edges/front"
	"tweedle/protocol/registration"
	"tweedle/services/poet"
	"tweedle/values/types"
)

// public serves the PoET's public calls.
type public struct {
	poetpb.UnimplementedPoetServiceServer
	backend Backend
	cfg     Config
	keys    *front.Rates[types.NodeID]
	proofs  *proofCache
	guard   *front.Guard
}

func newPublic(b Backend, cfg Config) *public {
	return &public{
		backend: b, cfg: cfg, guard: front.New(cfg.Limits.Limits, cfg.Front), proofs: newProofCache(b),
		keys: front.NewRates[types.NodeID](cfg.Limits.PerKey, cfg.Limits.KeyBurst),
	}
}

// PowParams tells the work that a registration must show.
func (p *public) PowParams(context.Context, *poetpb.PowParamsRequest) (*poetpb.PowParamsResponse, error) {
	params := p.backend.PowParams()
	return &poetpb.PowParamsResponse{PowParams: &poetpb.PowParams{
		Difficulty: uint32(params.Difficulty), Challenge: params.Challenge,
	}}, nil
}

// Submit registers a member of the open round.
func (p *public) Submit(ctx context.Context, in *poetpb.SubmitRequest) (*poetpb.SubmitResponse, error) {
	request := poet.Registration{
		NodeID: in.GetPubkey(), Challenge: in.GetChallenge(), Prefix: in.GetPrefix(), Signature: in.GetSignature(),
		Nonce: in.GetNonce(),
		Pow: registration.PowParams{
			Challenge: in.GetPowParams().GetChallenge(), Difficulty: uint(in.GetPowParams().GetDifficulty())},
		Hint: in.GetCertificatePubkeyHint(),
	}
	if c := in.GetCertificate(); c != nil {
		request.Certificate = &registration.Certificate{Data: c.GetData(), Signature: c.GetSignature()}
	}
	if in.GetDeadline() != nil {
		if err := in.GetDeadline().CheckValid(); err != nil {
			return nil, status.Error(codes.InvalidArgument, "the deadline is not a time")
		}
		request.Deadline = in.GetDeadline().AsTime()
	}
	if err := request.CheckShape(); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	key := types.NodeID(request.NodeID)
	if !p.keys.Room(key, time.Now()) {
		p.guard.Refuse(limitKey, fmt.Sprintf("%x", key))
		return nil, status.Error(codes.ResourceExhausted, "too many registrations of this key: wait a little")
	}
	receipt, err := p.backend.Submit(ctx, request)
	if signed(err) {
		p.keys.Allow(key, time.Now())
	}
	if err != nil {
		return nil, p.failure(err)
	}
	return &poetpb.SubmitResponse{
		RoundId:  receipt.Round,
		RoundEnd: durationpb.New(time.Until(receipt.End)),
		Receipt: &poetpb.Receipt{
			RoundId: receipt.Round, Pubkey: receipt.NodeID[:], Challenge: receipt.Challenge[:],
			Time: receipt.Time.UnixMilli(), ServicePubkey: receipt.PoetID[:], Signature: receipt.Signature[:],
		},
	}, nil
}

// Info tells the server's identity and timing.
func (p *public) Info(context.Context, *poetpb.InfoRequest) (*poetpb.InfoResponse, error) {
	info := p.backend.Info()
	out := &poetpb.InfoResponse{
		ServicePubkey: info.PoetID[:],
		PhaseShift:    durationpb.New(info.PhaseShift),
		CycleGap:      durationpb.New(info.CycleGap),
		EpochDuration: durationpb.New(p.cfg.Schedule.EpochDuration),
		GenesisTime:   timestamppb.New(p.cfg.Schedule.Genesis),
		Version:       p.cfg.Version,
		OpenRoundId:   info.OpenRound,
	}
	if p.cfg.CertifierURL != "" {
		out.Certifier = &poetpb.InfoResponse_Cerifier{Url: p.cfg.CertifierURL, Pubkey: info.Certifier}
	}
	return out, nil
}

// Member returns a member's proof of being in a round's statement.
func (p *public) Member(ctx context.Context, in *poetpb.MemberRequest) (*poetpb.MemberResponse, error) {
	key, err := types.ParseHex32(in.GetPubkey())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "the public key is not 64 hexadecimal digits")
	}
	m, err := p.backend.Member(ctx, in.GetRoundId(), key[:])
	if err != nil {
		return nil, p.failure(err)
	}
	out := &poetpb.MemberResponse{
		Challenge: m.Challenge[:], Index: m.Index, Members: m.Members, Root: m.Statement[:], Time: m.Time.UnixMilli(),
	}
	for i := range m.Proof {
		out.Path = append(out.Path, m.Proof[i][:])
	}
	return out, nil
}

// limitKey is the name of the limit of a key's registrations, and the flag that sets it.
const limitKey = "key-rate"

// signed tells whether a registration that ended so was signed by its key. A
// key pays for all of those, stored or not; what others send in its name must
// not use up its allowance.
func signed(err error) bool {
	if err == nil {
		return true
	}
	for _, e := range []error{poet.ErrExists, poet.ErrTooLate, poet.ErrExhausted, poet.ErrDiskFull, poet.ErrUnfinished} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// reasons are the statuses that the reference gives (reference/poet.md 3). The
// server's own troubles are told without their causes and paths.
func reasons() []front.Reason {
	return []front.Reason{
		{Err: poet.ErrInvalid, Code: codes.InvalidArgument},
		{Err: poet.ErrBadProof, Code: codes.InvalidArgument},
		{Err: poet.ErrUnauthorised, Code: codes.Unauthenticated},
		{Err: poet.ErrExhausted, Code: codes.ResourceExhausted},
		{Err: poet.ErrExists, Code: codes.AlreadyExists},
		{Err: poet.ErrTooLate, Code: codes.FailedPrecondition},
		{Err: poet.ErrNotFound, Code: codes.NotFound},
		{Err: poet.ErrDiskFull, Code: codes.Unavailable, Bare: true},
		{Err: poet.ErrBusy, Code: codes.Unavailable, Bare: true},
		{Err: poet.ErrStopped, Code: codes.Unavailable, Bare: true},
		{Err: context.Canceled, Code: codes.Canceled, Bare: true},
		{Err: context.DeadlineExceeded, Code: codes.DeadlineExceeded, Bare: true},
	}
}

func (p *public) failure(err error) error { return front.Status(p.guard.Log(), reasons(), err) }
