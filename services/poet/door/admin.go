package door

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tweedle/base/words"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/services/poet"
	"tweedle/services/poet/delivery"
	"tweedle/values/types"
)

// adminMethods are the methods of the admin listener.
func adminMethods() map[string]bool {
	return map[string]bool{
		poetadminpb.AdminService_ListGateways_FullMethodName:         true,
		poetadminpb.AdminService_SetGateways_FullMethodName:          true,
		poetadminpb.AdminService_AddGateway_FullMethodName:           true,
		poetadminpb.AdminService_RemoveGateway_FullMethodName:        true,
		poetadminpb.AdminService_ListProofs_FullMethodName:           true,
		poetadminpb.AdminService_Rebroadcast_FullMethodName:          true,
		poetadminpb.AdminService_ListRounds_FullMethodName:           true,
		poetadminpb.AdminService_ReopenRound_FullMethodName:          true,
		poetadminpb.AdminService_GetStorage_FullMethodName:           true,
		poetadminpb.AdminService_Backup_FullMethodName:               true,
		poetpb.ConfigurationService_ReloadTrustedKeys_FullMethodName: true,
	}
}

// admin serves the operator's calls.
type admin struct {
	poetadminpb.UnimplementedAdminServiceServer
	poetpb.UnimplementedConfigurationServiceServer
	backend Backend
	outbox  Outbox
	log     *slog.Logger
}

// ListGateways lists the gateways by rank.
func (a *admin) ListGateways(context.Context, *poetadminpb.ListGatewaysRequest) (*poetadminpb.ListGatewaysResponse, error) {
	out := &poetadminpb.ListGatewaysResponse{Slots: uint32(a.outbox.Slots())}
	for _, g := range a.outbox.Gateways() {
		out.Gateways = append(out.Gateways, &poetadminpb.Gateway{
			Address: g.Addr, State: string(g.State), Source: string(g.Source), Id: g.ID,
			LastSuccess: stamp(g.LastSuccess), LastAttempt: stamp(g.LastAttempt), LastError: g.LastError, Peers: g.Peers,
		})
	}
	return out, nil
}

// SetGateways replaces all gateways.
func (a *admin) SetGateways(ctx context.Context, in *poetadminpb.SetGatewaysRequest) (*poetadminpb.ListGatewaysResponse, error) {
	return a.changed(ctx, "set", a.outbox.SetGateways(in.GetAddresses()), in.GetAddresses()...)
}

// AddGateway adds one gateway.
func (a *admin) AddGateway(ctx context.Context, in *poetadminpb.AddGatewayRequest) (*poetadminpb.ListGatewaysResponse, error) {
	return a.changed(ctx, "added", a.outbox.AddGateway(in.GetAddress()), in.GetAddress())
}

// RemoveGateway forgets one gateway.
func (a *admin) RemoveGateway(ctx context.Context, in *poetadminpb.RemoveGatewayRequest) (*poetadminpb.ListGatewaysResponse, error) {
	return a.changed(ctx, "removed", a.outbox.RemoveGateway(in.GetAddress()), in.GetAddress())
}

// changed answers a change of the gateways.
func (a *admin) changed(ctx context.Context, how string, err error, gateways ...string) (*poetadminpb.ListGatewaysResponse, error) {
	if err != nil {
		return nil, failure(err)
	}
	a.log.Info("the operator changed the gateways", "how", how, "gateways", gateways)
	return a.ListGateways(ctx, nil)
}

// failure is the status of an error for the operator, who may know all of it.
func failure(err error) error {
	code := codes.Unavailable
	switch {
	case errors.Is(err, delivery.ErrAddresses):
		code = codes.InvalidArgument
	case errors.Is(err, poet.ErrNotFound):
		code = codes.NotFound
	}
	return status.Error(code, words.Of(err))
}

// ListProofs lists the outbox.
func (a *admin) ListProofs(_ context.Context, in *poetadminpb.ListProofsRequest) (*poetadminpb.ListProofsResponse, error) {
	out := &poetadminpb.ListProofsResponse{}
	for _, r := range a.outbox.Proofs() {
		if !in.GetUndelivered() || r.State == delivery.Pending {
			out.Proofs = append(out.Proofs, describe(r))
		}
	}
	return out, nil
}

