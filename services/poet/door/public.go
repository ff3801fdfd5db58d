package door

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tweedle/edges/api/gen/poetpb"
	"tweedle/services/poet"
	"tweedle/protocol/registration"
	"tweedle/values/types"
)

// public serves the PoET's public calls.
type public struct {
	poetpb.UnimplementedPoetServiceServer
	backend Backend
	cfg     Config
	log     *slog.Logger
	keys    *limiter[types.NodeID]
	proofs  *proofCache
	guard   *guard
}

func newPublic(b Backend, cfg Config) *public {
	return &public{
		backend: b, cfg: cfg, log: cfg.logger(),
		keys:   newLimiter[types.NodeID](cfg.Limits.PerKey, cfg.Limits.KeyBurst),
		proofs: newProofCache(b),
		guard: &guard{
			log: cfg.logger(), metrics: cfg.Metrics, deadline: cfg.Limits.Deadline,
			addresses: newPrefixLimiter(cfg.Limits),
		},
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
	// A key pays for requests that it signed; what others send in its name
	// must not use up its allowance.
	key := types.NodeID(request.NodeID)
	if !p.keys.room(key, time.Now()) {
		p.guard.countLimited()
		return nil, status.Error(codes.ResourceExhausted, "too many registrations of this key: wait a little")
	}
	receipt, err := p.backend.Submit(ctx, request)
	if err == nil || errors.Is(err, poet.ErrExists) {
		p.keys.allow(key, time.Now())
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

// Proof returns a round's proof, once it is there.
func (p *public) Proof(_ context.Context, in *poetpb.ProofRequest) (*poetpb.ProofResponse, error) {
	entry, err := p.proofs.get(in.GetRoundId())
	if err != nil {
		return nil, p.failure(err)
	}
	return entry.reply, nil
}

// Member returns a member's proof of being in a round's statement.
func (p *public) Member(_ context.Context, in *poetpb.MemberRequest) (*poetpb.MemberResponse, error) {
	key, err := types.ParseHex32(in.GetPubkey())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "the public key is not 64 hexadecimal digits")
	}
	m, err := p.backend.Member(in.GetRoundId(), key[:])
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

// failure maps an error to the status that the reference gives it
// (reference/poet.md 3).
func (p *public) failure(err error) error {
	code := codes.Internal
	for _, c := range []struct {
		err  error
		code codes.Code
	}{
		{poet.ErrInvalid, codes.InvalidArgument},
		{poet.ErrBadProof, codes.InvalidArgument},
		{poet.ErrUnauthorised, codes.Unauthenticated},
		{poet.ErrExhausted, codes.ResourceExhausted},
		{poet.ErrExists, codes.AlreadyExists},
		{poet.ErrTooLate, codes.FailedPrecondition},
		{poet.ErrNotFound, codes.NotFound},
		{poet.ErrDiskFull, codes.Unavailable},
		{poet.ErrBusy, codes.Unavailable},
		{poet.ErrStopped, codes.Unavailable},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
	} {
		if errors.Is(err, c.err) {
			code = c.code
			break
		}
	}
	if code == codes.Internal {
		p.log.Error("a request failed", "err", err)
		return status.Error(code, "internal error: the server's log says more")
	}
	return status.Error(code, oneLine(err.Error()))
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }
