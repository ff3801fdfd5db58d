package preset

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tweedle/protocol/vm"
	"tweedle/values/types"
)

func address(b byte, hrp string) string { return types.Address{23: b}.Bech32(hrp) }

// sample is a network with everything in it.
func sample() Network {
	return Network{
		Name: "sample", Preset: "local", Genesis: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), ExtraData: "c0ffee",
		Accounts: []Account{{address(1, "stest"), 5}, {address(2, "stest"), 7}},
	}
}

func TestAllPresetsAreValidAndFoundByTheirNames(t *testing.T) {
	for _, p := range presets() {
		if err := p.Validate(); err != nil {
			t.Error(err)
		}
		got, err := Named(p.Name)
		if err != nil || got.Name != p.Name || got.LayerDuration != p.LayerDuration {
			t.Errorf("%s: %+v, %v", p.Name, got, err)
		}
		n := Network{Name: "n", Preset: p.Name, Genesis: sample().Genesis, Accounts: []Account{{address(1, p.HRP), 1}}}
		if err := n.Validate(); err != nil {
			t.Errorf("network of preset %s: %v", p.Name, err)
		}
	}
	_, err := Named("moon")
	if err == nil || !strings.Contains(err.Error(), `"moon"`) || !strings.Contains(err.Error(), "mainnet, testnet, local, test") {
		t.Errorf("unknown preset: %v", err)
	}
}

// Design.md section 7, item 8 and reference/protocol.md A15.
func TestPresetsHaveTheirPublishedTimes(t *testing.T) {
	for _, tc := range []struct {
		p                 Params
		layer, epoch      time.Duration
		shift, gap        time.Duration
		firstBallotsAfter time.Duration
	}{
		{Mainnet(), 5 * time.Minute, 14 * 24 * time.Hour, 240 * time.Hour, 12 * time.Hour, 28 * 24 * time.Hour},
		{Testnet(), 5 * time.Minute, 24 * time.Hour, 12 * time.Hour, 2 * time.Hour, 48 * time.Hour},
		{Local(), 2 * time.Second, 20 * time.Second, 10 * time.Second, 8 * time.Second, 40 * time.Second},
		{Test(), 15 * time.Second, time.Minute, 30 * time.Second, 30 * time.Second, 2 * time.Minute},
	} {
		n := Network{Name: "n", Preset: tc.p.Name, Genesis: sample().Genesis}
		s, poet := n.Schedule(tc.p), n.PoetSchedule(tc.p)
		if s.LayerDuration != tc.layer || s.EpochDuration() != tc.epoch || poet.EpochDuration != tc.epoch {
			t.Errorf("%s: layers of %v, epochs of %v, PoET epochs of %v", tc.p.Name, s.LayerDuration, s.EpochDuration(), poet.EpochDuration)
		}
		if got := poet.Start(0).Sub(n.Genesis); got != tc.shift {
			t.Errorf("%s: the first round starts after %v", tc.p.Name, got)
		}
		if got := poet.Start(1).Sub(poet.End(0)); got != tc.gap {
			t.Errorf("%s: %v from one round to the next", tc.p.Name, got)
		}
		if got := s.LayerStart(s.FirstBallotLayer()).Sub(n.Genesis); got != tc.firstBallotsAfter {
			t.Errorf("%s: ballots from %v on", tc.p.Name, got)
		}
		v, err := n.VM(tc.p)
		if err != nil || v.EffectiveGenesis+1 != s.FirstBallotLayer() || v.HRP != tc.p.HRP || v.Network != n.ID() {
			t.Errorf("%s: ledger %+v, %v", tc.p.Name, v, err)
		}
	}
}

