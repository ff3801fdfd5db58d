package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/alertmanager/silence/silencepb"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// Sample is one series of an answer.
type Sample struct {
	Labels map[string]string // with the metric's name as __name__, if it is left
	Value  float64
}

// Query answers an expression at a moment, which must give series.
func (e *Engine) Query(ctx context.Context, expr string, at time.Time) ([]Sample, error) {
	q, err := e.query.NewInstantQuery(ctx, e.db, nil, expr, at)
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", expr, err)
	}
	defer q.Close()
	result := q.Exec(ctx)
	vector, err := result.Vector()
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", expr, err)
	}
	out := make([]Sample, 0, len(vector))
	for _, s := range vector {
		set := map[string]string{}
		s.Metric.Range(func(l labels.Label) { set[l.Name] = l.Value })
		out = append(out, Sample{set, s.F})
	}
	return out, nil
}

// Silence is why nobody is told of an alert.
type Silence struct {
	ID      string    `json:"id"`
	By      string    `json:"by"`
	Comment string    `json:"comment"`
	Until   time.Time `json:"until"`
}

// silenceOf returns the silence of an alert that ends last.
func (d *deliverer) silenceOf(ctx context.Context, set model.LabelSet) *Silence {
	found, _, err := d.silences.Query(ctx, silence.QState(silence.SilenceStateActive), silence.QMatches(set))
	if err != nil {
		d.log.Error("the silences cannot be read", "err", err)
		return nil
	}
	var last *silencepb.Silence
	for _, s := range found {
		if last == nil || s.EndsAt.AsTime().After(last.EndsAt.AsTime()) {
			last = s
		}
	}
	if last == nil {
		return nil
	}
	return &Silence{last.Id, last.CreatedBy, last.Comment, last.EndsAt.AsTime()}
}
