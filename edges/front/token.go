package front

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"tweedle/base/durable"
)

// TokenFile is the usual name of the file with the admin API's tokens: one on
// a line, and after a blank the moment at which it expires (RFC 3339), if it
// does. The server reads it again when it changes, so that a token can be
// replaced without a restart: add the new one, change the clients, let the old
// one expire.
const TokenFile = "admin.token"

// Limits of the token file.
const (
	maxTokenFile = 16 << 10 // bytes
	minToken     = 16       // characters
)

// Tokens knows who may use an admin API.
type Tokens struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex // guards what follows
	told    string     // the last trouble with the file that the log has
	stamp   time.Time  // of the file as it was read
	expires map[[32]byte]time.Time
}

// OpenTokens reads the token file, making it with a new token if it is not
// there.
func OpenTokens(path string, log *slog.Logger) (*Tokens, error) {
	// If we stop in here, the next start finds no file and makes another token.
	if _, err := durable.Secret(durable.OS{}, path, durable.RandomHex); err != nil {
		return nil, fmt.Errorf("admin token: %w", err)
	}
	t := &Tokens{path: path, log: log}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t, t.refresh()
}

// refresh reads the file if it changed.
func (t *Tokens) refresh() error {
	info, err := os.Stat(t.path)
	if err != nil {
		return fmt.Errorf("admin token: %w", err)
	}
	if err := durable.Private(t.path); err != nil {
		return fmt.Errorf("admin token: %w", err)
	}
	if info.ModTime().Equal(t.stamp) {
		return nil
	}
	lines, err := readTokens(t.path)
	if err != nil {
		return err
	}
	t.stamp, t.expires = info.ModTime(), map[[32]byte]time.Time{}
	for _, l := range lines {
		t.expires[sha256.Sum256([]byte(l.secret))] = l.expires
	}
	return nil
}

type tokenLine struct {
	secret  string
	expires time.Time // zero: never
}

func readTokens(path string) ([]tokenLine, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("admin token: %w", err)
	}
	if len(b) > maxTokenFile {
		return nil, fmt.Errorf("admin token: %s has %d bytes: it cannot be a token file", path, len(b))
	}
	// No message has a word of the file: any of them may be a secret.
	var lines []tokenLine
	n := 0
	for text := range strings.Lines(string(b)) {
		n++
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		l := tokenLine{secret: fields[0]}
		if len(l.secret) < minToken || len(fields) > 2 {
			return nil, fmt.Errorf("admin token: %s, line %d: it must be a token of at least %d characters, and maybe when it expires", path, n, minToken)
		}
		if len(fields) == 2 {
			if l.expires, err = time.Parse(time.RFC3339, fields[1]); err != nil {
				return nil, fmt.Errorf("admin token: %s, line %d: what follows the token is not a time like 2027-01-31T12:00:00Z", path, n)
			}
		}
		lines = append(lines, l)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("admin token: %s is empty: remove it to get a new token at the next start", path)
	}
	return lines, nil
}

// check returns nil if the caller showed a token that is valid at now.
func (t *Tokens) check(ctx context.Context, now time.Time) error {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	if len(values) != 1 {
		return status.Error(codes.Unauthenticated, "show the admin token: authorization: Bearer TOKEN")
	}
	scheme, secret, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return status.Error(codes.Unauthenticated, "the authorization is not a bearer token")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.refresh()
	if text := fmt.Sprint(err); text != t.told {
		if t.told = text; err != nil {
			t.log.Error("nobody is let in by the admin API", "err", err)
		}
	}
	if err != nil {
		return status.Error(codes.Unauthenticated, "not let in: the server's log says why")
	}
	shown := sha256.Sum256([]byte(secret))
	for sum, expires := range t.expires {
		if subtle.ConstantTimeCompare(sum[:], shown[:]) != 1 {
			continue
		}
		if !expires.IsZero() && !now.Before(expires) {
			return status.Error(codes.Unauthenticated, "the admin token has expired")
		}
		return nil
	}
	return status.Error(codes.Unauthenticated, "the admin token is wrong")
}

// Only returns the options of a gRPC server that lets those who show a token use
// the listed methods. What is not listed is denied, whoever asks, so that a method
// added to a service is closed until somebody decides otherwise.
func (t *Tokens) Only(methods map[string]bool) []grpc.ServerOption {
	open := func(ctx context.Context, method string) error {
		if !methods[method] {
			return status.Error(codes.PermissionDenied, "this method is not open")
		}
		return t.check(ctx, time.Now())
	}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			if err := open(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return handle(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			if err := open(s.Context(), info.FullMethod); err != nil {
				return err
			}
			return handle(srv, s)
		}),
	}
}

// DialAdmin connects to an admin listener, host:port or unix:PATH, with the
// tokens of a file. The connection is plain text: it stays on this machine or goes
// through a tunnel.
func DialAdmin(addr, tokenFile string, extra ...grpc.DialOption) (*grpc.ClientConn, error) {
	if _, err := readTokens(tokenFile); err != nil {
		return nil, err
	}
	return Dial(addr, append([]grpc.DialOption{grpc.WithPerRPCCredentials(Bearer(tokenFile))}, extra...)...)
}

// Bearer is the token file whose first token that is valid now a client shows. It
// is read anew for each call, since it may have been replaced.
type Bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b Bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	lines, err := readTokens(string(b))
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	for _, l := range lines {
		if l.expires.IsZero() || time.Now().Before(l.expires) {
			return map[string]string{"authorization": "Bearer " + l.secret}, nil
		}
	}
	return nil, status.Errorf(codes.Unauthenticated, "admin token: every token in %s has expired: add a new one", string(b))
}

// RequireTransportSecurity is false since an admin listener is on loopback or a
// unix socket.
func (Bearer) RequireTransportSecurity() bool { return false }
