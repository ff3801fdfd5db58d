package testnet

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"time"

	"tweedle/base/durable"
	"tweedle/edges/preset"
	"tweedle/proofs/post"
	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// network is the network file with the constants of its kind.
type network struct {
	preset.Network
	params preset.Params
}

func (n network) schedule() types.Schedule { return n.Schedule(n.params) }

func checkRules(name string, rules preset.Rules) error {
	p, err := preset.Network{Preset: name, Rules: rules}.Params()
	if err != nil {
		return err
	}
	return p.Validate()
}

// The faucet: its key's name in D/wallets, and its balance at genesis.
const (
	faucetName    = "faucet"
	faucetBalance = 1_000_000 * vm.Smidges
)

// Genesis is as far ahead as the processes need to be up with their PoST
// initialized, so that they are registered when the first PoET round starts.
// What is late registers for the next round, which costs an epoch.
const (
	startUp          = 4 * time.Second // for the processes, on a busy machine
	maxGenesisDelay  = time.Minute
	measuredLabels   = 40  // side by side, with the fastest kernel
	initSafetyFactor = 1.6 // the machine has other things to do
)

// genesisDelay returns the time from the launch to genesis, from how long the
// machine takes for a label of PoST now.
func genesisDelay(p preset.Params, nodes, cores int, label time.Duration) time.Duration {
	labels := float64(p.Post.LabelsPerUnit) * float64(p.Post.MinUnits) * float64(nodes)
	initialize := time.Duration(initSafetyFactor * labels * float64(label) / float64(min(cores, nodes)))
	// A smesher makes its challenge PoetGrace before the round starts.
	spare := p.PoetPhaseShift - p.PoetGrace
	return min(startUp+max(initialize-spare, 0), maxGenesisDelay)
}

// labelTime measures how long a label takes on this machine now, of many at once.
func labelTime(p preset.Params) time.Duration {
	l, began := post.NewLabeler(p.Post.ScryptN), time.Now()
	indices, labels := make([]uint64, measuredLabels), make([][32]byte, measuredLabels)
	for i := range indices {
		indices[i] = uint64(i)
	}
	l.Labels([32]byte{}, indices, labels)
	return time.Since(began) / measuredLabels
}

// createNetwork makes the network file and the faucet's key.
func (d directory) createNetwork(p *plan, now time.Time) (network, error) {
	params, err := preset.Network{Preset: p.Preset, Rules: p.Rules}.Params()
	if err != nil {
		return network{}, err
	}
	delay := genesisDelay(params, len(p.names(Node)), runtime.NumCPU(), labelTime(params))
	n := network{params: params, Network: preset.New(p.Preset, p.Rules, preset.After(now.Add(delay)))}
	faucet, err := d.wallet(faucetName, n)
	if err != nil {
		return network{}, err
	}
	n.Accounts = []preset.Account{{Address: faucet.address, Balance: faucetBalance}}
	b, err := n.Marshal()
	if err != nil {
		return network{}, err
	}
	if err := durable.WriteFile(durable.OS{}, d.path(networkFile), b, 0o600); err != nil {
		return network{}, d.explain(err)
	}
	return n, nil
}

func (d directory) loadNetwork() (network, error) {
	n, err := preset.Load(d.path(networkFile))
	if err != nil {
		return network{}, err
	}
	params, err := n.Params()
	return network{Network: n, params: params}, err
}

// wallet is an account whose key is in D/wallets.
type wallet struct {
	seed    []byte
	address string // in the network's form
}

// wallet reads the key of a name, or makes one.
func (d directory) wallet(name string, n network) (wallet, error) {
	path := d.path(walletsDir, name+".key")
	seed, err := d.key(path)
	if err != nil {
		return wallet{}, err
	}
	s, err := signing.NewSigner(seed, n.ID())
	if err != nil {
		return wallet{}, err
	}
	return wallet{seed, vm.WalletAddress(s.NodeID()).Bech32(n.params.HRP)}, nil
}

// key reads a secret key, or makes one. If we stop before a new one is durable,
// nothing refers to it yet.
func (d directory) key(path string) ([]byte, error) {
	if err := os.MkdirAll(d.path(walletsDir), 0o700); err != nil {
		return nil, d.explain(err)
	}
	text, err := durable.Secret(durable.OS{}, path, durable.RandomHex)
	if err != nil {
		return nil, d.explain(err)
	}
	seed, err := signing.ReadSeed(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return seed, nil
}
