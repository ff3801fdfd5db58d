// Package doortest tries the listeners of a server from outside; only tests import it.
//
// Walk asks each listener for everything that any of our programs knows, and for
// what programs like them often have, with each kind of credential. It promises
// to report whatever is served and not expected, or expected and not served.
//
// It leaves to the caller: to run the server with a token file that has Valid and
// Expired, and to say what is expected, in words of its own rather than from the
// lists that it tests.
package doortest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/spacemeshos/api/release/go/spacemesh/v1" // what a node could have
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	_ "tweedle/edges/api/gen/gatewaypb"
	_ "tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
)

// Tokens of the file that a walked server has.
const (
	Valid   = "0123456789abcdef0123456789abcdef"
	Expired = "fedcba9876543210fedcba9876543210"
)

// TokenFile is the content of that file.
const TokenFile = Valid + "\n" + Expired + " 1999-12-31T00:00:00Z\n"

// credentials are authorization headers and whether an admin listener takes them.
func credentials() map[string]bool {
	return map[string]bool{
		"": false, "Bearer wrong-wrong-wrong-wrong-wrong": false, "Bearer " + Expired: false, "Bearer " + Valid[1:]: false, "Basic " + Valid: false,
		"Bearer " + Valid: true,
	}
}

// Door is one listener and what is expected there.
type Door struct {
	Name, Address string
	HTTP          bool
	// Services are served with all their methods, Methods ("/service/method") alone.
	// On an HTTP listener it is their JSON form.
	Services, Methods []string
	Paths             []string // other pages of an HTTP listener, as in "GET /metrics"
	Token             bool     // only who shows a valid token is served
}

func (d Door) expects(service, method string) bool {
	return slices.Contains(d.Services, service) || slices.Contains(d.Methods, method)
}

// Walk tries a door and returns how many calls it made.
func Walk(t *testing.T, d Door) (calls int) {
	t.Helper()
	limit := make(chan struct{}, 16)
	var all sync.WaitGroup
	try := func(f func()) {
		calls++
		limit <- struct{}{}
		all.Go(func() {
			defer func() { <-limit }()
			f()
		})
	}
	defer all.Wait()
	if d.HTTP {
		walkHTTP(t, d, try)
	} else {
		walkGRPC(t, d, try)
	}
	return calls
}

// Answers of a listener.
const (
	served  = "served"
	denied  = "denied"
	missing = "not there"
)

func walkGRPC(t *testing.T, d Door, try func(func())) {
	conn, err := grpc.NewClient("passthrough:///"+d.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	for _, rpc := range everyMethod() {
		method := fmt.Sprintf("/%s/%s", rpc.Parent().FullName(), rpc.Name())
		for header, good := range credentials() {
			want := missing
			switch {
			case d.expects(string(rpc.Parent().FullName()), method) && d.Token && !good:
				want = denied
			case d.expects(string(rpc.Parent().FullName()), method):
				want = served
			}
			try(func() {
				if got, err := callGRPC(conn, method, header, rpc.IsStreamingServer() && want == served); got != want {
					t.Errorf("%s: %s with %q is %s, want %s (%v)", d.Name, method, header, got, want, err)
				}
			})
		}
	}
}

func callGRPC(conn *grpc.ClientConn, method, header string, endless bool) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience(endless))
	defer cancel()
	if header != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", header)
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err == nil {
		_ = s.SendMsg(&emptypb.Empty{}) // RecvMsg tells the error
		_ = s.CloseSend()
		err = s.RecvMsg(&emptypb.Empty{})
	}
	st := status.Convert(err)
	unknown := strings.Contains(st.Message(), "unknown service") || strings.Contains(st.Message(), "unknown method")
	switch {
	case st.Code() == codes.Unimplemented && unknown, st.Code() == codes.PermissionDenied && strings.Contains(st.Message(), "not open"):
		return missing, err
	case st.Code() == codes.Unauthenticated:
		return denied, err
	case st.Code() == codes.Unavailable, st.Code() == codes.DeadlineExceeded && !endless:
		return "out of reach", err
	}
	return served, err
}

// patience is for an answer; a stream that is there may have nothing to say.
func patience(endless bool) time.Duration {
	if endless {
		return time.Second
	}
	return 30 * time.Second
}

// page is something that an HTTP listener may have.
type page struct {
	verb, path      string
	service, method string // of which it is the JSON form
	endless         bool
}

