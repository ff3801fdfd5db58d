// Package node is a full node: it smeshes, agrees with others on blocks, keeps
// the state, and serves users, peers and PoETs.
//
// It drives the machine of package core, which is all of the protocol, and gives
// it a disk, a network and a clock. It promises: what we sign is durable before
// it is sent; readers never delay the machine, peers delay only themselves; a restart goes on from what was written; nothing that a
// peer or user sends ends the process. Run blocks and leaves nothing behind.
//
// It leaves to the caller: the network file, the keys' folder, and to start it
// again when it ends with an error: a full or broken disk ends it rather than
// let it go on without memory.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"tweedle/base/clock"
	"tweedle/base/durable"
	"tweedle/base/telemetry"
	"tweedle/edges/api"
	"tweedle/edges/front"
	"tweedle/edges/p2p"
	"tweedle/edges/preset"
	"tweedle/edges/smeshing"
	"tweedle/edges/store"
	"tweedle/protocol/activation"
	"tweedle/protocol/core"
	"tweedle/protocol/syncer"
	"tweedle/protocol/txpool"
	"tweedle/protocol/vm"
	"tweedle/values/bounded"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Config is what a node is told.
type Config struct {
	Network preset.Network
	Dir     string // keeps keys, store and space; made if it is not there

	Listen    []string // QUIC multiaddresses
	Bootnodes []string // multiaddresses with peer id
	NAT       bool     // asks the router for a way in
	// PeersPerAddress bounds the connections of one IP address; 0: the default.
	PeersPerAddress int
	// MaxPeers and MaxHandshakes bound the sessions with peers, and the connections that
	// are not one yet; 0: the defaults of package p2p.
	MaxPeers, MaxHandshakes int
	// MaxPeerMemory bounds what peers can make the network stack hold, in bytes; 0: the default.
	MaxPeerMemory int64

	// Smeshing makes the node prove NumUnits of space, registered at Poets
	// (their REST addresses as URLs), for rewards to Coinbase. Identities are the
	// folders of others that it smeshes with too.
	Smeshing    bool
	Identities  []string
	Poets       []string
	Coinbase    types.Address
	NumUnits    uint32 // 0: what the space has, or the least that the network allows
	PostWorkers int    // goroutines for initializing and proving; 0: 1
	DrillNoPull bool   // PoETs are not asked for their proofs: drills

	// Addresses to serve users on, host:port or unix:PATH, and the operator on, host:port;
	// empty: not at all.
	GRPCListen, RESTListen, MetricsListen string
	// AdminListen serves the operator, who shows the token of Dir: host:port of
	// this machine or unix:PATH; empty: not at all.
	AdminListen string
	// API bounds what their clients can take; zero: api.DefaultLimits. Front
	// says who may speak for others there, which pages may read, and which certificate is
	// shown. Operations is API of MetricsListen; zero: front.OperationsLimits.
	API        api.Limits
	Front      front.Options
	Operations front.Limits

	Version string
	Log     *slog.Logger // nil: nothing is logged

	// Socket, PoetTransport and Wall replace the operating system's network and clock
	// in simulations, and Lies what our smeshers say; nil is the real one.
	Socket        func(local *net.UDPAddr) (net.PacketConn, error)
	PoetTransport http.RoundTripper
	Wall          func() time.Time
	Lies          func(send func(core.Topic, []byte), t core.Topic, raw []byte)
}

// send is a gossip message on its way out.
type send struct {
	topic string
	msg   []byte
}

// maxSends bounds the messages that wait to be gossiped, of users and of others each;
// more are dropped.
const maxSends = 256

// Node is one running node.
type Node struct {
	cfg        Config
	log        *slog.Logger
	params     preset.Params
	schedule   types.Schedule
	clock      *clock.Clock
	activation activation.Params
	vmParams   vm.Params
	identities []*identity // that smesh; none if we do not

	crypto core.Crypto

	db       *store.DB
	host     *p2p.Host
	driver   *driver
	smeshers *smeshing.Smeshers // of the identities
	servers  *servers
	registry *telemetry.Registry
	metrics  metrics
	events   *api.Events

	snapshot atomic.Pointer[core.Snapshot]
	sends    chan send     // what the protocol says: a few messages a layer
	txs      chan send     // transactions of users, who may send many
	ending   chan struct{} // closed when Run begins to end

	handed handedOver
}

// Open prepares a node: it opens its files and its sockets, so that everything
// that is wrong with them is known before anything runs.
func Open(cfg Config) (_ *Node, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{
		cfg: cfg, log: cfg.Log, sends: make(chan send, maxSends), txs: make(chan send, maxSends), ending: make(chan struct{}),
		registry: telemetry.NewRegistry(), events: api.NewEvents(), handed: handedOver{peers: bounded.New[types.PoetProofRef, int](maxHandedOver)},
	}
	telemetry.CountDropped(cfg.Log, n.registry)
	defer func() {
		if err != nil {
			n.Close()
		}
		if durable.IsFull(err) { // while a key was written
			err = fmt.Errorf("data directory %s: %w: free some and start again", cfg.Dir, store.ErrFull)
		}
		if errors.Is(err, syscall.EMFILE) { // the store says it by itself
			err = fmt.Errorf("%w: raise the limit (ulimit -n, LimitNOFILE of systemd) to 1024 or more and start again", err)
		}
	}()
	if err := n.rules(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w: choose another with --dir", err)
	}
	if n.db, err = store.Open(cfg.Dir, cfg.Network.ID()); err != nil {
		return nil, err
	}
	if err := n.smesh(); err != nil {
		return nil, err
	}
	if err := n.network(); err != nil {
		return nil, err
	}
	if err := n.restore(); err != nil {
		return nil, err
	}
	n.servers, err = n.listen()
	return n, err
}

