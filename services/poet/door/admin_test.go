package door

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/edges/front"
	"tweedle/services/poet/delivery"
)

const (
	validToken   = "a-token-that-is-valid-for-ever"
	expiredToken = "a-token-that-has-expired-long-ago"
)

func writeTokens(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, front.TokenFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Walks every method of every service that the admin listener has, and some
// that it does not have, with no, a wrong and an expired credential.
func TestTheAdminListenerDeniesWhoeverShowsNoToken(t *testing.T) {
	dir := t.TempDir()
	writeTokens(t, dir, validToken+"\n"+expiredToken+" 1999-12-31T00:00:00Z\n")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, dir, testSchedule(), nil)
		a, err := NewAdmin(filepath.Join(dir, front.TokenFile), r.service, r.courier, r.cfg)
		if err != nil {
			t.Fatal(err)
		}
		reflection.Register(a.Server) // as if somebody had added a service
		conn := r.dial(r.admin)
		defer conn.Close()
		var walked int
		for service, info := range a.Server.GetServiceInfo() {
			for _, m := range info.Methods {
				method := "/" + service + "/" + m.Name
				for name, c := range credentialsOf() {
					err := conn.Invoke(c.context(t.Context()), method, &emptypb.Empty{}, &emptypb.Empty{})
					want := c.want
					switch {
					case (m.IsServerStream || m.IsClientStream) && !adminMethods()[method]:
						want = codes.Unimplemented // not on the real listener at all
					case !adminMethods()[method]:
						want = codes.PermissionDenied
					}
					if got := status.Code(err); got != want && !(want == codes.OK && got != codes.Unauthenticated && got != codes.PermissionDenied) {
						t.Errorf("%s with %s credential: %v, want %s", method, name, err, want)
					}
					walked++
				}
			}
		}
		if walked < 7*9 {
			t.Fatalf("only %d calls were made", walked)
		}
	})
}

type credential struct {
	header string
	want   codes.Code
}

func (c credential) context(ctx context.Context) context.Context {
	if c.header == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", c.header)
}

func credentialsOf() map[string]credential {
	return map[string]credential{
		"no":          {"", codes.Unauthenticated},
		"a wrong":     {"Bearer " + strings.Repeat("x", 40), codes.Unauthenticated},
		"an expired":  {"Bearer " + expiredToken, codes.Unauthenticated},
		"a basic":     {"Basic " + validToken, codes.Unauthenticated},
		"a truncated": {"Bearer " + validToken[:len(validToken)-1], codes.Unauthenticated},
		"an empty":    {"Bearer ", codes.Unauthenticated},
		"a valid":     {"Bearer " + validToken, codes.OK},
	}
}

// A list of gateways that cannot be used is the caller's mistake: it is told what is
// wrong with it, and nothing changes.
func TestGatewaysThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	writeTokens(t, dir, validToken+"\n")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, dir, testSchedule(), nil)
		conn := r.dial(r.admin)
		defer conn.Close()
		client := poetadminpb.NewAdminServiceClient(conn)
		ctx := credentialsOf()["a valid"].context(t.Context())
		many := make([]string, delivery.MaxGateways+1)
		for i := range many {
			many[i] = fmt.Sprintf("gateway-%d.example:9092", i)
		}
		set := func(addrs ...string) error {
			_, err := client.SetGateways(ctx, &poetadminpb.SetGatewaysRequest{Addresses: addrs})
			return err
		}
		add := func(addr string) error {
			_, err := client.AddGateway(ctx, &poetadminpb.AddGatewayRequest{Address: addr})
			return err
		}
		remove := func(addr string) error {
			_, err := client.RemoveGateway(ctx, &poetadminpb.RemoveGatewayRequest{Address: addr})
			return err
		}
		if err := set(many[1:]...); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			what string
			err  error
			code codes.Code
			told string
		}{
			{"too many", set(many...), codes.InvalidArgument, "65 are too many, the limit is 64"},
			{"one too many", add(many[0]), codes.InvalidArgument, "the limit is 64"},
			{"one again", add(many[1]), codes.OK, ""},
			{"no address", set("nonsense"), codes.InvalidArgument, `"nonsense" is no address, give host:port`},
			{"no port", add("gateway.example:0"), codes.InvalidArgument, "give host:port"},
			{"an unknown one", remove(many[0]), codes.NotFound, "is not a gateway of this server"},
		} {
			if status.Code(c.err) != c.code || !strings.Contains(status.Convert(c.err).Message(), c.told) {
				t.Errorf("%s: %v, want %v with %q", c.what, c.err, c.code, c.told)
			}
		}
		if n := len(r.courier.Gateways()); n != delivery.MaxGateways {
			t.Errorf("%d gateways, want %d", n, delivery.MaxGateways)
		}
	})
}

// The list names only methods that exist.
func TestTheListOfAdminMethodsIsRight(t *testing.T) {
	known := map[string]bool{}
	for _, d := range []grpc.ServiceDesc{poetadminpb.AdminService_ServiceDesc, poetpb.ConfigurationService_ServiceDesc} {
		for _, m := range d.Methods {
			known["/"+d.ServiceName+"/"+m.MethodName] = true
		}
		for _, m := range d.Streams {
			known["/"+d.ServiceName+"/"+m.StreamName] = true
		}
	}
	for m := range adminMethods() {
		if !known[m] {
			t.Errorf("%s is listed and does not exist", m)
		}
	}
}
