package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// Parts is a model in pieces that change by themselves, as JSON: "status", "node/node-1",
// "layer/120" and so on.
type Parts map[string]json.RawMessage

// Change is what readers are sent.
type Change struct {
	Whole bool     `json:"whole,omitempty"` // Set is all that there is
	Set   Parts    `json:"set"`
	Gone  []string `json:"gone,omitempty"`
}

// parts takes a model, and the log beside it, apart.
func (m Model) parts(log []Event) Parts {
	out := Parts{}
	put := func(key string, v any) {
		b, err := json.Marshal(v)
		if err != nil {
			panic("page: " + err.Error()) // our own types can be encoded
		}
		out[key] = b
	}
	order := make([]string, 0, len(m.Nodes))
	for _, n := range m.Nodes {
		order = append(order, n.Name)
		put("node/"+n.Name, n)
	}
	for _, c := range m.Layers {
		put(fmt.Sprint("layer/", c.Layer), c)
	}
	for _, p := range m.Poets {
		put("poet/"+p.Name, p)
	}
	for _, e := range log {
		put(fmt.Sprint("event/", e.ID), e)
	}
	put("status", m.Status)
	put("order", order)
	put("chain", m.Chain)
	put("epochs", orEmpty(m.Epochs))
	put("alerts", orEmpty(m.Alerts))
	put("programs", orEmpty(m.Programs))
	return out
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// since returns what is different from before.
func (p Parts) since(before Parts) Change {
	c := Change{Set: Parts{}}
	for key, v := range p {
		if old, ok := before[key]; !ok || !bytes.Equal(old, v) {
			c.Set[key] = v
		}
	}
	for key := range before {
		if _, ok := p[key]; !ok {
			c.Gone = append(c.Gone, key)
		}
	}
	slices.Sort(c.Gone)
	return c
}
