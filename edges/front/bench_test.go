package front

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// BenchmarkCall is a small call over a socket, with the guard and without.
func BenchmarkCall(b *testing.B) {
	b.Run("guarded", func(b *testing.B) {
		d := open(b, testLimits(), bytesOf(100))
		benchmarkCalls(b, d.dial())
	})
	b.Run("plain", func(b *testing.B) {
		s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			return handle(ctx, req)
		}))
		s.RegisterService(bytesOf(100).desc(), nil)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(l) }()
		conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		benchmarkCalls(b, conn)
		_ = conn.Close()
		s.Stop()
		<-ended
	})
}

func benchmarkCalls(b *testing.B, conn *grpc.ClientConn) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ask(context.Background(), conn); err != nil {
			b.Fatal(err)
		}
	}
}
