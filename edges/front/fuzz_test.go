package front

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
)

// FuzzHeaders sends any headers: who comes from no named proxy counts as itself whatever it
// writes, one that is named speaks for exactly one client, and pages of others may not read.
func FuzzHeaders(f *testing.F) {
	proxy, stranger := netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("198.51.100.9")
	g := New(testLimits(), Options{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, Origins: []string{"https://explorer.example"}})
	h := g.HTTP(http.NotFoundHandler()).Handler
	f.Add("203.0.113.1, 10.0.0.8", "https://explorer.example", "GET")
	f.Add("::ffff:10.0.0.7%eth0,,x", "null", "OPTIONS")
	f.Add(strings.Repeat("10.0.0.9,", 1000), "https://explorer.example.evil", "POST")
	f.Fuzz(func(t *testing.T, chain, origin, method string) {
		if c := g.who(stranger, []string{chain}); c != clientOf(stranger) {
			t.Fatalf("a stranger is %v by %q", c, chain)
		}
		if c := g.who(proxy, []string{chain}); c.free {
			t.Fatalf("a client of a proxy is free by %q", chain)
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Method = method
		r.Header["X-Forwarded-For"], r.Header["Origin"] = []string{chain}, []string{origin}
		out := httptest.NewRecorder()
		h.ServeHTTP(out, r)
		if allowed := out.Header().Get("Access-Control-Allow-Origin"); allowed != "" && !strings.EqualFold(allowed, "https://explorer.example") {
			t.Fatalf("origin %q may read as %q", origin, allowed)
		}
	})
}

// FuzzFrames sends anything over a gRPC connection: what is seen of it does not depend on how it
// is cut, and nothing is held for it.
func FuzzFrames(f *testing.F) {
	g := New(testLimits(), Options{})
	f.Add([]byte{0, 0, 4, frameReset, 0, 0, 0, 0, 1, 0, 0, 0, codeRefusedStream, 0, 0, 1, frameHeaders, 4, 0, 0, 0, 1, 'x'}, 5)
	f.Add([]byte{0, 0, 5, frameReset, 0, 0, 0, 0, 1, 0, 0, 0, codeFrameSize, 0, 0, 1, 6}, 9)
	f.Add([]byte{255, 255, 255, frameContinuation, 255, 255, 255, 255, 255, 255, 255, 255}, 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		cut = max(0, min(cut, len(b)))
		var whole, pieces wire
		var a, c []frame
		whole.pass(b, func(f frame) { a = append(a, f) })
		for _, piece := range [][]byte{b[:cut], b[cut:]} {
			pieces.pass(piece, func(f frame) { c = append(c, f) })
		}
		if !slices.Equal(a, c) || whole != pieces {
			t.Fatalf("%x, cut at %d: %v and %v", b, cut, a, c)
		}
		client := &conn{guard: g}
		for _, f := range a {
			client.heard(f)
			client.said(f)
		}
	})
}

// FuzzCredential shows anything: only the token is let in.
func FuzzCredential(f *testing.F) {
	const secret = "0123456789abcdef0123456789abcdef"
	path := filepath.Join(f.TempDir(), TokenFile)
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	tokens, err := OpenTokens(path, textLog(&lines{}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("Bearer " + secret)
	f.Add("bearer  " + secret)
	f.Add("Bearer " + secret[1:])
	f.Add("Basic " + secret)
	f.Fuzz(func(t *testing.T, header string) {
		err := tokens.check(metadata.NewIncomingContext(t.Context(), metadata.MD{"authorization": {header}}), time.Now())
		if (err == nil) != (len(header) == 7+len(secret) && strings.EqualFold(header[:7], "bearer ") && header[7:] == secret) {
			t.Fatalf("%q: %v", header, err)
		}
	})
}
