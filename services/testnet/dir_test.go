package testnet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tweedle/edges/preset"
)

func TestADirectoryThatCannotBeUsedIsRefusedInOneLine(t *testing.T) {
	tmp := t.TempDir()
	locked, err := lockDir(filepath.Join(tmp, "locked"))
	if err != nil {
		t.Fatal(err)
	}
	defer locked.unlock()
	os.WriteFile(filepath.Join(tmp, "file"), nil, 0o600)
	os.Mkdir(filepath.Join(tmp, "foreign"), 0o700)
	os.WriteFile(filepath.Join(tmp, "foreign", "thesis.tex"), nil, 0o600)
	os.MkdirAll(filepath.Join(tmp, "node", "node-1"), 0o700) // a real one
	other, err := lockDir(filepath.Join(tmp, "other"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := other.prepare(fakeOptions(string(other.directory)), time.Now()); err != nil {
		t.Fatal(err)
	}
	other.unlock()
	for _, c := range []struct{ dir, want string }{
		{"locked", "a testnet runs in DIR: stop it with `tweedle testnet down --dir DIR`, or choose another --dir"},
		{"file", "DIR is no directory: choose another --dir"},
		{"file/below", "DIR is no directory: choose another --dir"},
		{"node", "DIR holds other files (node-1): choose an empty directory with --dir"},
		{"foreign", "DIR holds other files (thesis.tex): choose an empty directory with --dir"},
		{"other", "DIR holds another testnet (preset local, 2 nodes, 1 PoETs, 2 gateways): leave out the flags to continue it, start anew with --fresh, or choose another --dir"},
	} {
		dir := filepath.Join(tmp, c.dir)
		o := fakeOptions(dir)
		o.Nodes = 4
		o.Fresh = c.dir == "node" || c.dir == "foreign"
		_, err := Up(t.Context(), o)
		want := strings.ReplaceAll(c.want, "DIR", dir)
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v\nwant: %s", c.dir, err, want)
		}
	}
}

func TestAnUnwritableDirectoryIsRefused(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("SKIPPED: root may write everywhere")
	}
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := Up(t.Context(), fakeOptions(dir))
	if want := "cannot write to " + dir + ": choose a directory of yours with --dir"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestAnEndedTestnetGoesOnUnlessItIsToBeNew(t *testing.T) {
	dir := t.TempDir()
	prepare := func(o Options) (*plan, bool, error) {
		d, err := lockDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.unlock()
		return d.prepare(o, time.Now())
	}
	first, resumed, err := prepare(fakeOptions(dir))
	if err != nil || resumed {
		t.Fatal(resumed, err)
	}
	again, resumed, err := prepare(Options{Dir: dir})
	if err != nil || !resumed || again.network.ID() != first.network.ID() || again.String() != first.String() {
		t.Errorf("continued %v (resumed %v): %v", again, resumed, err)
	}
	// A start that was cut short, by a full disk for one, is made good.
	if err := os.Remove(filepath.Join(dir, networkFile)); err != nil {
		t.Fatal(err)
	}
	if again, resumed, err := prepare(Options{Dir: dir}); err != nil || resumed || again.network.ID() == first.network.ID() {
		t.Errorf("after a start that was cut short: resumed %v, %v", resumed, err)
	}
	o := fakeOptions(dir)
	o.Nodes, o.Fresh = 4, true
	anew, resumed, err := prepare(o)
	if err != nil || resumed || anew.network.ID() == first.network.ID() || len(anew.names(Node)) != 4 {
		t.Errorf("made anew %v (resumed %v): %v", anew, resumed, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "notes"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := prepare(o); err == nil || !strings.Contains(err.Error(), "holds other files (notes)") {
		t.Errorf("made anew over other files: %v", err)
	}
	if again, _, err := prepare(Options{Dir: dir}); err != nil || again.network.ID() != anew.network.ID() {
		t.Errorf("what was refused changed something: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, planFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := prepare(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a damaged plan: %v", err)
	}
	os.WriteFile(filepath.Join(dir, planFile), []byte(`{"preset":"local","members":[{"name":"../../etc","kind":"node"}]}`), 0o600)
	if _, _, err := prepare(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a plan with a path for a name: %v", err)
	}
}

func TestTheNetworkFileHasTheFaucetAndALaterGenesis(t *testing.T) {
	d, err := lockDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.unlock()
	now := time.Unix(1_700_000_000, 500)
	p, _, err := d.prepare(fakeOptions(string(d.directory)), now)
	if err != nil {
		t.Fatal(err)
	}
	n, err := d.loadNetwork()
	if err != nil || n.ID() != p.network.ID() {
		t.Fatalf("read back: %v", err)
	}
	if early := n.Genesis.Sub(now); early < startUp || early > maxGenesisDelay+time.Second {
		t.Errorf("genesis is %v after the launch", early)
	}
	faucet, err := d.wallet(faucetName, n)
	if err != nil || len(n.Accounts) != 1 || n.Accounts[0].Address != faucet.address || n.Accounts[0].Balance != faucetBalance {
		t.Errorf("accounts %+v, faucet %s, %v", n.Accounts, faucet.address, err)
	}
	if st, err := os.Stat(d.path(walletsDir, faucetName+".key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("faucet key: %v %v", st.Mode(), err)
	}
}

func TestCommandsNeedATestnetAndKnownNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := fmt.Sprintf("no testnet in %s: start one with `tweedle testnet up --dir %s`, or name its --dir", dir, dir)
	if _, err := ReadStatus(t.Context(), dir); err == nil || err.Error() != want {
		t.Errorf("status: %v", err)
	}
	if _, err := Do(t.Context(), dir, Kill, "node-1"); err == nil || err.Error() != want {
		t.Errorf("kill: %v", err)
	}
	r := start(t, fakeOptions(dir))
	wantName := `no process "node-9": there are node-1, node-2, poet-1`
	if _, err := Do(t.Context(), dir, Kill, "node-1", "node-9"); err == nil || err.Error() != wantName {
		t.Errorf("kill: %v", err)
	}
	if n := node(t, dir, "node-1"); n.State != Running {
		t.Error("the command was carried out by half")
	}
	if err := Logs(t.Context(), dir, []string{"node-9"}, LogOptions{Lines: 1}, os.Stderr); err == nil || err.Error() != wantName {
		t.Errorf("logs: %v", err)
	}
	if _, err := Up(t.Context(), fakeOptions(dir)); err == nil || !strings.HasPrefix(err.Error(), "a testnet runs in "+dir) {
		t.Errorf("a second up: %v", err)
	}
	r.end()
}

func TestADirectoryWithALongNameHasAControlSocket(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	start(t, fakeOptions(dir))
	do(t, dir, Kill, "node-2")
	do(t, dir, Restart, "node-2")
}

func TestOptionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		change func(*Options)
		want   string
	}{
		{func(o *Options) { o.Nodes = -1 }, "--nodes"},
		{func(o *Options) { o.Nodes = MaxNodes + 1 }, "--nodes"},
		{func(o *Options) { o.Poets = MaxPoets + 1 }, "--poets"},
		{func(o *Options) { o.Gateways = 4 }, "--gateways"},
		{func(o *Options) { o.Epochs = -1 }, "--epochs"},
		{func(o *Options) { o.TxRate = -1 }, "--tx-rate"},
		{func(o *Options) { o.Preset = "moon" }, "choose one of mainnet"},
		{func(o *Options) { o.Dir = "" }, "--dir"},
	} {
		o := fakeOptions("d")
		c.change(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want something about %s", err, c.want)
		}
	}
	if err := (Options{Dir: "d"}).Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
}

func TestGenesisWaitsForPoSTButNotForever(t *testing.T) {
	p := preset.Local() // 1,024 labels for a node, 5 s from genesis to the first challenge
	for _, c := range []struct {
		nodes, cores int
		label, want  time.Duration
	}{
		{5, 8, time.Millisecond, startUp},
		{1, 8, 10 * time.Millisecond, startUp + 11384*time.Millisecond},
		{4, 2, 10 * time.Millisecond, startUp + 27768*time.Millisecond},
		{64, 1, 10 * time.Millisecond, maxGenesisDelay},
	} {
		if got := genesisDelay(p, c.nodes, c.cores, c.label); got != c.want {
			t.Errorf("%d nodes on %d cores, %v a label: %v, want %v", c.nodes, c.cores, c.label, got, c.want)
		}
	}
}
