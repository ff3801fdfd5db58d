package preset

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// What is no rule is no constant of a preset: its name, and what Network adds.
var noRule = map[string]bool{"Name": true, "VM.HRP": true, "VM.Network": true, "VM.EffectiveGenesis": true, "VM.Genesis": true}

// A constant that no rule has would be in no network's identity.
func TestEveryConstantOfAPresetIsARule(t *testing.T) {
	var p Params
	fields := map[uintptr]string{}
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		for i := range v.NumField() {
			name := strings.TrimPrefix(path+"."+v.Type().Field(i).Name, ".")
			if f := v.Field(i); f.Kind() == reflect.Struct {
				walk(f, name)
			} else if !noRule[name] {
				fields[f.Addr().Pointer()] = name
			}
		}
	}
	walk(reflect.ValueOf(&p).Elem(), "")
	for _, r := range rules {
		at := reflect.ValueOf(r.field(&p)).Pointer()
		if fields[at] == "" {
			t.Errorf("rule %s stands for nothing, or for what another one does", r.Name)
		}
		delete(fields, at)
	}
	for _, name := range fields {
		t.Errorf("%s has no rule", name)
	}
}

// Each rule otherwise is another network, in its identity and after its file was read.
func TestARuleOtherwiseIsAnotherNetwork(t *testing.T) {
	plain := sample()
	seen := map[types.GenesisID]string{plain.ID(): "no rule"}
	for _, r := range AllRules() {
		text := map[string]string{
			"layer_duration": "3s", "proposal_window": "900ms", "beacon_phase": "700ms", "beacon_rounds": "8", "poet_phase_shift": "11s", "poet_cycle_gap": "9s", "poet_grace": "4s",
			"pow_difficulty": strings.Repeat("0f", 32), "scrypt_n": "4", "k3": "2", "max_units": "9", "min_units": "3", "hare_round": "90ms", "hare_iterations": "7",
		}[r.Name]
		switch {
		case r.Name == "pow" || r.Name == "address_prefix":
			continue // one hash is built in; the sample's addresses have the prefix
		case text == "":
			text = "77"
		}
		n := sample()
		n.Rules = Rules{r.Name: text}
		b, err := n.Marshal()
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		got, err := Load(write(t, string(b)))
		if err != nil {
			t.Errorf("%s: %v in %s", r.Name, err, b)
			continue
		}
		p, err := got.Params()
		if err != nil || r.Value(p) != text {
			t.Errorf("%s is %s, %v, want %s", r.Name, r.Value(p), err, text)
		}
		if before, ok := seen[got.ID()]; ok || got.ID() != n.ID() {
			t.Errorf("%s has the identity of %s", r.Name, before)
		}
		seen[got.ID()] = r.Name
	}
	main := Network{Name: "m", Preset: "mainnet", Genesis: sample().Genesis, ExtraData: "x"}
	published := types.NetworkID(main.Genesis, "x")
	if main.ID() != published {
		t.Error("a published network has another identity")
	}
	if main.Rules = (Rules{"k2": "38"}); main.ID() == published {
		t.Error("a network with another rule has the identity of a published one")
	}
}