// rules derives everything that the network file says.
func (n *Node) rules() error {
	var err error
	if err = n.cfg.Network.Validate(); err != nil {
		return err
	}
	if n.params, err = n.cfg.Network.Params(); err != nil {
		return err
	}
	if n.vmParams, err = n.cfg.Network.VM(n.params); err != nil {
		return err
	}
	n.schedule = n.cfg.Network.Schedule(n.params)
	n.clock = clock.New(n.schedule.EpochDuration(), n.cfg.Wall, n.jumped)
	n.activation = n.cfg.Network.Activation(n.params)
	if n.cfg.Smeshing && n.cfg.Coinbase.IsZero() {
		return smeshing.ErrNoCoinbase
	}
	return nil
}

// restore builds the machine from the store; a new store gets the genesis
// accounts.
func (n *Node) restore() error {
	_, err := n.db.LastApplied()
	if errors.Is(err, store.ErrNotFound) {
		err = n.genesis()
	}
	if err != nil {
		return err
	}
	now := n.now()
	if err := n.forget(); err != nil {
		return err
	}
	n.crypto = core.Real{Verifier: signing.NewVerifier(n.activation.Network), Params: n.activation, State: n.state, Peer: []byte(n.host.ID())}
	cfg := core.Config{
		Schedule: n.schedule, Activation: n.activation, Eligibility: n.params.Eligibility(), Beacon: n.params.Beacon(), Tortoise: n.params.Tortoise(), VM: n.vmParams, Pool: txpool.DefaultLimits(),
		Hare: n.params.Hare(), TxsPerProposal: n.params.TxsPerProposal, Crypto: n.crypto, Alone: len(n.cfg.Bootnodes) == 0,
	}
	for _, i := range n.identities {
		cfg.Identities = append(cfg.Identities, i.Signer)
		old, err := n.db.RolledBack(i.NodeID())
		if err == nil && old {
			i.trustIn, err = n.db.DistrustUntil(i.NodeID(), n.schedule.EpochAt(now)+2)
			n.log.Error("local.db is older than what it has signed, as if a copy was restored: nothing is signed until it is safe",
				"identity", i.NodeID().Short(), "until_epoch", i.trustIn)
		}
		if err != nil {
			return err
		}
	}
	m, err := core.New(cfg, now, store.Core{Reader: n.db.Loop()})
	var corrupt *core.CorruptStateError
	if errors.As(err, &corrupt) {
		return fmt.Errorf("%w: delete %s, it is fetched again", err, filepath.Join(n.cfg.Dir, "state.db"))
	}
	if err != nil {
		return err
	}
	n.driver = newDriver(n, m)
	n.snapshot.Store(m.Snapshot())
	for _, tx := range m.Waiting() {
		n.events.Publish(api.Accepted{Tx: tx})
	}
	return nil
}

// state is the newest one.
func (n *Node) state() vm.State { return n.snapshot.Load().State }

// keptEpochs is for how many epochs before the running one ballots and the
// guard's memory are kept.
const keptEpochs = 2

// forgetting drops in every epoch what would grow for ever, beside the machine
// and not in its way.
func (n *Node) forgetting(ctx context.Context) error {
	ticker := time.NewTicker(n.params.LayerDuration)
	defer ticker.Stop()
	done := n.epoch() // by Open
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if epoch := n.epoch(); epoch > done {
			if err := n.forget(); err != nil {
				return fmt.Errorf("forgetting old layers: %w", err)
			}
			done = epoch
		}
	}
}

// forget drops what is older than keptEpochs. Slots that it closes have long
// passed.
func (n *Node) forget() error {
	epoch := n.epoch()
	if epoch <= keptEpochs {
		return nil
	}
	epoch -= keptEpochs
	first := n.schedule.First(epoch)
	for _, of := range []struct {
		domain signing.Domain
		before uint64
	}{
		{signing.Ballot, uint64(first)}, {signing.Proposal, uint64(first)}, {signing.Certify, uint64(first)}, {signing.Hare, core.HarePlace(first, 0)},
		{signing.ATX, uint64(epoch)}, {signing.BeaconFirst, core.BeaconPlace(epoch)}, {signing.BeaconFollowup, core.BeaconPlace(epoch)},
	} {
		if err := n.db.ForgetSigned(of.domain, of.before); err != nil {
			return err
		}
	}
	return n.db.ForgetBallots(first)
}

