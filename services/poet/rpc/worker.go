package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/values/types"
)

// Jobs is what a server that only takes registrations offers to workers: a
// *poet.Service.
type Jobs interface {
	Jobs() []poet.Job
	Source() poet.RoundSource
}

// workers serves poetadminpb.WorkerService.
type workers struct {
	poetadminpb.UnimplementedWorkerServiceServer
	jobs Jobs
}

// Jobs lists the rounds that wait for their proof.
func (w *workers) Jobs(context.Context, *poetadminpb.JobsRequest) (*poetadminpb.JobsResponse, error) {
	out := &poetadminpb.JobsResponse{}
	for _, j := range w.jobs.Jobs() {
		out.Jobs = append(out.Jobs, &poetadminpb.Job{
			Round: j.Round, Statement: j.Statement[:], Members: j.Members,
			Start: timestamppb.New(j.Start), End: timestamppb.New(j.End),
		})
	}
	return out, nil
}

// Executed notes that a round's leaves are computed.
func (w *workers) Executed(ctx context.Context, in *poetadminpb.ExecutedRequest) (*poetadminpb.ExecutedResponse, error) {
	if err := w.jobs.Source().Executed(ctx, in.GetRound()); err != nil {
		return nil, workerError(err)
	}
	return &poetadminpb.ExecutedResponse{}, nil
}

// Finish verifies and stores a proof.
func (w *workers) Finish(ctx context.Context, in *poetadminpb.FinishRequest) (*poetadminpb.FinishResponse, error) {
	leaves, ok1 := nodesOf(in.GetProvenLeaves())
	nodes, ok2 := nodesOf(in.GetNodes())
	if len(in.GetRoot()) != posw.NodeSize || !ok1 || !ok2 {
		return nil, status.Errorf(codes.InvalidArgument, "a node of the proof has not %d bytes", posw.NodeSize)
	}
	proof := types.PoetProof{Root: types.Hash32(in.GetRoot()), Leaves: leaves, Nodes: nodes, NumLeaves: in.GetLeaves()}
	if err := w.jobs.Source().Finish(ctx, poet.Result{Round: in.GetRound(), Proof: proof}); err != nil {
		return nil, workerError(err)
	}
	return &poetadminpb.FinishResponse{}, nil
}

// Stored tells whether the proof of a round is stored.
func (w *workers) Stored(ctx context.Context, in *poetadminpb.StoredRequest) (*poetadminpb.StoredResponse, error) {
	stored, err := w.jobs.Source().Stored(ctx, in.GetRound())
	if err != nil {
		return nil, workerError(err)
	}
	return &poetadminpb.StoredResponse{Stored: stored}, nil
}

func nodesOf(list [][]byte) ([]types.Hash32, bool) {
	out := make([]types.Hash32, len(list))
	for i, b := range list {
		if len(b) != posw.NodeSize {
			return nil, false
		}
		out[i] = types.Hash32(b)
	}
	return out, true
}

func workerError(err error) error {
	switch {
	case errors.Is(err, poet.ErrBadProof):
		return status.Error(codes.InvalidArgument, oneLine(err.Error()))
	case errors.Is(err, poet.ErrNotFound):
		return status.Error(codes.NotFound, oneLine(err.Error()))
	}
	return status.Error(codes.Unavailable, oneLine(err.Error()))
}

// Times of a remote source.
const (
	jobsEvery     = time.Second // between two looks for a new round
	remoteTimeout = 10 * time.Second
)

// RemoteSource gives a worker the rounds of another machine's server, over its
// admin API. Where that server cannot be reached, calls wait and try again
// until their context ends: the work that is under way goes on meanwhile.
type RemoteSource struct {
	client poetadminpb.WorkerServiceClient
	tell   func(error)
	given  map[uint32]bool // rounds that Next returned; one goroutine calls it
}

// NewRemoteSource uses the connection, which stays the caller's. tell is told
// of every failed try; it may be nil.
func NewRemoteSource(conn grpc.ClientConnInterface, tell func(error)) *RemoteSource {
	if tell == nil {
		tell = func(error) {}
	}
	return &RemoteSource{client: poetadminpb.NewWorkerServiceClient(conn), tell: tell, given: map[uint32]bool{}}
}

// Next waits for a round that it has not returned yet.
func (s *RemoteSource) Next(ctx context.Context) (poet.Job, error) {
	for {
		var out *poetadminpb.JobsResponse
		err := s.try(ctx, func(ctx context.Context) (err error) {
			out, err = s.client.Jobs(ctx, &poetadminpb.JobsRequest{})
			return err
		})
		if err != nil {
			return poet.Job{}, err
		}
		for _, j := range out.GetJobs() {
			if s.given[j.GetRound()] {
				continue
			}
			if len(j.GetStatement()) != posw.NodeSize {
				return poet.Job{}, fmt.Errorf("the server gives round %d a statement of %d bytes", j.GetRound(), len(j.GetStatement()))
			}
			s.given[j.GetRound()] = true
			return poet.Job{
				Round: j.GetRound(), Statement: [posw.NodeSize]byte(j.GetStatement()), Members: j.GetMembers(),
				Start: j.GetStart().AsTime(), End: j.GetEnd().AsTime(),
			}, nil
		}
		if err := sleep(ctx, jobsEvery); err != nil {
			return poet.Job{}, err
		}
	}
}

// Executed tells the server that a round's leaves are computed. It is tried
// once: the proof does not wait for it.
func (s *RemoteSource) Executed(ctx context.Context, round uint32) error {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	_, err := s.client.Executed(ctx, &poetadminpb.ExecutedRequest{Round: round})
	return err
}

// Finish hands a proof over; poet.ErrBadProof if the server finds it wrong.
func (s *RemoteSource) Finish(ctx context.Context, r poet.Result) error {
	in := &poetadminpb.FinishRequest{
		Round: r.Round, Leaves: r.Proof.NumLeaves, Root: r.Proof.Root[:],
		ProvenLeaves: slicesOf(r.Proof.Leaves), Nodes: slicesOf(r.Proof.Nodes),
	}
	return s.try(ctx, func(ctx context.Context) error {
		_, err := s.client.Finish(ctx, in)
		return err
	})
}

// Stored tells whether the server has the proof of a round.
func (s *RemoteSource) Stored(ctx context.Context, round uint32) (stored bool, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		out, err := s.client.Stored(ctx, &poetadminpb.StoredRequest{Round: round})
		stored = out.GetStored()
		return err
	})
	return stored, err
}

// try repeats a call until the server has answered it.
func (s *RemoteSource) try(ctx context.Context, call func(context.Context) error) error {
	for {
		one, cancel := context.WithTimeout(ctx, remoteTimeout)
		err := call(one)
		cancel()
		switch status.Code(err) {
		case codes.OK:
			return nil
		case codes.InvalidArgument:
			return fmt.Errorf("%w: %s", poet.ErrBadProof, status.Convert(err).Message())
		case codes.NotFound:
			return fmt.Errorf("%w: %s", poet.ErrNotFound, status.Convert(err).Message())
		case codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
			return fmt.Errorf("the registration server does not let this worker in: %s", status.Convert(err).Message())
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.tell(fmt.Errorf("the registration server does not answer: %w", err))
		if err := sleep(ctx, jobsEvery); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