func TestWrongRulesAreNamed(t *testing.T) {
	for _, c := range []struct {
		rules Rules
		want  string
	}{
		{Rules{"layer_duration": "1"}, `rule layer_duration: "1" is not a duration`},
		{Rules{"layer_duration": "0s"}, "an epoch has no duration"},
		{Rules{"layer_duration": "-2s"}, "an epoch has no duration"},
		{Rules{"layer_duration": "10ms"}, "peers need 100ms"},
		{Rules{"layer_duration": "1000000h"}, "is longer than 366 days"},
		{Rules{"layers_per_epoch": "0"}, "an epoch has no duration"},
		{Rules{"layers_per_epoch": "3"}, "at least 4"},
		{Rules{"layers_per_epoch": "4294967295"}, "is longer than 366 days"},
		{Rules{"layers_per_epoch": "4294967296"}, "whole number from 0 to 4294967295"},
		{Rules{"layers_per_epoch": "5"}, "poet_phase_shift is 10s, the epoch 10s"},
		{Rules{"poet_cycle_gap": "20s"}, "must be within an epoch: poet_cycle_gap is 20s"},
		{Rules{"poet_grace": "8s"}, "poet_grace 8s must be over 0 and below poet_cycle_gap 8s"},
		{Rules{"poet_grace": "0s"}, "poet_grace 0s"},
		{Rules{"poet_phase_shift": "4s"}, "over the grace period"},
		{Rules{"proposal_window": "2s"}, "proposal_window is 2s, the layer 2s"},
		{Rules{"beacon_rounds": "0"}, "it must be 1 to 32"},
		{Rules{"beacon_rounds": "33"}, "it must be 1 to 32"},
		{Rules{"beacon_rounds": "10"}, "takes 24 phases (beacon_rounds) of 800ms (beacon_phase), the epoch 20s"},
		{Rules{"beacon_phase": "-1s"}, "of -1s (beacon_phase)"},
		{Rules{"beacon_phase": "900ms"}, "takes 22 phases"},
		{Rules{"beacon_phase": "1000000h"}, "takes 22 phases"},
		{Rules{"tick_size": "0"}, "a tick has no leaves"},
		{Rules{"tick_size": "many"}, "whole number from 0 to 18446744073709551615"},
		{Rules{"min_units": "9"}, "MinUnits <= MaxUnits"},
		{Rules{"k3": "38"}, "K3 <= K2"},
		{Rules{"scrypt_n": "1000"}, "must be a power of two"},
		{Rules{"k1": "2000"}, "must exceed K1"},
		{Rules{"max_units": "4294967295", "labels_per_unit": "18446744073709551615"}, "overflow 64 bits"},
		{Rules{"pow": "randomx"}, "randomx"},
		{Rules{"pow_difficulty": "ff"}, "is not 64 hex digits"},
		{Rules{"txs_per_proposal": "0"}, "a proposal has no transactions"},
		{Rules{"block_gas_limit": "0"}, "must not be zero"},
		{Rules{"total_subsidy": "18446744073709551615"}, "do not fit 64 bits"},
		{Rules{"address_prefix": "UP"}, ""},
		{Rules{"layer_time": "1s"}, `unknown rule "layer_time"`},
	} {
		n := sample()
		n.Rules = c.rules
		err := n.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v, want %q", c.rules, err, c.want)
		}
	}
	for text, want := range map[string]string{
		`{"layers_per_epoch": "8"}`: "write the number without quotes",
		`{"layer_duration": 8}`:     "put it into quotes",
		`{"moon": 8}`:               `unknown rule "moon"`,
		`{"k2": 1.5}`:               "",
		`[1]`:                       "rules",
	} {
		var rs Rules
		err := json.Unmarshal([]byte(text), &rs)
		if err == nil {
			n := sample()
			n.Rules = rs
			err = n.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// A network of other times is one: its layers and rounds are where its rules say.
func TestRulesChangeTheSchedule(t *testing.T) {
	n := sample()
	n.Rules = Rules{"layer_duration": "1s", "layers_per_epoch": "30", "total_subsidy": "5"}
	p, err := n.Params()
	if err != nil {
		t.Fatal(err)
	}
	if s := n.Schedule(p); s.EpochDuration() != 30*time.Second {
		t.Errorf("an epoch has %v", s.EpochDuration())
	}
	v, err := n.VM(p)
	if err != nil || v.Economics.TotalSubsidy != 5 || v.BlockGasLimit != vm.LocalParams().BlockGasLimit {
		t.Errorf("%+v, %v", v, err)
	}
	if q := Local(); q.LayerDuration != 2*time.Second {
		t.Error("the preset itself has changed")
	}
}
