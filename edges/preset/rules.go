package preset

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"tweedle/proofs/post"
)

// Rule is a parameter that a network can have otherwise than its preset.
type Rule struct {
	Name  string // in a network file; with dashes for underscores, the flag
	Help  string // with its unit
	field func(*Params) any
}

// Flag is the rule's name as a flag.
func (r Rule) Flag() string { return strings.ReplaceAll(r.Name, "_", "-") }

// rules has everything that two programs of one network must agree on, in the order in
// which people read it. The name of the preset is not among them: it decides nothing.
var rules = []Rule{
	{"layer_duration", "time of a layer", func(p *Params) any { return &p.LayerDuration }},
	{"layers_per_epoch", "layers of an epoch", func(p *Params) any { return &p.LayersPerEpoch }},
	{"proposal_window", "time from a layer's start in which proposals count", func(p *Params) any { return &p.ProposalWindow }},
	{"beacon_phase", "time in which a message about the beacon reaches everybody; 0s: a 25th of an epoch", func(p *Params) any { return &p.BeaconPhase }},
	{"beacon_rounds", "rounds of votes after the first about the beacon", func(p *Params) any { return &p.BeaconRounds }},
	{"hare_round", "time of a round of the agreement on a layer's proposals; 0s: a 14th of a layer", func(p *Params) any { return &p.HareRound }},
	{"hare_committee", "seats of a round, on average", func(p *Params) any { return &p.HareCommittee }},
	{"hare_leaders", "seats of a round in which sets of proposals are proposed, on average", func(p *Params) any { return &p.HareLeaders }},
	{"hare_iterations", "iterations after which a layer is given up", func(p *Params) any { return &p.HareIterations }},
	{"poet_phase_shift", "time from an epoch's start to that of the PoET round", func(p *Params) any { return &p.PoetPhaseShift }},
	{"poet_cycle_gap", "time from the end of a PoET round to the start of the next", func(p *Params) any { return &p.PoetCycleGap }},
	{"poet_grace", "time before a PoET round's start in which smeshers register", func(p *Params) any { return &p.PoetGrace }},
	{"tick_size", "leaves of PoET work in a tick", func(p *Params) any { return &p.TickSize }},
	{"labels_per_unit", "labels of 16 bytes in a unit of space", func(p *Params) any { return &p.Post.LabelsPerUnit }},
	{"min_units", "fewest units of space of a smesher", func(p *Params) any { return &p.Post.MinUnits }},
	{"max_units", "most units of space of a smesher", func(p *Params) any { return &p.Post.MaxUnits }},
	{"scrypt_n", "cost of a label, a power of two", func(p *Params) any { return &p.Post.ScryptN }},
	{"k1", "labels that are expected to pass for one nonce", func(p *Params) any { return &p.Post.K1 }},
	{"k2", "labels in a proof of space", func(p *Params) any { return &p.Post.K2 }},
	{"k3", "labels of it that a node checks", func(p *Params) any { return &p.Post.K3 }},
	{"pow", "hash of a proof's proof of work", func(p *Params) any { return &p.Post.PoW }},
	{"pow_difficulty", "what that hash must stay below, 64 hex digits", func(p *Params) any { return &p.Post.PowDifficulty }},
	{"layer_size", "ballots of a layer, on average", func(p *Params) any { return &p.LayerSize }},
	{"min_active_weight", "least weight that slots are shared by", func(p *Params) any { return &p.MinActiveWeight }},
	{"txs_per_proposal", "transactions for each slot of a proposal", func(p *Params) any { return &p.TxsPerProposal }},
	{"block_gas_limit", "gas of the transactions of a block", func(p *Params) any { return &p.VM.BlockGasLimit }},
	{"total_subsidy", "smidges that are issued over all time", func(p *Params) any { return &p.VM.Economics.TotalSubsidy }},
	{"subsidy_fifth_layers", "layers in which a fifth of what is left is issued", func(p *Params) any { return &p.VM.Economics.FifthLayers }},
	{"address_prefix", "how written addresses begin", func(p *Params) any { return &p.HRP }},
}

// AllRules returns the rules that a network can have otherwise, in the order in which
// people read them.
func AllRules() []Rule { return slices.Clone(rules) }

