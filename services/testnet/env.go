package testnet

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Env is what others need to use a testnet that runs, and to join it.
type Env struct {
	Network  string   `json:"network"`        // path of its network file
	Bootnode string   `json:"bootnode"`       // address of a peer
	GRPC     string   `json:"grpc"`           // of a node, for wallets
	REST     string   `json:"rest"`           // of the same node
	Poets    []string `json:"poets"`          // URLs
	Faucet   string   `json:"faucet_key"`     // path of the key that has the money
	Account  string   `json:"faucet_account"` // of that key
}

var errNobodyRuns = errors.New("no node of the testnet runs: start it with `tweedle testnet up`")

// ReadEnv tells how the testnet in dir is reached. It must run.
func ReadEnv(ctx context.Context, dir string) (Env, error) {
	s, err := ReadStatus(ctx, dir)
	if err != nil {
		return Env{}, err
	}
	if !s.Running {
		return Env{}, errNobodyRuns
	}
	d, err := openDir(dir)
	if err != nil {
		return Env{}, err
	}
	p, err := d.loadPlan()
	if err != nil {
		return Env{}, err
	}
	faucet, err := d.wallet(faucetName, p.network)
	if err != nil {
		return Env{}, err
	}
	e := Env{Network: d.path(networkFile), Faucet: d.path(walletsDir, faucetName+".key"), Account: faucet.address}
	for _, n := range s.Nodes {
		if n.State == Running && n.P2P != "" {
			e.Bootnode, e.GRPC, e.REST = n.P2P, n.GRPC, n.REST
			break
		}
	}
	for _, q := range s.Poets {
		if q.State == Running && q.REST != "" {
			e.Poets = append(e.Poets, "http://"+q.REST)
		}
	}
	if e.Bootnode == "" {
		return Env{}, errNobodyRuns
	}
	return e, nil
}

// Text is the settings as a shell reads them, and a command that joins the network.
func (e Env) Text(program string) string {
	var b strings.Builder
	for _, v := range [][2]string{
		{"TWEEDLE_NETWORK", e.Network}, {"TWEEDLE_BOOTNODE", e.Bootnode}, {"TWEEDLE_GRPC", e.GRPC}, {"TWEEDLE_REST", e.REST},
		{"TWEEDLE_POETS", strings.Join(e.Poets, " ")}, {"TWEEDLE_FAUCET_KEY", e.Faucet}, {"TWEEDLE_FAUCET_ACCOUNT", e.Account},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], quote(v[1]))
	}
	fmt.Fprintf(&b, "# join it from another terminal:\n# %s\n", e.Join(program))
	return b.String()
}

// Join is a command line that runs one more node, which smeshes for the faucet.
func (e Env) Join(program string) string {
	words := []string{
		program, "node", "--network", e.Network, "--dir", "my-node", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1",
		"--grpc-listen", "127.0.0.1:0", "--rest-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
		"--bootnode", e.Bootnode, "--smeshing", "--coinbase", e.Account,
	}
	for _, p := range e.Poets {
		words = append(words, "--poet", p)
	}
	for i, w := range words {
		words[i] = quote(w)
	}
	return strings.Join(words, " ")
}

// quote is a word as a shell reads it.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,@+", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
