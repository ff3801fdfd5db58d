package page

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tweedle/base/telemetry"
	"tweedle/edges/api/gen/poetadminpb"
)

//go:embed assets
var assets embed.FS

// Limits of one request.
const (
	maxAction     = 64 << 10         // bytes of a body
	maxGateways   = 100              // that one PoET is given
	eventDeadline = 10 * time.Second // to take one event
	quietAfter    = 15 * time.Second // then a line that says nothing keeps the connection
)

// policy lets the page load what this program serves, and nothing else; it is shown in no
// other page and sends no form. The one style that stands in the HTML, so that the first
// frame waits for no second answer, is named by its hash.
const policy = "default-src 'none'; script-src 'self'; style-src 'sha256-%s'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// ServeHTTP serves the page at /, its files under /assets/, the events, and what operators do.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.mux.ServeHTTP(w, r) }

func (p *Page) routes() (http.Handler, error) {
	mux := http.NewServeMux()
	if err := serveAssets(mux); err != nil {
		return nil, err
	}
	page, err := template.ParseFS(assets, "assets/"+indexFile)
	if err != nil {
		return nil, err
	}
	style, err := assets.ReadFile("assets/" + styleFile)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(style)
	policy := fmt.Sprintf(policy, base64.StdEncoding.EncodeToString(sum[:]))
	mux.HandleFunc("GET /{$}", p.index(page, template.CSS(style)))
	mux.HandleFunc("GET /events", p.events)
	mux.HandleFunc("GET /model", p.model)
	mux.HandleFunc("GET /model/{part...}", p.model)
	mux.HandleFunc("GET /crash/{id}", p.deaths.serve)
	mux.HandleFunc("GET /smesher/{node}", p.smesher)
	mux.Handle("POST /token", p.action(func(context.Context, *http.Request) (any, error) { return struct{}{}, nil }))
	mux.Handle("POST /poets/{poet}/gateways", p.action(p.setGateways))
	mux.Handle("POST /poets/{poet}/rebroadcast", p.action(p.rebroadcast))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		mux.ServeHTTP(w, r)
	}), nil
}

// The page's template and its style, which stands in it; the other files are served as they are.
const (
	indexFile = "index.html"
	styleFile = "page.css"
)

// asset is a file of the page, as it is and compressed.
type asset struct {
	kind, tag    string
	plain, small []byte
}

func loadAssets() (map[string]asset, error) {
	entries, err := assets.ReadDir("assets")
	if err != nil {
		return nil, err
	}
	out := map[string]asset{}
	for _, e := range entries {
		if e.Name() == indexFile || e.Name() == styleFile {
			continue
		}
		b, err := assets.ReadFile("assets/" + e.Name())
		if err != nil {
			return nil, err
		}
		var small bytes.Buffer
		z, err := gzip.NewWriterLevel(&small, gzip.BestCompression)
		if err != nil {
			return nil, err
		}
		if _, err := z.Write(b); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		kinds := map[string]string{".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
		out[e.Name()] = asset{kind: kinds[path.Ext(e.Name())], tag: `"` + hex.EncodeToString(sum[:8]) + `"`, plain: b, small: small.Bytes()}
	}
	return out, nil
}

func serveAssets(mux *http.ServeMux) error {
	files, err := loadAssets()
	if err != nil {
		return err
	}
	serve := func(w http.ResponseWriter, r *http.Request, a asset) {
		h := w.Header()
		h.Set("Content-Type", a.kind)
		h.Set("ETag", a.tag)
		h.Set("Cache-Control", "no-cache") // a new watch has new files
		h.Set("Vary", "Accept-Encoding")
		if r.Header.Get("If-None-Match") == a.tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		b := a.plain
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			h.Set("Content-Encoding", "gzip")
			b = a.small
		}
		_, _ = w.Write(b) // the reader has gone; nobody is left to tell
	}
	mux.HandleFunc("GET /assets/{file}", func(w http.ResponseWriter, r *http.Request) {
		a, ok := files[r.PathValue("file")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		serve(w, r, a)
	})
	return nil
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // the reader has gone; nobody is left to tell
}

// model answers with all that is shown, or one part of it.
func (p *Page) model(w http.ResponseWriter, r *http.Request) {
	parts, name := p.hub.newest(), r.PathValue("part")
	part, ok := parts[name]
	switch {
	case parts == nil:
		http.Error(w, "nothing was seen yet: try again", http.StatusServiceUnavailable)
	case name == "":
		reply(w, parts)
	case ok:
		reply(w, part)
	default:
		http.Error(w, "there is no such part: /model has all of them", http.StatusNotFound)
	}
}

// events sends the whole once and then what changed, as server-sent events.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	reader, err := p.hub.join()
	if err != nil {
		w.Header().Set("Retry-After", "5")
		http.Error(w, err.Error()+": try again", http.StatusServiceUnavailable)
		return
	}
	defer p.hub.leave(reader)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // proxies
	control := http.NewResponseController(w)
	send := func(format string, args ...any) error {
		// A server's own limit is for a whole answer; this one does not end.
		if err := control.SetWriteDeadline(time.Now().Add(eventDeadline)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			return err
		}
		return control.Flush()
	}
	quiet := time.NewTicker(quietAfter)
	defer quiet.Stop()
	for err := send("retry: 2000\n\n"); ; {
		if err != nil { // it has gone, or is there and does not read
			if errors.Is(err, os.ErrDeadlineExceeded) {
				p.hub.drop(reader)
			}
			return
		}
		select {
		case <-r.Context().Done():
			return
		case b, open := <-reader:
			if !open {
				return
			}
			err = send("data: %s\n\n", b)
		case <-quiet.C:
			err = send(": \n\n")
		}
	}
}