// operators are pages that servers often have.
func operators() []string {
	paths := []string{
		"/", "/metrics", "/metrics/list", "/status", "/smesher", "/peers", "/layers", "/healthz", "/openapi.json", "/version", "/debug/pprof/", "/debug/pprof/heap",
		"/debug/pprof/cmdline", "/debug/vars", "/debug/requests", "/admin", "/admin.token", "/config", "/v1", "/v1/", "/../admin.token", "/.git/config",
	}
	// The PoET's description has no word of HTTP, so its page of the API tells it.
	var api struct {
		Paths map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(poetpb.OpenAPI, &api); err != nil || len(api.Paths) < 5 {
		panic(fmt.Sprintf("doortest: the PoET's paths cannot be read: %v", err))
	}
	for path := range api.Paths {
		paths = append(paths, variable().ReplaceAllString(path, "x"))
	}
	return paths
}

// variable is a part of a path that the client chooses.
func variable() *regexp.Regexp { return regexp.MustCompile(`\{[^}]*\}`) }

func walkHTTP(t *testing.T, d Door, try func(func())) {
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	pages := jsonForms()
	for _, path := range operators() {
		pages = append(pages, page{path: path})
	}
	for _, p := range d.Paths {
		if _, path, _ := strings.Cut(p, " "); !slices.ContainsFunc(pages, func(q page) bool { return q.path == path }) {
			t.Errorf("%s: %s is not among the pages that are tried", d.Name, path)
		}
	}
	for _, p := range pages {
		for _, verb := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			expected := slices.Contains(d.Paths, verb+" "+p.path) || verb == p.verb && p.method != "" && d.expects(p.service, p.method)
			if !expected && slices.ContainsFunc(pages, func(q page) bool { return q.path == p.path && q.verb == verb && d.expects(q.service, q.method) }) {
				continue // another method has this path and verb
			}
			for header := range credentials() {
				try(func() {
					got, text := callHTTP(client, verb, "http://"+d.Address+p.path, header, p.endless && expected)
					if (got == served) != expected {
						t.Errorf("%s: %s %s with %q is %s, expected %v (%s)", d.Name, verb, p.path, header, got, expected, text)
					}
				})
			}
		}
	}
}

func callHTTP(client *http.Client, verb, url, header string, endless bool) (string, string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience(endless))
	defer cancel()
	var body io.Reader
	if verb == http.MethodPost {
		body = strings.NewReader("{}")
	}
	r, err := http.NewRequestWithContext(ctx, verb, url, body)
	if err != nil {
		return missing, err.Error()
	}
	if header != "" {
		r.Header.Set("Authorization", header)
	}
	res, err := client.Do(r)
	switch {
	case endless && errors.Is(err, context.DeadlineExceeded):
		return served, "it has nothing to say yet"
	case err != nil:
		return "out of reach", err.Error()
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 300))
	said := fmt.Sprintf("%d %s", res.StatusCode, text)
	notThere := regexp.MustCompile(`"message": ?"(Not Found|Method Not Allowed)"|^404 page not found|^Unknown profile|Method Not Allowed`)
	if res.StatusCode >= 300 && (res.StatusCode < 400 || notThere.Match(text)) {
		return missing, said
	}
	return served, said
}

// JSONPaths returns where a gateway that has the services takes JSON, sorted.
func JSONPaths(services ...string) (paths []string) {
	for _, p := range jsonForms() {
		if p.verb == http.MethodPost && slices.Contains(services, p.service) && !slices.Contains(paths, p.path) {
			paths = append(paths, p.path)
		}
	}
	slices.Sort(paths)
	return paths
}

// everyMethod returns what any of the linked services has.
func everyMethod() (all []protoreflect.MethodDescriptor) {
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for k := range methods.Len() {
				all = append(all, methods.Get(k))
			}
		}
		return true
	})
	return all
}

// jsonForms returns where a gateway has the methods: where their description says, else
// under their name; streams also beside the single calls.
func jsonForms() (all []page) {
	for _, rpc := range everyMethod() {
		service := string(rpc.Parent().FullName())
		p := page{verb: http.MethodPost, path: fmt.Sprintf("/%s/%s", service, rpc.Name()), service: service, endless: rpc.IsStreamingServer()}
		p.method = p.path
		rule, _ := proto.GetExtension(rpc.Options(), annotations.E_Http).(*annotations.HttpRule)
		var bound []page
		for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
			for verb, path := range map[string]string{
				http.MethodGet: r.GetGet(), http.MethodPost: r.GetPost(), http.MethodPut: r.GetPut(), http.MethodDelete: r.GetDelete(),
			} {
				if path != "" {
					b := p
					b.verb, b.path = verb, variable().ReplaceAllString(path, "x")
					bound = append(bound, b)
				}
			}
		}
		switch {
		case rpc.IsStreamingClient():
			continue // it has none
		case len(bound) == 0 || rpc.IsStreamingServer():
			bound = append(bound, p)
		}
		if rpc.IsStreamingServer() {
			b := p
			name := service[strings.LastIndex(service, ".")+1:]
			b.path = strings.ToLower(fmt.Sprintf("/v1/%s/%s", strings.TrimSuffix(name, "Service"), rpc.Name()))
			bound = append(bound, b)
		}
		all = append(all, bound...)
	}
	return all
}