// Value returns a rule's value in a network as text.
func (r Rule) Value(p Params) string {
	switch v := r.field(&p).(type) {
	case *time.Duration:
		return v.String()
	case *[32]byte:
		return hex.EncodeToString(v[:])
	case *post.PoW:
		return (*v).Name()
	case *string:
		return *v
	case *uint32:
		return strconv.FormatUint(uint64(*v), 10)
	case *uint64:
		return strconv.FormatUint(*v, 10)
	case *int:
		return strconv.Itoa(*v)
	default:
		panic(fmt.Sprintf("preset: rule %s has type %T", r.Name, v))
	}
}

// Number tells whether the value is a number in a network file.
func (r Rule) Number() bool {
	switch r.field(new(Params)).(type) {
	case *uint32, *uint64, *int:
		return true
	}
	return false
}

// Set gives a network another value. The error says what is wrong with the text.
func (r Rule) Set(p *Params, text string) (err error) {
	switch v := r.field(p).(type) {
	case *time.Duration:
		if *v, err = time.ParseDuration(text); err != nil {
			return errors.New("is not a duration like 300ms, 2s or 5m")
		}
	case *[32]byte:
		if b, err := hex.DecodeString(text); err != nil || copy(v[:], b) != len(v) || len(b) != len(v) {
			return errors.New("is not 64 hex digits")
		}
	case *post.PoW:
		if *v, err = post.PoWByName(text); err != nil {
			return err
		}
	case *string:
		*v = text
	case *uint32:
		err = unsigned(text, 32, v)
	case *uint64:
		err = unsigned(text, 64, v)
	case *int:
		var n uint32
		err = unsigned(text, 31, &n)
		*v = int(n)
	}
	return err
}

func unsigned[T uint32 | uint64](text string, bits int, to *T) error {
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		return fmt.Errorf("is not a whole number from 0 to %d", uint64(1)<<(bits-1)-1+uint64(1)<<(bits-1))
	}
	*to = T(n)
	return nil
}

// Rules are what a network has otherwise than its preset: texts by the names of rules.
type Rules map[string]string

// apply changes the constants of a preset.
func (rs Rules) apply(p *Params) error {
	known := 0
	for _, r := range rules {
		text, ok := rs[r.Name]
		if !ok {
			continue
		}
		known++
		if err := r.Set(p, text); err != nil {
			return fmt.Errorf("rule %s: %q %w", r.Name, text, err)
		}
	}
	if known < len(rs) {
		for name := range rs {
			if !slices.ContainsFunc(rules, func(r Rule) bool { return r.Name == name }) {
				return fmt.Errorf("unknown rule %q: `tweedle network rules` lists them", name)
			}
		}
	}
	return nil
}

// MarshalJSON writes the rules in their order, numbers as numbers.
func (rs Rules) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for _, r := range rules {
		text, ok := rs[r.Name]
		if !ok {
			continue
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:", r.Name)
		if r.Number() {
			b.WriteString(text)
			continue
		}
		quoted, err := json.Marshal(text)
		if err != nil {
			return nil, err
		}
		b.Write(quoted)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (rs *Rules) UnmarshalJSON(b []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	*rs = make(Rules, len(raw))
	for name, value := range raw {
		i := slices.IndexFunc(rules, func(r Rule) bool { return r.Name == name })
		if i < 0 {
			return fmt.Errorf("unknown rule %q: `tweedle network rules` lists them", name)
		}
		var text string
		switch err := json.Unmarshal(value, &text); {
		case rules[i].Number() && err == nil:
			return fmt.Errorf("rule %s: %s is a text, write the number without quotes", name, value)
		case rules[i].Number():
			text = string(value)
		case err != nil:
			return fmt.Errorf("rule %s: %s is no text, put it into quotes", name, value)
		}
		(*rs)[name] = text
	}
	return nil
}

// said writes every rule of a network in one form: what its identity covers.
func said(p Params) string {
	lines := make([]string, len(rules))
	for i, r := range rules {
		lines[i] = r.Name + "=" + r.Value(p)
	}
	return strings.Join(lines, ",")
}
