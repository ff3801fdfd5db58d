package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"tweedle/base/durable"
	"tweedle/base/telemetry"
	"tweedle/edges/api"
	"tweedle/edges/p2p"
	"tweedle/edges/preset"
	"tweedle/edges/smeshing"
	"tweedle/proofs/post"
	"tweedle/proofs/posw"
	"tweedle/services/node"
	"tweedle/values/types"
)

type nodeFlags struct {
	dir, network, coinbase string
	kernel                 string
	cfg                    node.Config
	front                  frontFlags
	log                    logFlags
	drillClock             bool
}

func nodeCommand() *cobra.Command { return new(nodeFlags).command() }

func (f *nodeFlags) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run a node, and smesh with it",
		Long: `Runs a node of the network that the network file describes. With --smeshing it
also fills space, registers it at every --poet, and publishes an ATX in every
epoch; rewards go to the account of --coinbase.

Each flag can also be set by the environment (TWEEDLE_NODE_GRPC_LISTEN for
--grpc-listen) or as a key of the TOML file of --config; flags come first.`,
		Example: `  tweedle node --network network.json --dir ~/tweedle-node \
    --bootnode /ip4/192.0.2.1/udp/7513/quic-v1/p2p/12D3KooW... \
    --smeshing --coinbase stest1qqqqqq... --poet http://poet.example:8080`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := settle(cmd); err != nil {
				return err
			}
			return f.run(cmd)
		},
	}
	fl := cmd.Flags()
	pathVar(fl, new(string), configFlag, "", "", "TOML file with settings")
	pathVar(fl, &f.dir, "dir", "", "", "folder of the node's keys, store and space (required)")
	pathVar(fl, &f.network, "network", "", "", "network file (required)")
	fl.StringArrayVar(&f.cfg.Listen, "listen", []string{"/ip4/0.0.0.0/udp/7513/quic-v1"}, "address for peers, QUIC; may be repeated")
	fl.StringArrayVar(&f.cfg.Bootnodes, "bootnode", nil, "address of a peer with /p2p/ and its id; may be repeated")
	fl.IntVar(&f.cfg.PeersPerAddress, "peers-per-address", p2p.DefaultMaxConnsPerIP, "connections that one IPv4 address or IPv6 /56 may have; more where your own nodes are behind one")
	fl.BoolVar(&f.cfg.NAT, "nat", true, "ask the router for a way in (UPnP, NAT-PMP, PCP); never on loopback")
	fl.IntVar(&f.cfg.MaxPeers, "max-peers", p2p.DefaultMaxPeers, "sessions with peers; when all are taken a newcomer takes the place of the one that is worth least")
	fl.IntVar(&f.cfg.MaxHandshakes, "max-handshakes", p2p.DefaultMaxHalfOpen, "connections of peers that have not named their network yet")
	fl.Int64Var(&f.cfg.MaxPeerMemory, "max-peer-memory", p2p.DefaultMaxMemory, "bytes that peers can make the network stack hold, one of them an eighth")
	fl.BoolVar(&f.drillClock, "drill-clock", false, "for drills: the clock is ahead by the duration in the file drill-clock of --dir")
	fl.BoolVar(&f.cfg.DrillNoPull, "drill-no-pull", false, "for drills: do not ask PoETs for their proofs, wait until the network brings them")
	pathVar(fl, &f.cfg.GRPCListen, "grpc-listen", "", "127.0.0.1:9092", "address of the gRPC API, host:port or unix:PATH; empty for none")
	pathVar(fl, &f.cfg.RESTListen, "rest-listen", "", "127.0.0.1:9094", "address of the JSON API, host:port or unix:PATH; empty for none")
	fl.StringVar(&f.cfg.MetricsListen, "metrics-listen", "127.0.0.1:9095", "address of metrics and status; empty for none")
	fl.StringVar(&f.cfg.AdminListen, "admin-listen", "",
		"address of the operator's gRPC API, which asks for the token of DIR/admin.token: host:port of this machine or unix:PATH; empty for none")
	fl.BoolVar(&f.cfg.Smeshing, "smeshing", false, "prove space and earn rewards")
	fl.StringArrayVar(&f.cfg.Identities, "identity", nil, "folder of one more identity to smesh with, with the identity.key and post that \"tweedle post init\" made; may be repeated")
	fl.StringVar(&f.coinbase, "coinbase", "", "account that gets the rewards")
	fl.StringArrayVar(&f.cfg.Poets, "poet", nil, "URL of a PoET to register at; may be repeated")
	fl.Uint32Var(&f.cfg.NumUnits, "units", 0, "units of space; 0 is what the space has, or the least that the network allows")
	fl.IntVar(&f.cfg.PostWorkers, "post-workers", 1, "cores for initializing and proving space")
	f.cfg.API = api.DefaultLimits()
	f.front.register(fl, &f.cfg.API.Limits, &f.cfg.Operations)
	fl.Float64Var(&f.cfg.API.PublishRate, "publish-rate", f.cfg.API.PublishRate, "PoET proofs a second that one address may hand over; 0 is no limit")
	registerKernel(cmd, &f.kernel)
	f.log.register(cmd)
	cmd.AddCommand(nodeStatusCommand(), nodePeersCommand(), nodeBackup())
	return cmd
}