// genesis writes the state before the first block.
func (n *Node) genesis() error {
	state, err := vm.Genesis(n.vmParams)
	if err != nil {
		return err
	}
	out := vm.Outcome{State: state}
	for address, a := range state.All() {
		out.Changed = append(out.Changed, vm.Entry{Address: address, Account: a})
	}
	return n.db.Apply(store.LayerResult{Layer: n.vmParams.EffectiveGenesis, Outcome: out})
}

// network opens the host and says what it serves.
func (n *Node) network() error {
	key, err := p2p.LoadOrCreateKey(filepath.Join(n.cfg.Dir, p2p.KeyName))
	if err != nil {
		return err
	}
	id := n.cfg.Network.ID()
	n.host, err = p2p.New(p2p.Config{
		Network: p2p.NetworkID{GenesisID: id, Name: n.cfg.Network.Name},
		Listen:  n.cfg.Listen, Key: key, Bootnodes: n.cfg.Bootnodes, PeersFile: filepath.Join(n.cfg.Dir, p2p.PeersName),
		MaxConnsPerIP: n.cfg.PeersPerAddress, NAT: n.cfg.NAT, MaxPeers: n.cfg.MaxPeers, MaxHalfOpen: n.cfg.MaxHandshakes, MaxMemory: n.cfg.MaxPeerMemory,
		SeenTTL: max(p2p.DefaultSeenTTL, 2*n.params.LayerDuration),
		Logger:  n.log, Registry: n.registry, Socket: n.cfg.Socket,
	})
	if err != nil {
		return err
	}
	n.register()
	return nil
}

// askTimeout is how long a peer has to answer a request.
func (n *Node) askTimeout() time.Duration {
	return syncer.Config{Layer: n.params.LayerDuration}.Timeout()
}

// Run runs the node until ctx ends, then closes it. It is not to be run again.
func (n *Node) Run(ctx context.Context) error {
	defer n.Close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		<-ctx.Done()
		close(n.ending)
		return nil
	})
	group.Go(func() error { return n.host.Run(ctx) })
	group.Go(func() error { return n.driver.loop(ctx) })
	group.Go(func() error { return n.sender(ctx) })
	group.Go(func() error { return n.smeshers.Run(ctx) })
	group.Go(func() error { return n.servers.Run(ctx) })
	group.Go(func() error { return n.storeFaults(ctx) })
	group.Go(func() error { return n.forgetting(ctx) })
	n.log.Info("node runs", "network", n.cfg.Network.Name, "genesis_id", n.cfg.Network.ID(), "genesis", n.schedule.Genesis,
		"p2p", n.host.Addrs(), "smeshing", n.cfg.Smeshing)
	return group.Wait()
}

// storeFaults ends the node when its store cannot be used any more.
func (n *Node) storeFaults(ctx context.Context) error {
	select {
	case err := <-n.db.Failed():
		return err
	case <-ctx.Done():
		return nil
	}
}

// Close releases what Open took, for a node that is not run; whatever is not there
// yet is passed over.
func (n *Node) Close() {
	if n.servers != nil {
		n.servers.close()
	}
	if n.host != nil {
		_ = n.host.Close() // its sockets are gone either way
	}
	if n.db != nil {
		if err := n.db.Close(); err != nil {
			n.log.Error("closing the store", "err", err)
		}
	}
}

// send queues a gossip message. It must be durable, as far as it binds us,
// before it comes here.
func (n *Node) send(t core.Topic, msg []byte) {
	queue := n.sends
	if t == core.TopicTx {
		queue = n.txs
	}
	select {
	case queue <- send{t.Name(), msg}:
	default:
		n.log.Warn("message dropped, too many wait to be gossiped", "topic", t)
	}
}

// nextSend waits for a message to gossip: users' transactions last; false if ctx ended.
func (n *Node) nextSend(ctx context.Context) (send, bool) {
	select {
	case s := <-n.sends:
		return s, true
	default:
	}
	select {
	case s := <-n.sends:
		return s, true
	case s := <-n.txs:
		return s, true
	case <-ctx.Done():
		return send{}, false
	}
}

// sender gossips what is queued. What nobody is there to hear is asked for later:
// ATXs, open decisions and certificates are in the answers of package core.
func (n *Node) sender(ctx context.Context) error {
	for {
		s, ok := n.nextSend(ctx)
		if !ok {
			return nil
		}
		err := n.host.Publish(ctx, s.topic, s.msg)
		if err != nil && !errors.Is(err, p2p.ErrNoPeers) && ctx.Err() == nil {
			n.log.Warn("message was not gossiped", "topic", s.topic, "err", err)
		}
	}
}

// now is the clock of the whole node: the wall clock, but a jump of it only when it has lasted.
func (n *Node) now() time.Time { return n.clock.Now() }

// jumped tells of a jump of the wall clock.
func (n *Node) jumped(j clock.Jump) {
	n.log.Error("the clock of this machine has jumped, and is followed once it has stayed there: look at its time service",
		"reads", j.Wall.UTC().Format(time.RFC3339), "by", j.By.Round(time.Millisecond), "followed", j.Followed)
}

func (n *Node) epoch() types.Epoch { return n.schedule.EpochAt(n.now()) }
