package api

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"

	"tweedle/base/telemetry"
	"tweedle/values/types"
)

// Operator is what a node shows to its operator.
type Operator interface {
	Status() telemetry.NodeStatus
	Peers() telemetry.Peers
	// Layers tells the outcome of the layers from one on.
	Layers(from types.Layer) ([]telemetry.LayerStatus, error)
	// Smesher tells what the smesher does and waits for; ok is false if there is none.
	Smesher() (screen telemetry.Smesher, ok bool, err error)
}

// Operations serves metrics, status, peers, layers and the smesher's screen. It has
// nothing that changes the node, and belongs on a listener for the operator.
func Operations(o Operator, registry *telemetry.Registry, log *slog.Logger) http.Handler {
	answer := func(w http.ResponseWriter, v any, err error) {
		if err != nil {
			log.Error("status", "err", err)
			http.Error(w, "cannot read the store", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the reader has gone; nobody is left to tell
	}
	mux := http.NewServeMux()
	registry.ServeMetrics(mux)
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, o.Status(), nil) })
	mux.HandleFunc("GET /peers", func(w http.ResponseWriter, _ *http.Request) { answer(w, o.Peers(), nil) })
	mux.HandleFunc("GET /smesher", func(w http.ResponseWriter, _ *http.Request) {
		screen, ok, err := o.Smesher()
		if !ok {
			http.Error(w, "this node does not smesh: start it with --smeshing", http.StatusNotFound)
			return
		}
		answer(w, screen, err)
	})
	mux.HandleFunc("GET /layers", func(w http.ResponseWriter, r *http.Request) {
		from, err := strconv.ParseUint(r.FormValue("from"), 10, 32)
		if err != nil && r.FormValue("from") != "" {
			http.Error(w, "from is not a layer number", http.StatusBadRequest)
			return
		}
		layers, err := o.Layers(types.Layer(from))
		answer(w, layers, err)
	})
	return mux
}
