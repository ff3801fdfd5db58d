package engine

import (
	"context"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/common/model"
)

// lostWrites counts the writes of samples that failed.
const lostWrites = "prometheus_tsdb_wal_writes_failed_total"

// tellBlindness tells that samples cannot be written, until they can. Without new samples all
// rules are silent, the one about this too: so it goes past them.
func (e *Engine) tellBlindness(ctx context.Context) {
	ticker := time.NewTicker(e.cfg.Evaluate)
	defer ticker.Stop()
	before, since, quiet := e.lostWrites(), time.Time{}, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, lost := time.Now(), e.lostWrites()
		quiet++
		if lost > before {
			quiet = 0
		}
		before = lost
		if quiet == 0 && since.IsZero() {
			since = now
		}
		if since.IsZero() {
			continue
		}
		ends := now.Add(max(4*e.cfg.Evaluate, time.Minute))
		if quiet > 2 {
			ends = now
		}
		labels := model.LabelSet{"alertname": "WatchStorageFailing", "severity": "page"}
		for k, v := range e.cfg.Self {
			labels[model.LabelName(k)] = model.LabelValue(v)
		}
		err := e.deliver.alerts.Put(ctx, &alert.Alert{UpdatedAt: now, Alert: model.Alert{
			Labels: labels, StartsAt: since, EndsAt: ends, GeneratorURL: e.deliver.url.JoinPath("/runbook/WatchStorageFailing").String(),
			Annotations: model.LabelSet{"summary": "the watch cannot write its samples and is blind: its disk is full or broken", "runbook": "WatchStorageFailing"},
		}})
		if err != nil {
			e.cfg.Log.Error("nobody is told that samples cannot be written", "err", err)
		}
		if quiet > 2 {
			since = time.Time{}
		}
	}
}

func (e *Engine) lostWrites() (n float64) {
	families, err := e.cfg.Registry.Gather()
	if err != nil {
		e.cfg.Log.Error("the watch cannot read its own metrics", "err", err)
	}
	for _, f := range families {
		if f.GetName() == lostWrites {
			n += f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return n
}
