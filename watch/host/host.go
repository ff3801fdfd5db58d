// Package host shows the machine's disks, memory, processors and clock as
// node_exporter does: its own collectors, under its own names.
//
// It promises names and labels that rules and dashboards of others know. It leaves
// to the caller to serve them.
package host

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/node_exporter/collector"
)

// parse sets the collectors' flags, which are global, to their defaults, once.
var parse = sync.OnceValue(func() error {
	_, err := kingpin.CommandLine.Parse(nil)
	return err
})

// New returns the collectors that our rules and dashboards ask for.
func New(log *slog.Logger) (prometheus.Collector, error) {
	if err := parse(); err != nil {
		return nil, fmt.Errorf("metrics of the machine: %w", err)
	}
	c, err := collector.NewNodeCollector(log, "cpu", "diskstats", "filefd", "filesystem", "loadavg", "meminfo", "netdev", "pressure", "sockstat", "timex", "vmstat")
	if err != nil {
		return nil, fmt.Errorf("metrics of the machine: %w: set host: false", err)
	}
	return c, nil
}
