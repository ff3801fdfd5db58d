package front

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

const validToken = "a-token-that-is-valid-for-ever"

func writeTokens(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A method that is registered but not listed stays closed, for streams and for
// single calls, even to the owner of the token.
func TestWhatIsNotListedIsDenied(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, TokenFile)
	writeTokens(t, path, validToken+"\n")
	tokens, err := OpenTokens(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(tokens.Only(map[string]bool{healthpb.Health_Check_FullMethodName: true})...)
	healthpb.RegisterHealthServer(s, health.NewServer())
	l := bufconn.Listen(1 << 16)
	go func() { _ = s.Serve(l) }() // ends with Stop
	defer s.Stop()
	conn, err := DialAdmin("pipe:1", path, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := healthpb.NewHealthClient(conn)
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatalf("a listed method: %v", err)
	}
	stream, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("a stream that is not listed: %v", err)
	}
	if _, err := client.List(t.Context(), &healthpb.HealthListRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a method that is not listed: %v", err)
	}
	// A token that is replaced is shown by the next call.
	writeTokens(t, path, strings.Repeat("n", 20)+"\n")
	if err := os.Chtimes(path, time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("with a new token: %v", err)
	}
}

func TestATokenCanBeReplacedWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, TokenFile)
	tokens, err := OpenTokens(path, slog.New(slog.DiscardHandler))
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
	writeTokens(t, path, validToken+" "+time.Now().Add(time.Hour).Format(time.RFC3339)+"\n")
	if err := os.Chtimes(path, time.Now(), info.ModTime().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if show(strings.TrimSpace(string(old))) == nil {
		t.Error("the old token still opens")
	}
	if err := show(validToken); err != nil {
		t.Errorf("the new token: %v", err)
	}
	if shown, err := Bearer(path).GetRequestMetadata(t.Context()); err != nil || shown["authorization"] != "Bearer "+validToken {
		t.Errorf("a client shows %v, %v", shown, err)
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
		if _, err := OpenTokens(path, slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), validToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Trouble with the token file is the operator's business: the log tells it
// once, a caller is not let in, and nobody is told a word of the file.
func TestATokenFileThatGoesWrongTellsNobodyItsTokens(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, TokenFile)
	writeTokens(t, path, validToken+"\n")
	var log bytes.Buffer
	tokens, err := OpenTokens(path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	guess := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer guess"))
	const second = "another-secret-token-of-the-operator"
	// The second and the third are the same trouble.
	for i, text := range []string{validToken + " " + second, second + " x y", "short\n" + second, second + " 2099-99-99"} {
		writeTokens(t, path, text+"\n")
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
		if _, err := Bearer(path).GetRequestMetadata(t.Context()); err == nil || strings.Contains(err.Error(), second) {
			t.Errorf("%q: a client is told %v", text, err)
		}
	}
	if told := log.String(); strings.Contains(told, second) || strings.Contains(told, validToken) || strings.Count(told, "\n") != 3 {
		t.Errorf("the log tells:\n%s", told)
	}
}
