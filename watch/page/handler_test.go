package page

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tweedle/base/telemetry"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/front"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const ownToken = "the-token-of-the-watch"

func newTestPage(t *testing.T, targets ...Target) (*Page, *httptest.Server) {
	t.Helper()
	p, err := New(Config{
		Network: "t", Every: time.Second, Targets: func() []Target { return targets },
		Query:    func(context.Context, string, time.Time) ([]Sample, error) { return nil, errors.New("no samples here") },
		Alerts:   func(context.Context) []Alert { return nil },
		Allowed:  func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer "+ownToken },
		Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(p)
	t.Cleanup(func() {
		p.hub.close()
		s.Close()
		p.look.close()
		http.DefaultClient.CloseIdleConnections()
	})
	return p, s
}

func get(t *testing.T, url string, header ...string) (*http.Response, string) {
	t.Helper()
	return send(t, http.MethodGet, url, "", header...)
}

func send(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// Nothing of another site runs in the page, and the page runs in none.
func TestThePageTrustsItsOwnFilesOnly(t *testing.T) {
	_, s := newTestPage(t)
	files, err := loadAssets()
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{"/", "/model", "/nothing", "/smesher/nobody"}
	for name := range files {
		paths = append(paths, "/assets/"+name)
	}
	for _, path := range paths {
		res, _ := get(t, s.URL+path)
		csp := res.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'sha256-", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy is %q, without %s", path, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") || strings.Contains(csp, "http") {
			t.Errorf("%s: the policy is %q", path, csp)
		}
		if res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %v", path, res.Header)
		}
	}
	inline := regexp.MustCompile(`(?i)<script(?:\s+[^>]*)?>[^<]|\sstyle\s*=|\son\w+\s*=|javascript:`)
	outside := regexp.MustCompile(`(?:https?:)?//[\w.-]+\.\w+`)
	_, html := get(t, s.URL+"/")
	if !strings.Contains(html, "<script") || inline.MatchString(html) {
		t.Errorf("the page has inline script or style: %q", inline.FindString(html))
	}
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindAllStringSubmatch(html, -1)
	if len(style) != 1 || strings.Count(html, "<style") != 1 {
		t.Fatalf("the page has %d styles", len(style))
	}
	res, _ := get(t, s.URL+"/")
	if sum := sha256.Sum256([]byte(style[0][1])); !strings.Contains(res.Header.Get("Content-Security-Policy"), "style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"';") {
		t.Error("the style is not the one that the policy names")
	}
	files[indexFile] = asset{kind: "text/html", plain: []byte(html)}
	for name, a := range files {
		if a.kind == "" {
			t.Errorf("%s has no content type", name)
		}
		text := string(a.plain)
		if m := outside.FindString(strings.ReplaceAll(text, "http://www.w3.org/2000/svg", "")); m != "" {
			t.Errorf("%s names another site: %s", name, m)
		}
		if strings.HasSuffix(name, ".js") && regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`).MatchString(text) {
			t.Errorf("%s makes HTML or code of strings", name)
		}
	}
}

// maxSize is what all files of the page have at most, compressed, in bytes.
const maxSize = 150_000

func TestThePageIsSmall(t *testing.T) {
	_, s := newTestPage(t)
	files, err := loadAssets()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for name, a := range files {
		total += len(a.small)
		res, body := get(t, s.URL+"/assets/"+name, "Accept-Encoding", "gzip")
		if res.Header.Get("Content-Encoding") != "gzip" || len(body) != len(a.small) {
			t.Errorf("%s is sent in %d bytes, compressed it has %d", name, len(body), len(a.small))
		}
		if again, body := get(t, s.URL+"/assets/"+name, "If-None-Match", res.Header.Get("ETag")); again.StatusCode != http.StatusNotModified || body != "" {
			t.Errorf("%s again: %s", name, again.Status)
		}
	}
	res, body := get(t, s.URL+"/", "Accept-Encoding", "gzip")
	if total += len(body); res.Header.Get("Content-Encoding") != "gzip" {
		t.Error("the page itself is not compressed")
	}
	t.Logf("%d files and the page, %d bytes compressed", len(files), total)
	if total > maxSize {
		t.Errorf("the page has %d bytes compressed, at most %d", total, maxSize)
	}
}

// reader reads events.
type eventReader struct {
	res   *http.Response
	lines *bufio.Scanner
}

func follow(t *testing.T, url string) *eventReader {
	t.Helper()
	res, err := http.Get(url + "/events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s, %v", res.Status, res.Header)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 8<<20)
	return &eventReader{res, lines}
}

// next returns the next change; ok is false at the end.
func (r *eventReader) next(t *testing.T) (c Change, ok bool) {
	t.Helper()
	for r.lines.Scan() {
		if data, is := strings.CutPrefix(r.lines.Text(), "data: "); is {
			if err := json.Unmarshal([]byte(data), &c); err != nil {
				t.Fatal(err)
			}
			return c, true
		}
	}
	return c, false
}

func partsOf(n int) Parts {
	return Parts{"still": json.RawMessage(`"s"`), "n": json.RawMessage(fmt.Sprint(n)), fmt.Sprint("own/", n): json.RawMessage(`1`)}
}

func TestReadersGetTheWholeAndThenWhatChanged(t *testing.T) {
	p, s := newTestPage(t)
	early := follow(t, s.URL) // before there is anything
	p.hub.publish(partsOf(1))
	late := follow(t, s.URL)
	for i, r := range []*eventReader{early, late} {
		c, ok := r.next(t)
		if !ok || !c.Whole || len(c.Set) != 3 || string(c.Set["n"]) != "1" {
			t.Errorf("reader %d: the first event is %v", i, c)
		}
	}
	p.hub.publish(partsOf(2))
	p.hub.publish(partsOf(2)) // nothing changed: nothing is sent
	p.hub.publish(partsOf(3))
	for i, r := range []*eventReader{early, late} {
		for n := 2; n <= 3; n++ {
			c, ok := r.next(t)
			if !ok || c.Whole || len(c.Set) != 2 || string(c.Set["n"]) != fmt.Sprint(n) || len(c.Gone) != 1 || c.Gone[0] != fmt.Sprint("own/", n-1) {
				t.Errorf("reader %d: event %d is %v", i, n, c)
			}
		}
	}
	p.hub.close()
	if c, ok := early.next(t); ok {
		t.Errorf("after the end: %v", c)
	}
	if res, _ := get(t, s.URL+"/events"); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after the end: %s", res.Status)
	}
}

// The limits of a server on one request and its answer do not end a reader.
func TestAReaderStaysLongerThanARequestMay(t *testing.T) {
	p, err := New(Config{Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(p)
	const limit = 500 * time.Millisecond // a busy machine takes long to read a request
	s.Config.ReadTimeout, s.Config.WriteTimeout = limit, limit
	s.Start()
	defer http.DefaultClient.CloseIdleConnections()
	defer s.Close()
	defer p.hub.close()
	r := follow(t, s.URL)
	for n := range 2 {
		time.Sleep(2 * limit) // of real connections
		p.hub.publish(partsOf(n))
		if c, ok := r.next(t); !ok || string(c.Set["n"]) != fmt.Sprint(n) {
			t.Fatalf("event %d is %v", n, c)
		}
	}
}

// A reader that does not read costs itself, nobody else, and is counted.
func TestASlowReaderIsDropped(t *testing.T) {
	p, s := newTestPage(t)
	p.hub.publish(partsOf(0))
	good := follow(t, s.URL)
	if _, ok := good.next(t); !ok {
		t.Fatal("no first event")
	}
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n") // and never reads
	readers := func() int {
		p.hub.mu.Lock()
		defer p.hub.mu.Unlock()
		return len(p.hub.readers)
	}
	for end := time.Now().Add(5 * time.Second); readers() < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the slow reader did not come")
		}
	}
	sent := 1
	for ; readers() == 2; sent++ {
		if sent > 100 {
			t.Fatal("a reader that reads nothing is kept")
		}
		big := json.RawMessage(`"` + strings.Repeat(string('a'+rune(sent%26)), 1<<20) + `"`)
		begun := time.Now()
		p.hub.publish(Parts{"big": big, "n": json.RawMessage(fmt.Sprint(sent))})
		if d := time.Since(begun); d > eventDeadline/2 {
			t.Errorf("a change waited %s for readers", d)
		}
		if c, ok := good.next(t); !ok || string(c.Set["n"]) != fmt.Sprint(sent) {
			t.Fatalf("the good reader got %v", c.Set["n"])
		}
	}
	if n := testutil.ToFloat64(p.hub.dropped); n != 1 {
		t.Errorf("%v readers were dropped", n)
	}
}

func TestReadersAreLimited(t *testing.T) {
	p, s := newTestPage(t)
	for range maxReaders {
		if _, err := p.hub.join(); err != nil {
			t.Fatal(err)
		}
	}
	if res, _ := get(t, s.URL+"/events"); res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("reader %d: %s", maxReaders+1, res.Status)
	}
	if n := testutil.ToFloat64(p.hub.refused); n != 1 {
		t.Errorf("%v were refused", n)
	}
}

// poetDoor is an admin API behind the PoET's own guard of tokens.
type poetDoor struct {
	poetadminpb.UnimplementedAdminServiceServer
	calls []string
}

func (d *poetDoor) SetGateways(_ context.Context, in *poetadminpb.SetGatewaysRequest) (*poetadminpb.ListGatewaysResponse, error) {
	d.calls = append(d.calls, "set "+strings.Join(in.GetAddresses(), " "))
	if in.GetAddresses()[0] == "wrong" {
		return nil, status.Error(codes.InvalidArgument, "wrong is no host:port")
	}
	return &poetadminpb.ListGatewaysResponse{}, nil
}

func (d *poetDoor) Rebroadcast(_ context.Context, in *poetadminpb.RebroadcastRequest) (*poetadminpb.RebroadcastResponse, error) {
	d.calls = append(d.calls, "rebroadcast "+in.GetRoundId())
	return &poetadminpb.RebroadcastResponse{}, nil
}

func newDoor(t *testing.T) (*poetDoor, Target) {
	t.Helper()
	file := t.TempDir() + "/admin.token"
	tokens, err := front.OpenTokens(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &poetDoor{}
	server := grpc.NewServer(tokens.Only(map[string]bool{
		poetadminpb.AdminService_SetGateways_FullMethodName: true, poetadminpb.AdminService_Rebroadcast_FullMethodName: true})...)
	poetadminpb.RegisterAdminServiceServer(server, d)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }() // it ends with Stop
	t.Cleanup(func() { server.Stop(); <-done })
	return d, Target{Job: "poet", Name: "poet-1", Admin: listener.Addr().String(), TokenFile: file}
}

func TestOnlyWhoHasTheTokenAndNoOtherSiteChangesSomething(t *testing.T) {
	d, target := newDoor(t)
	p, s := newTestPage(t, target, Target{Job: "poet", Name: "poet-2"}, Target{Job: "node", Name: "node-1"})
	auth, js := []string{"Authorization", "Bearer " + ownToken}, []string{"Content-Type", "application/json"}
	const gateways, rebroadcast = "/poets/poet-1/gateways", "/poets/poet-1/rebroadcast"
	good := `{"addresses":["a:1","b:2"]}`
	for _, c := range []struct {
		what, method, path, body string
		header                   []string
		code                     int
	}{
		{"without a token", "POST", gateways, good, js, 401},
		{"with another token", "POST", gateways, good, append([]string{"Authorization", "Bearer " + ownToken + "x"}, js...), 401},
		{"from another site", "POST", gateways, good, append([]string{"Sec-Fetch-Site", "cross-site"}, append(auth, js...)...), 403},
		{"from a neighbour", "POST", gateways, good, append([]string{"Sec-Fetch-Site", "same-site"}, append(auth, js...)...), 403},
		{"from another origin", "POST", gateways, good, append([]string{"Origin", "http://evil.example"}, append(auth, js...)...), 403},
		{"from nowhere", "POST", gateways, good, append([]string{"Origin", "null"}, append(auth, js...)...), 403},
		{"as a form", "POST", gateways, good, append([]string{"Content-Type", "text/plain"}, auth...), 415},
		{"by reading", "GET", gateways, "", append(auth, js...), 405},
		{"with another body", "POST", gateways, `{"addresses":["a:1"],"more":1}`, append(auth, js...), 400},
		{"with a body that does not end", "POST", gateways, `{"addresses":["` + strings.Repeat("x", maxAction) + `"]}`, append(auth, js...), 400},
		{"with too many", "POST", gateways, `{"addresses":[` + strings.Repeat(`"a:1",`, maxGateways) + `"a:1"]}`, append(auth, js...), 400},
		{"of a node", "POST", "/poets/node-1/gateways", good, append(auth, js...), 404},
		{"of a PoET without a known API", "POST", "/poets/poet-2/gateways", good, append(auth, js...), 409},
		{"a rebroadcast without a token", "POST", rebroadcast, `{"round":"5"}`, js, 401},
		{"a rebroadcast from another site", "POST", rebroadcast, `{"round":"5"}`, append([]string{"Sec-Fetch-Site", "cross-site"}, append(auth, js...)...), 403},
		{"a token's test without one", "POST", "/token", "{}", js, 401},
	} {
		if res, body := send(t, c.method, s.URL+c.path, c.body, c.header...); res.StatusCode != c.code {
			t.Errorf("%s: %s: %s, want %d", c.what, res.Status, body, c.code)
		}
	}
	if len(d.calls) != 0 {
		t.Fatalf("the PoET was asked: %v", d.calls)
	}
	own := append([]string{"Origin", s.URL, "Sec-Fetch-Site", "same-origin"}, append(auth, js...)...)
	for _, c := range []struct {
		path, body, call string
		code             int
	}{
		{gateways, good, "set a:1 b:2", 200},
		{gateways, `{"addresses":["wrong"]}`, "set wrong", 400},
		{rebroadcast, `{"round":"5"}`, "rebroadcast 5", 200},
	} {
		res, body := send(t, "POST", s.URL+c.path, c.body, own...)
		if res.StatusCode != c.code || d.calls[len(d.calls)-1] != c.call {
			t.Errorf("%s: %s: %s; calls %v", c.path, res.Status, body, d.calls)
		}
	}
	did := p.done()
	if len(did) != 2 || did[0].Text != "an operator set its gateways: a:1, b:2" || did[1].Who != "poet-1" {
		t.Errorf("the log has %v", did)
	}
}

// The page and what it is made of hold no secret.
func TestTheTokensAreNotInThePage(t *testing.T) {
	_, target := newDoor(t)
	p, s := newTestPage(t, target)
	b, err := front.Bearer(target.TokenFile).GetRequestMetadata(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimPrefix(b["authorization"], "Bearer ")
	p.Show(p.see(context.Background(), time.Now()))
	for _, path := range []string{"/", "/model", "/smesher/poet-1"} {
		_, body := get(t, s.URL+path)
		for _, word := range []string{secret, ownToken, target.TokenFile} {
			if strings.Contains(body, word) {
				t.Errorf("%s has %q", path, word)
			}
		}
	}
	if _, body := get(t, s.URL+"/model"); !strings.Contains(body, `"poet/poet-1"`) {
		t.Errorf("the model is %s", body)
	}
}

// All identities of a node are shown, and not where their spaces are on its disks.
func TestAllIdentitiesOfANodeAreShownWithoutTheirFolders(t *testing.T) {
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(telemetry.Smesher{NodeID: "aa", Dir: "/one", Others: []telemetry.Smesher{{NodeID: "bb", Dir: "/two"}}})
	}))
	defer node.Close()
	_, s := newTestPage(t, Target{Job: "node", Name: "node-1", Address: strings.TrimPrefix(node.URL, "http://")})
	if _, body := get(t, s.URL+"/smesher/node-1"); !strings.Contains(body, `"aa"`) || !strings.Contains(body, `"bb"`) || strings.Contains(body, "/one") || strings.Contains(body, "/two") {
		t.Error(body)
	}
}