// Rebroadcast offers a stored proof to every gateway again.
func (a *admin) Rebroadcast(_ context.Context, in *poetadminpb.RebroadcastRequest) (*poetadminpb.RebroadcastResponse, error) {
	if err := a.outbox.Rebroadcast(in.GetRoundId()); err != nil {
		return nil, failure(err)
	}
	a.log.Info("the operator asked for a rebroadcast", "round", in.GetRoundId())
	for _, r := range a.outbox.Proofs() {
		if r.Round == in.GetRoundId() {
			return &poetadminpb.RebroadcastResponse{Proof: describe(r)}, nil
		}
	}
	return &poetadminpb.RebroadcastResponse{}, nil
}

// ListRounds lists the open round, those at work and the latest finished.
func (a *admin) ListRounds(context.Context, *poetadminpb.ListRoundsRequest) (*poetadminpb.ListRoundsResponse, error) {
	out := &poetadminpb.ListRoundsResponse{}
	for _, r := range a.backend.Rounds() {
		state := r.State.String()
		if r.State == poet.StateProved {
			state = "finished"
		}
		out.Rounds = append(out.Rounds, &poetadminpb.Round{
			Id: r.Round, State: state, Start: stamp(r.Start), End: stamp(r.End), Members: r.Members, Leaves: r.Leaves,
			Rate: r.Rate, Expected: r.Expected, JournalPaused: r.JournalPaused, Checkpoint: r.Checkpoint,
		})
	}
	return out, nil
}

// ReopenRound opens the round of the clock in place of a later one.
func (a *admin) ReopenRound(ctx context.Context, _ *poetadminpb.ReopenRoundRequest) (*poetadminpb.ListRoundsResponse, error) {
	round, err := a.backend.Reopen(ctx)
	if err != nil {
		return nil, failure(err)
	}
	a.log.Info("the operator asked for the round of the clock", "open", round)
	return a.ListRounds(ctx, nil)
}

// GetStorage tells the disk budget.
func (a *admin) GetStorage(context.Context, *poetadminpb.GetStorageRequest) (*poetadminpb.GetStorageResponse, error) {
	s := a.backend.Storage()
	out := &poetadminpb.GetStorageResponse{
		FreeBytes: s.Free, NeededBytes: s.Needed, RoundsThatFit: s.Fit, UsedBytes: s.Journals + s.Database,
		ReservedBytes: s.Reserved, Ballast: s.Ballast,
	}
	switch {
	case !s.Ballast:
		out.Alert = "the ballast is used up: free some disk space"
	case s.Fit < poet.MinRoundsFit:
		out.Alert = "fewer rounds fit on the disk than should: free some disk space"
	}
	return out, nil
}

// maxBackup bounds the time of a backup. As long as it lasts a copy of the database
// takes room on the disk.
const maxBackup = 10 * time.Minute

// Backup streams a copy of key and database.
func (a *admin) Backup(_ *poetadminpb.BackupRequest, s grpc.ServerStreamingServer[poetadminpb.BackupResponse]) error {
	w := bufio.NewWriterSize(parts{s, time.Now().Add(maxBackup)}, 32<<10)
	if err := errors.Join(a.backend.Backup(w), w.Flush()); err != nil {
		return failure(err)
	}
	a.log.Info("the operator took a backup")
	return nil
}

// parts is a stream as a writer.
type parts struct {
	to    grpc.ServerStreamingServer[poetadminpb.BackupResponse]
	until time.Time
}

func (p parts) Write(b []byte) (int, error) {
	if time.Now().After(p.until) {
		return 0, fmt.Errorf("a backup may take %v: its reader is too slow", maxBackup)
	}
	return len(b), p.to.Send(&poetadminpb.BackupResponse{Part: b})
}

// ReloadTrustedKeys reads the certifiers' keys again.
func (a *admin) ReloadTrustedKeys(context.Context, *poetpb.ReloadTrustedKeysRequest) (*poetpb.ReloadTrustedKeysResponse, error) {
	if err := a.backend.ReloadTrustedKeys(); err != nil {
		return nil, status.Error(codes.FailedPrecondition, words.Of(err))
	}
	a.log.Info("the operator reloaded the trusted keys")
	return &poetpb.ReloadTrustedKeysResponse{}, nil
}

func describe(r delivery.Record) *poetadminpb.Delivery {
	d := &poetadminpb.Delivery{
		RoundId: r.Round, State: r.State, Added: stamp(r.Added), Delivered: stamp(r.DeliveredAt),
		UsefulUntil: stamp(r.UsefulUntil), Attempts: uint32(r.Attempts), LastError: r.LastError,
	}
	if r.Ref != (types.PoetProofRef{}) {
		d.Ref = r.Ref[:]
	}
	for _, k := range r.Keepers {
		d.KeptBy = append(d.KeptBy, k.Addr)
	}
	return d
}

// stamp leaves an unknown time out.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
