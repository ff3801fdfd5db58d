package node

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"tweedle/edges/p2p"
	"tweedle/protocol/core"
	"tweedle/protocol/syncer"
	"tweedle/values/codec"
)

// FuzzHandlersOfPeers gives bytes to every topic and every request of a node whose machine
// runs: no panic, an answer within its limits, and what made no sense is not accepted.
func FuzzHandlersOfPeers(f *testing.F) {
	w := openWorld(f)
	topics := core.Topics()
	f.Add(uint8(0), codec.Encode(w.miners[0].atx))
	f.Add(uint8(4), codec.Encode(&w.poet))
	requests := uint8(len(topics))
	f.Add(requests, codec.Encode(core.RequestOf(syncer.Ask{Objects: []syncer.Name{{Kind: syncer.ATX, ID: w.miners[0].atx.ID()}}})))
	f.Add(requests, codec.Encode(core.RequestOf(syncer.Ask{Epochs: &syncer.Epochs{From: 0, To: syncer.MaxEpochs - 1}})))
	f.Add(requests, codec.Encode(core.RequestOf(syncer.Ask{Layers: &syncer.Layers{From: 1 << 31}})))
	f.Add(requests+1, codec.Encode(&w.poet))
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // what waits for more is let go
		defer cancel()
		var answer []byte
		var err error
		switch which %= requests + 2; which {
		case requests:
			answer, err = w.serveAsk(ctx, peer, raw)
		case requests + 1:
			answer, err = w.servePoet(ctx, peer, raw)
			_ = codec.Decode(raw, new(poetAnswer)) // what the other side would read
		default:
			if v := w.onGossip(topics[which])(ctx, peer, raw); v == p2p.Accept() && len(raw) < 32 {
				t.Fatalf("%s of %d bytes is accepted", topics[which], len(raw))
			}
		}
		if len(answer) > core.MaxAnswer || err != nil && answer != nil {
			t.Fatalf("%d bytes, %v", len(answer), err)
		}
	})
}

// FuzzPages asks the operator's pages.
func FuzzPages(f *testing.F) {
	w := openWorld(f)
	h := w.servers.pages
	f.Add("/layers", "from=4294967295")
	f.Add("/layers", "from=-1&from=2")
	f.Add("/status", "")
	f.Add("/peers", "x=%00")
	f.Add("/smesher", "")
	f.Fuzz(func(t *testing.T, path, query string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL = &url.URL{Path: "/" + path, RawQuery: query}
		out := httptest.NewRecorder()
		h.ServeHTTP(out, r)
		if out.Code >= 500 {
			t.Fatalf("%s?%s: %d %s", path, query, out.Code, out.Body)
		}
	})
}
