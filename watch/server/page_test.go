package server

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A browser may remember the token as a password: what changes something is refused to other
// sites' pages all the same, at the page's doors and at the API's.
func TestOtherSitesChangeNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "watch.yml")
	if err := os.WriteFile(path, []byte("listen: 127.0.0.1:0\nhost: false\ntargets:\n- {name: poet-1, job: poet, address: \"127.0.0.1:1\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.listener.Close()
	defer s.engine.Close()
	all, err := s.allTargets()
	if err != nil {
		t.Fatal(err)
	}
	s.show(all)
	h := s.handler()
	for _, c := range []struct {
		path   string
		opened int // status of who may: the engine does not run, and the PoET's API is not known
	}{{"/api/v2/silences", 503}, {"/api/v2/alerts", 503}, {"/poets/poet-1/gateways", 409}, {"/poets/poet-1/rebroadcast", 409}, {"/token", 200}} {
		for _, try := range []struct {
			name, header, value string
			auth                bool
			code                int
		}{
			{"nobody", "X", "", false, 401},
			{"another site", "Origin", "http://evil.example", true, 403},
			{"another site's fetch", "Sec-Fetch-Site", "cross-site", true, 403},
			{"a sandbox", "Origin", "null", true, 403},
			{"who may", "Sec-Fetch-Site", "same-origin", true, c.opened},
			{"a program", "X", "", true, c.opened},
		} {
			req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:9096"+c.path, strings.NewReader("{}"))
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set(try.header, try.value)
			if try.auth {
				req.SetBasicAuth("me", s.token)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if w.Code != try.code {
				t.Errorf("%s, %s: %d %s, want %d", c.path, try.name, w.Code, strings.TrimSpace(w.Body.String()), try.code)
			}
		}
	}
}
