package testnet

import (
	"fmt"
	"slices"

	"tweedle/base/telemetry"
)

// story turns statuses into events: what is new since the last one. It is
// plain data with one owner.
type story struct {
	epoch    int  // last told; -1: before genesis
	stalled  bool // told that no layers are applied
	smeshers map[string]telemetry.SmesherStep
	rounds   map[string]map[string]string // states by PoET and round
	gateways map[string][]Gateway
	silent   map[string]int // by process: statuses in a row without an answer
}

func newStory() story {
	return story{
		epoch:    -1,
		smeshers: make(map[string]telemetry.SmesherStep),
		rounds:   make(map[string]map[string]string),
		gateways: make(map[string][]Gateway),
		silent:   make(map[string]int),
	}
}

// Thresholds below which nothing is told.
const (
	stallLayers = 5    // without a new one being applied
	initStep    = 0.25 // of PoST initialization
	maxSilence  = 8    // statuses
)

// next returns what a status has that the one before had not.
func (st *story) next(s *Status, sent uint64) []Event {
	var out []Event
	if s.Started && int(s.Epoch) > st.epoch {
		st.epoch = int(s.Epoch)
		atxs := 0
		for _, n := range s.Nodes {
			if n.ATXEpoch != nil && s.Epoch > 0 && *n.ATXEpoch == s.Epoch-1 {
				atxs++
			}
		}
		out = append(out, Clock{Epoch: s.Epoch, Layer: s.Layer, ATXs: atxs, Nodes: len(s.Nodes), Sent: sent})
	}
	out = append(out, st.progress(s)...)
	for _, n := range s.Nodes {
		if n.Smesher != nil && st.newStep(n.Name, *n.Smesher) {
			out = append(out, Smesher{n.Name, *n.Smesher})
		}
		out = append(out, st.answered(n.Name, n.State == Running && !n.Paused, n.Error)...)
	}
	for _, p := range s.Poets {
		if p.rounds != nil {
			now := make(map[string]string) // drops the rounds that the PoET tells of no more
			for _, r := range p.rounds {
				now[r.Round] = r.State
				if st.rounds[p.Name][r.Round] != r.State {
					out = append(out, r)
				}
			}
			st.rounds[p.Name] = now
		}
		if p.Gateways != nil && !slices.Equal(st.gateways[p.Name], p.Gateways) {
			st.gateways[p.Name] = p.Gateways
			out = append(out, PoetGateways{p.Name, p.Gateways})
		}
		out = append(out, st.answered(p.Name, p.State == Running && !p.Paused, p.Error)...)
	}
	return out
}

// progress tells once that no layers are applied, and once that they are again.
// Before the first ballots a node's applied layer is the one before them.
func (st *story) progress(s *Status) []Event {
	var newest uint32
	for _, n := range s.Nodes {
		if n.AppliedLayer != nil {
			newest = max(newest, *n.AppliedLayer)
		}
	}
	switch stalled := newest > 0 && newest+stallLayers < s.Layer; {
	case newest == 0 || stalled == st.stalled:
		return nil
	case stalled:
		st.stalled = true
		return []Event{Note{Text: fmt.Sprintf("the network stands still: the newest applied layer is %d, the clock is at %d", newest, s.Layer)}}
	default:
		st.stalled = false
		return []Event{Note{Text: fmt.Sprintf("the network goes on: layer %d is applied", newest)}}
	}
}

// newStep tells whether a smesher's step differs enough to be told.
func (st *story) newStep(name string, now telemetry.SmesherStep) bool {
	last, known := st.smeshers[name]
	if known && last.Step == now.Step && last.Error == now.Error && now.Progress < last.Progress+initStep {
		return false
	}
	if known && last == now {
		return false
	}
	st.smeshers[name] = now
	return true
}

// answered tells once that a running process does not answer, and once that
// it does again.
func (st *story) answered(name string, asked bool, trouble string) []Event {
	switch {
	case !asked || trouble == "":
		was := st.silent[name]
		delete(st.silent, name)
		if asked && was >= maxSilence {
			return []Event{Note{name, "answers again"}}
		}
	default:
		st.silent[name]++
		if st.silent[name] == maxSilence {
			return []Event{Note{name, "runs but does not answer: " + trouble}}
		}
	}
	return nil
}