func TestEachBadConstantHasItsMessage(t *testing.T) {
	for want, change := range map[string]func(*Params){
		"an epoch has no duration":        func(p *Params) { p.LayerDuration = 0 },
		"an epoch has no duration ":       func(p *Params) { p.LayersPerEpoch = 0 },
		"it must be whole seconds":        func(p *Params) { p.LayerDuration = 1500 * time.Millisecond },
		"PoET cycle gap must be":          func(p *Params) { p.PoetCycleGap = 0 },
		"PoET cycle gap must be within":   func(p *Params) { p.PoetCycleGap = 20 * time.Second },
		"PoET phase shift must be":        func(p *Params) { p.PoetPhaseShift = p.PoetGrace },
		"PoET phase shift must be within": func(p *Params) { p.PoetPhaseShift = 20 * time.Second },
		"proposal window must be":         func(p *Params) { p.ProposalWindow = 0 },
		"proposal window must be within":  func(p *Params) { p.ProposalWindow = p.LayerDuration },
		"hare_round is":                   func(p *Params) { p.HareRound = time.Millisecond },
		"nobody agrees on a layer":        func(p *Params) { p.HareCommittee = 0 },
		"nobody agrees on a layer ":       func(p *Params) { p.HareLeaders = 0 },
		"hare_iterations is 0":            func(p *Params) { p.HareIterations = 0 },
		"hare_iterations is 37":           func(p *Params) { p.HareIterations = 37 },
		"the agreement on a layer may":    func(p *Params) { p.HareRound = time.Second },
		"a tick has no leaves":            func(p *Params) { p.TickSize = 0 },
		"a layer has no ballots":          func(p *Params) { p.LayerSize = 0 },
		"a proposal has no transactions":  func(p *Params) { p.TxsPerProposal = 0 },
		"post parameters: ScryptN":        func(p *Params) { p.Post.ScryptN = 3 },
		"post parameters: LabelsPerUnit":  func(p *Params) { p.Post.LabelsPerUnit = 0 },
	} {
		p := Local()
		change(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestEachBadFieldOfANetworkHasItsMessage(t *testing.T) {
	for want, change := range map[string]func(*Network){
		"has no name":               func(n *Network) { n.Name = "" },
		`unknown preset "moon"`:     func(n *Network) { n.Preset = "moon" },
		"not a whole second":        func(n *Network) { n.Genesis = n.Genesis.Add(time.Millisecond) },
		"not a whole second after":  func(n *Network) { n.Genesis = time.Time{} },
		"second after 1970":         func(n *Network) { n.Genesis = time.Unix(0, 0) },
		"extra data":                func(n *Network) { n.ExtraData = "a|b" },
		"checksum is wrong":         func(n *Network) { n.Accounts[0].Address = "stest1qqqqqq" },
		`is of network "sm"`:        func(n *Network) { n.Accounts[0].Address = address(1, "sm") },
		"is named twice":            func(n *Network) { n.Accounts[1].Address = n.Accounts[0].Address },
		"do not fit 64 bits":        func(n *Network) { n.Accounts[1].Balance = 1<<64 - 1 },
		"genesis account: address ": func(n *Network) { n.Accounts[1].Address = "" },
	} {
		n := sample()
		change(&n)
		err := n.Validate()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", want, err)
		}
		if _, err := n.Marshal(); err == nil {
			t.Errorf("%s: it is written to a file", want)
		}
	}
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), File)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestANetworkFileComesBackAsItWasWritten(t *testing.T) {
	for _, n := range []Network{sample(), {Name: "bare", Preset: "mainnet", Genesis: sample().Genesis}} {
		b, err := n.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Load(write(t, string(b)))
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := got.Marshal(); !bytes.Equal(b, again) || got.ID() != n.ID() || got.Golden() != n.Golden() {
			t.Errorf("wrote %s, read %s", b, again)
		}
	}
}

func TestWhatIsNoNetworkFileIsRefusedByName(t *testing.T) {
	b, err := sample().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	for name, tc := range map[string]struct{ content, want string }{
		"empty":                 {"", "EOF"},
		"no JSON":               {"genesis: now", "invalid character"},
		"cut off":               {good[:len(good)/2], "unexpected EOF"},
		"unknown field":         {strings.Replace(good, `"name"`, `"layers_per_epoch": 3, "name"`, 1), `unknown field "layers_per_epoch"`},
		"unknown account field": {strings.Replace(good, `"balance": 5`, `"balance": 5, "nonce": 1`, 1), `unknown field "nonce"`},
		"something after it":    {good + good, "after its end"},
		"text for a number":     {strings.Replace(good, `"balance": 5`, `"balance": "5"`, 1), "balance"},
		"negative balance":      {strings.Replace(good, `"balance": 5`, `"balance": -5`, 1), "balance"},
		"no time":               {strings.Replace(good, "2026-12-01T00:00:00Z", "tomorrow", 1), "tomorrow"},
		"a bad field":           {strings.Replace(good, `"local"`, `"moon"`, 1), `unknown preset "moon"`},
		"too long":              {strings.Repeat(" ", maxFileSize) + good, "cannot be one"},
	} {
		path := write(t, tc.content)
		_, err := Load(path)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	absent := filepath.Join(t.TempDir(), "absent.json")
	if _, err := Load(absent); err == nil || !strings.Contains(err.Error(), absent) {
		t.Errorf("absent: %v", err)
	}
}

func TestWhateverDiffersMakesAnotherNetwork(t *testing.T) {
	base := sample()
	for name, change := range map[string]func(*Network){
		"genesis time":        func(n *Network) { n.Genesis = n.Genesis.Add(time.Second) },
		"extra data":          func(n *Network) { n.ExtraData += "0" },
		"preset":              func(n *Network) { n.Preset = "test" },
		"a balance":           func(n *Network) { n.Accounts[0].Balance++ },
		"an account":          func(n *Network) { n.Accounts[0].Address = address(3, "stest") },
		"one account less":    func(n *Network) { n.Accounts = n.Accounts[:1] },
		"no accounts":         func(n *Network) { n.Accounts = nil },
		"accounts and preset": func(n *Network) { n.Accounts, n.Preset = nil, "test" },
		"accounts, published": func(n *Network) { n.Accounts, n.Preset = nil, "mainnet" },
	} {
		n := sample()
		change(&n)
		if err := n.Validate(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n.ID() == base.ID() || n.Golden() == base.Golden() {
			t.Errorf("%s is not part of the network's identity", name)
		}
	}
	same := sample()
	same.Accounts[0], same.Accounts[1] = same.Accounts[1], same.Accounts[0]
	same.Genesis = same.Genesis.In(time.FixedZone("elsewhere", 3600))
	if same.ID() != base.ID() {
		t.Error("the order of accounts, or the time zone, is part of the network's identity")
	}
}

// Without accounts, only the preset tells these networks apart.
func TestNetworksOfTwoKindsAreNeverOne(t *testing.T) {
	seen := map[types.GenesisID]string{}
	for _, p := range presets() {
		n := Network{Name: "n", Preset: p.Name, Genesis: sample().Genesis}
		if other, ok := seen[n.ID()]; ok {
			t.Errorf("%s and %s have the same id", p.Name, other)
		}
		seen[n.ID()] = p.Name
	}
}

// The published mainnet: its golden ATX is the hash of genesis time and extra
// data alone (reference/protocol.md A1), so that a network file can name it.
func TestAPublishedNetworkHasItsPublishedIdentity(t *testing.T) {
	n := Network{
		Name: "mainnet", Preset: "mainnet", Genesis: time.Date(2023, 7, 14, 8, 0, 0, 0, time.UTC),
		ExtraData: "00000000000000000001a6bc150307b5c1998045752b3c87eccf3c013036f3cc",
	}
	if got := n.ID().String(); got != "9eebff023abb17ccb775c602daade8ed708f0a50" {
		t.Errorf("mainnet has id %s", got)
	}
}

func TestGenesisBalancesAreThoseOfTheFile(t *testing.T) {
	n := sample()
	p, err := n.Params()
	if err != nil {
		t.Fatal(err)
	}
	v, err := n.VM(p)
	if err != nil {
		t.Fatal(err)
	}
	s, err := vm.Genesis(v)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range map[byte]uint64{1: 5, 2: 7, 3: 0} {
		if got := s.Account(types.Address{23: i}).Balance; got != want {
			t.Errorf("account %d begins with %d, want %d", i, got, want)
		}
	}
}

// What is accepted is written as it was understood, and is the same network.
func FuzzNetworkFile(f *testing.F) {
	for _, n := range []Network{sample(), {Name: "bare", Preset: "mainnet", Genesis: sample().Genesis}} {
		b, err := n.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"name":"x","preset":"test","genesis_time":"2026-12-01T00:00:00+23:59"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parse(b)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("the error is not one line: %q", err)
			}
			return
		}
		written, err := n.Marshal()
		if err != nil {
			t.Fatalf("accepted %s, cannot write it: %v", b, err)
		}
		again, err := parse(written)
		if err != nil || again.ID() != n.ID() || again.Name != n.Name || !json.Valid(written) {
			t.Fatalf("accepted %s, read back %+v, %v", b, again, err)
		}
	})
}