// errRefused is what is wrong with an action, for who asked for it.
type errRefused struct {
	code int
	text string
}

func (e errRefused) Error() string { return e.text }

// action guards what changes something: only from our own page or from a program, only with
// the token, only as JSON, which no form of another site can send.
func (p *Page) action(do func(context.Context, *http.Request) (any, error)) http.Handler {
	guard := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := guard.Check(r); err != nil {
			http.Error(w, "this request comes from another site's page", http.StatusForbidden)
			return
		}
		if !p.cfg.Allowed(r) {
			http.Error(w, "this needs the watch's token: the first line of the file token in its data folder", http.StatusUnauthorized)
			return
		}
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			http.Error(w, "send JSON", http.StatusUnsupportedMediaType)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxAction)
		ctx, cancel := context.WithTimeout(r.Context(), actionTimeout)
		defer cancel()
		out, err := do(ctx, r)
		if err == nil {
			reply(w, out)
			return
		}
		code := http.StatusBadGateway
		var refused errRefused
		if errors.As(err, &refused) {
			code = refused.code
		}
		http.Error(w, reason(err), code)
	})
}

// poetOf returns the PoET that an action names, and its admin API.
func (p *Page) poetOf(r *http.Request) (Target, poetadminpb.AdminServiceClient, error) {
	for _, t := range p.cfg.Targets() {
		if t.Job != "poet" || t.Name != r.PathValue("poet") {
			continue
		}
		if t.Admin == "" {
			return t, nil, errRefused{http.StatusConflict, "the watch does not know the admin API of " + t.Name + ": give its target admin and admin_token_file"}
		}
		api, err := p.look.admin(t)
		return t, api, err
	}
	return Target{}, nil, errRefused{http.StatusNotFound, "no PoET of that name is watched"}
}

func body(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return errRefused{http.StatusBadRequest, "this is not the JSON that is needed: " + err.Error()}
	}
	return nil
}

// fault turns what the PoET refused into our own answer.
func fault(err error) error {
	if s, ok := status.FromError(err); ok && (s.Code() == codes.InvalidArgument || s.Code() == codes.NotFound) {
		return errRefused{http.StatusBadRequest, s.Message()}
	}
	return err
}

func (p *Page) setGateways(ctx context.Context, r *http.Request) (any, error) {
	var in struct {
		Addresses []string `json:"addresses"`
	}
	if err := body(r, &in); err != nil {
		return nil, err
	}
	if len(in.Addresses) > maxGateways || slices.Contains(in.Addresses, "") {
		return nil, errRefused{http.StatusBadRequest, fmt.Sprintf("give at most %d addresses, host:port each", maxGateways)}
	}
	t, api, err := p.poetOf(r)
	if err != nil {
		return nil, err
	}
	got, err := api.SetGateways(ctx, &poetadminpb.SetGatewaysRequest{Addresses: in.Addresses})
	if err != nil {
		return nil, fault(err)
	}
	p.cfg.Log.Info("an operator set gateways through the page", "poet", t.Name, "gateways", in.Addresses, "from", r.RemoteAddr)
	p.note(t.Name, "an operator set its gateways: "+strings.Join(in.Addresses, ", "))
	return map[string]int{"gateways": len(got.GetGateways())}, nil
}

func (p *Page) rebroadcast(ctx context.Context, r *http.Request) (any, error) {
	var in struct {
		Round string `json:"round"`
	}
	if err := body(r, &in); err != nil {
		return nil, err
	}
	t, api, err := p.poetOf(r)
	if err != nil {
		return nil, err
	}
	if _, err := api.Rebroadcast(ctx, &poetadminpb.RebroadcastRequest{RoundId: in.Round}); err != nil {
		return nil, fault(err)
	}
	p.cfg.Log.Info("an operator asked for a rebroadcast through the page", "poet", t.Name, "round", in.Round, "from", r.RemoteAddr)
	p.note(t.Name, "an operator asked it to offer the proof of round "+in.Round+" again")
	return struct{}{}, nil
}

// smesher hands on what a node tells the owner of its space.
func (p *Page) smesher(w http.ResponseWriter, r *http.Request) {
	targets := p.cfg.Targets()
	i := slices.IndexFunc(targets, func(t Target) bool { return t.Job == "node" && t.Name == r.PathValue("node") })
	if i < 0 {
		http.Error(w, "no node of that name is watched", http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	var out telemetry.Smesher
	if err := p.look.get(ctx, "http://"+targets[i].Address+"/smesher", maxLayers, &out); err != nil {
		http.Error(w, reason(err), http.StatusBadGateway)
		return
	}
	out.Dir = "" // where a space is on its disk is for who owns the disk
	for i := range out.Others {
		out.Others[i].Dir = ""
	}
	reply(w, out)
}
