package door

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/services/poet/delivery"
)

const (
	validToken   = "a-token-that-is-valid-for-ever"
	expiredToken = "a-token-that-has-expired-long-ago"
)

func writeTokens(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, TokenFile), []byte(text), 0o600); err != nil {
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
		a, err := NewAdmin(filepath.Join(dir, TokenFile), r.service, r.courier, r.cfg)
		if err != nil {
			t.Fatal(err)
		}
		reflection.Register(a.server) // as if somebody had added a service
		conn := r.dial(r.admin)
		defer conn.Close()
		var walked int
		for service, info := range a.server.GetServiceInfo() {
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

// A method that is registered but not listed stays closed, for streams and for
// single calls, even to the owner of the token.
func TestWhatIsNotListedIsDenied(t *testing.T) {
	dir := t.TempDir()
	writeTokens(t, dir, validToken+"\n")
	tokens, err := openTokens(filepath.Join(dir, TokenFile), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d := &lock{tokens: tokens, methods: adminMethods()}
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+validToken))
	if err := d.open(ctx, poetadminpb.AdminService_ListGateways_FullMethodName); err != nil {
		t.Fatalf("a listed method: %v", err)
	}
	for _, m := range []string{poetpb.PoetService_Submit_FullMethodName, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "", "/"} {
		if err := d.open(ctx, m); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%q: %v", m, err)
		}
	}
	called := false
	err = d.stream(nil, fakeStream{ctx}, &grpc.StreamServerInfo{FullMethod: "/a.B/C"}, func(any, grpc.ServerStream) error { called = true; return nil })
	if status.Code(err) != codes.PermissionDenied || called {
		t.Errorf("a stream that is not listed: %v", err)
	}
}

type fakeStream struct{ ctx context.Context }

func (s fakeStream) Context() context.Context     { return s.ctx }
func (s fakeStream) SetHeader(metadata.MD) error  { return nil }
func (s fakeStream) SendHeader(metadata.MD) error { return nil }
func (s fakeStream) SetTrailer(metadata.MD)       {}
func (s fakeStream) SendMsg(any) error            { return io.EOF }
func (s fakeStream) RecvMsg(any) error            { return io.EOF }

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

func TestATokenCanBeReplacedWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, TokenFile)
	tokens, err := openTokens(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("a new token file has mode %v, %v", info.Mode(), err)
	}
	old, err := os.ReadFile(path)
	if err != nil || len(strings.TrimSpace(string(old))) != 64 {
		t.Fatalf("a new token is %q", old)
	}
	show := func(token string) error {
		return tokens.check(metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+token)), time.Now())
	}
	if err := show(strings.TrimSpace(string(old))); err != nil {
		t.Fatal(err)
	}
	writeTokens(t, dir, validToken+" "+time.Now().Add(time.Hour).Format(time.RFC3339)+"\n")
	if err := os.Chtimes(path, time.Now(), info.ModTime().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if show(strings.TrimSpace(string(old))) == nil {
		t.Error("the old token still opens")
	}
	if err := show(validToken); err != nil {
		t.Errorf("the new token: %v", err)
	}
	if creds, err := Bearer(path); err != nil || creds.(bearer) != validToken {
		t.Errorf("a client finds %v, %v", creds, err)
	}
}

func TestTokenFilesThatCannotBeTrusted(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"readable by others": {validToken, 0o644},
		"empty":              {"\n\n", 0o600},
		"too short":          {"abc", 0o600},
		"no time":            {validToken + " tomorrow", 0o600},
		"three words":        {validToken + " 2030-01-01T00:00:00Z x", 0o600},
		"huge":               {strings.Repeat("x", maxTokenFile+1), 0o600},
	} {
		path := filepath.Join(t.TempDir(), TokenFile)
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := openTokens(path, slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), validToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Trouble with the token file is the operator's business: the log tells it
// once, a caller is not let in, and nobody is told a word of the file.
func TestATokenFileThatGoesWrongTellsNobodyItsTokens(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, TokenFile)
	writeTokens(t, dir, validToken+"\n")
	var log bytes.Buffer
	tokens, err := openTokens(path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	guess := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer guess"))
	const second = "another-secret-token-of-the-operator"
	// The second and the third are the same trouble.
	for i, text := range []string{validToken + " " + second, second + " x y", "short\n" + second, second + " 2099-99-99"} {
		writeTokens(t, dir, text+"\n")
		if err := os.Chtimes(path, time.Now(), time.Now().Add(time.Duration(i+1)*time.Hour)); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			err := tokens.check(guess, time.Now())
			if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "not let in") {
				t.Errorf("%q: %v", text, err)
			}
			for _, secret := range []string{validToken, second, path} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("a stranger is told %q", err)
				}
			}
		}
		if _, err := Bearer(path); err == nil || strings.Contains(err.Error(), second) {
			t.Errorf("%q: a client is told %v", text, err)
		}
	}
	if told := log.String(); strings.Contains(told, second) || strings.Contains(told, validToken) || strings.Count(told, "\n") != 3 {
		t.Errorf("the log tells:\n%s", told)
	}
}
