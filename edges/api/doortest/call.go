package doortest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Service is a gRPC service that is called without a network, by fuzzers.
type Service struct {
	Desc *grpc.ServiceDesc
	Impl any
}

// maxAnswers is how many answers of a stream a call takes before its client leaves.
const maxAnswers = 8

// ErrNoMessage says that the bytes are no message of the method: gRPC itself refuses them.
var ErrNoMessage = errors.New("doortest: not a message")

// Methods returns the names of all methods of the services, sorted.
func Methods(services []Service) (all []string) {
	for _, s := range services {
		for _, m := range s.Desc.Methods {
			all = append(all, "/"+s.Desc.ServiceName+"/"+m.MethodName)
		}
		for _, m := range s.Desc.Streams {
			all = append(all, "/"+s.Desc.ServiceName+"/"+m.StreamName)
		}
	}
	slices.Sort(all)
	return all
}

// Call gives raw bytes to a method as gRPC would, and returns its status. A stream's client
// leaves when ctx ends.
func Call(ctx context.Context, services []Service, method string, raw []byte) error {
	read := func(m any) error {
		if proto.Unmarshal(raw, m.(proto.Message)) != nil {
			return ErrNoMessage
		}
		return nil
	}
	for _, s := range services {
		name, ours := strings.CutPrefix(method, "/"+s.Desc.ServiceName+"/")
		if !ours {
			continue
		}
		for _, m := range s.Desc.Methods {
			if m.MethodName == name {
				out, err := m.Handler(s.Impl, ctx, read, nil)
				if err == nil {
					_, err = proto.Marshal(out.(proto.Message))
				}
				return err
			}
		}
		for _, m := range s.Desc.Streams {
			if m.StreamName == name {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				return m.Handler(s.Impl, &memoryStream{ctx: ctx, leave: cancel, read: read})
			}
		}
	}
	panic(fmt.Sprintf("doortest: there is no %s", method))
}

// Blame returns what is wrong with a status that strangers were given, or "".
func Blame(err error) string {
	st := status.Convert(err)
	switch {
	case errors.Is(err, ErrNoMessage), err == nil:
		return ""
	case st.Code() == codes.Internal, st.Code() == codes.Unknown:
		return fmt.Sprintf("the fault is ours: %v", err)
	case strings.Contains(st.Message(), "\n"):
		return fmt.Sprintf("more than one line: %v", err)
	}
	return ""
}

type memoryStream struct {
	grpc.ServerStream // nil: what is not here is called by nobody
	ctx               context.Context
	leave             func()
	read              func(any) error
	asked             bool
	answers           int
}

func (s *memoryStream) Context() context.Context     { return s.ctx }
func (s *memoryStream) SetHeader(metadata.MD) error  { return nil }
func (s *memoryStream) SendHeader(metadata.MD) error { return nil }
func (s *memoryStream) SetTrailer(metadata.MD)       {}

func (s *memoryStream) RecvMsg(m any) error {
	if s.asked {
		return io.EOF
	}
	s.asked = true
	return s.read(m)
}

func (s *memoryStream) SendMsg(m any) error {
	if _, err := proto.Marshal(m.(proto.Message)); err != nil {
		return err
	}
	if s.answers++; s.answers == maxAnswers {
		s.leave()
	}
	return status.FromContextError(s.ctx.Err()).Err()
}