func (f *nodeFlags) run(cmd *cobra.Command) error {
	if f.dir == "" || f.network == "" {
		return usageError{fmt.Errorf("a node needs --dir and --network")}
	}
	switch {
	case f.cfg.Smeshing && f.coinbase == "":
		return usageError{smeshing.ErrNoCoinbase}
	case f.cfg.Smeshing && len(f.cfg.Poets) == 0:
		return usageError{smeshing.ErrNoPoet}
	case !f.cfg.Smeshing && len(f.cfg.Identities) > 0:
		return usageError{fmt.Errorf("--identity is one more identity to smesh with: give --smeshing too")}
	}
	for i, dir := range f.cfg.Identities {
		var err error
		if f.cfg.Identities[i], err = expandPath(dir); err != nil {
			return usageError{fmt.Errorf("--identity %w", err)}
		}
	}
	log, err := f.log.logger()
	if err != nil {
		return err
	}
	if err := useKernel(f.kernel); err != nil {
		return err
	}
	f.cfg.Log, f.cfg.Dir, f.cfg.Version = log, f.dir, version()
	if f.drillClock {
		f.cfg.Wall = drillClock(f.dir)
	}
	if f.cfg.Network, err = preset.Load(f.network); err != nil {
		return err
	}
	params, err := f.cfg.Network.Params()
	if err != nil {
		return err
	}
	if f.coinbase != "" {
		if f.cfg.Coinbase, err = types.ParseAddress(f.coinbase, params.HRP); err != nil {
			return usageError{fmt.Errorf("--coinbase: %w", err)}
		}
	}
	if f.cfg.API.PublishRate < 0 {
		return usageError{fmt.Errorf("--publish-rate must not be negative")}
	}
	if f.cfg.Front, err = f.front.complete(cmd.Flags(), log); err != nil {
		return err
	}
	// What the libraries warn of, our own errors say, in one line.
	libraries, err := (&logFlags{level: "error", json: f.log.json}).logger()
	if err != nil {
		return err
	}
	p2p.LogLibraries(libraries.Handler())
	n, err := node.Open(f.cfg)
	if err != nil {
		return err
	}
	remove, err := announce(f.dir, n.Endpoints())
	if err != nil {
		n.Close()
		return err
	}
	defer remove()
	kernel, err := posw.Kernel()
	if err != nil { // it goes on with another one, which is right
		log.Error("a SHA-256 kernel failed its self test", "used", kernel, "err", err)
	}
	log.Info("SHA-256 kernel", "name", kernel, "processor", posw.Processor())
	if kernel, err = post.Kernel(); err != nil {
		log.Error("a kernel of space failed its self test", "used", kernel, "err", err)
	}
	log.Info("kernel of space", "name", kernel)
	if err = n.Run(cmd.Context()); err == nil {
		log.Info("the node has stopped")
	}
	return err
}

// readEndpoints reads where the service of a folder is reached; os.ErrNotExist: none runs.
func readEndpoints(dir string) (e telemetry.Endpoints, err error) {
	path := filepath.Join(dir, telemetry.EndpointsFile)
	b, err := os.ReadFile(path)
	if err == nil && json.Unmarshal(b, &e) != nil {
		err = fmt.Errorf("%s is damaged: start the program again", path)
	}
	return e, err
}

// announce writes where a service is reached, for launchers and other
// commands. The function that it returns takes the file away.
func announce(dir string, e telemetry.Endpoints) (remove func(), err error) {
	e.PID = os.Getpid()
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, telemetry.EndpointsFile)
	if err := durable.WriteFile(durable.OS{}, path, append(b, '\n'), 0o644); err != nil {
		return nil, err
	}
	return func() { _ = os.Remove(path) }, nil // a file left behind names a process that is gone
}
