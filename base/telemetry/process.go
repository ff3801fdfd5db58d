package telemetry

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// CrashFileVariable names the environment variable with the file to which a
// supervisor wants our crash report.
const CrashFileVariable = "TWEEDLE_CRASH_FILE"

// ReportCrashes has the runtime write its last words, of all goroutines, to the
// file of CrashFileVariable too, if there is one. It must be called before
// anything can crash.
func ReportCrashes() error {
	path := os.Getenv(CrashFileVariable)
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("crash report: %w: unset %s", err, CrashFileVariable)
	}
	defer f.Close() // the runtime has its own
	debug.SetTraceback("all")
	return debug.SetCrashOutput(f, debug.CrashOptions{})
}

// Times are those of a network that every program of it shows: thresholds of alerts
// count layers and epochs by them. Zero ones are not shown.
type Times struct {
	Genesis time.Time
	Layer   time.Duration
	Epoch   time.Duration
}

// DescribeProcess registers what every program shows: its version, its resources
// and its network's times.
func DescribeProcess(to prometheus.Registerer, version string, t Times) {
	gauge := func(name, help string, value float64, labels prometheus.Labels) {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "tweedle_" + name, Help: help, ConstLabels: labels})
		g.Set(value)
		to.MustRegister(g)
	}
	to.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gauge("build_info", "1, with the program's version.", 1, prometheus.Labels{"version": version})
	if !t.Genesis.IsZero() {
		gauge("network_genesis_timestamp_seconds", "When the network begins.", float64(t.Genesis.UnixMilli())/1000, nil)
	}
	if t.Layer > 0 {
		gauge("network_layer_seconds", "How long a layer lasts.", t.Layer.Seconds(), nil)
	}
	if t.Epoch > 0 {
		gauge("network_epoch_seconds", "How long an epoch lasts.", t.Epoch.Seconds(), nil)
	}
}
