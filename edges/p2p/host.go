// Package p2p is the network edge of a node: a libp2p host that gossips, asks and answers over QUIC.
//
// It promises: nothing is exchanged with a peer before both sides have named the same network in the
// first exchange of the connection; what peers can make it hold or run is bounded, per peer and in all;
// it keeps a number of peers by itself, and finds them again after either side restarts; nothing that a
// peer sends reaches a panic; when Run returns, nothing of it is left.
//
// It leaves to the caller: what the bytes mean. Handlers judge messages, serve requests, and return when
// their context ends. A handler that panics is a bug of ours and ends the process. Gossip is best effort:
// a message that is dropped here because a queue is full is not offered again within Config.SeenTTL, so
// whoever needs it fetches it by id. The caller may use the host from any goroutine.
package p2p

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/gologshim"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"

	"tweedle/base/telemetry"
)

// refusedEvery is the time between two lines about connections refused for one reason: a flood is
// counted, not written.
const refusedEvery = time.Minute

var errBanned = errors.New("peer is banned")

// LogLibraries sends what libp2p, gossipsub and QUIC log, in the whole process, to the handler; without
// it they write errors to standard error. Call it before anything else, and give it a handler that drops
// what is below warnings: they talk.
func LogLibraries(handler slog.Handler) { gologshim.SetDefaultHandler(handler) }

// Host is one node on the network. Make it with New, add topics and protocols, then Run it.
type Host struct {
	cfg       Config
	log       *slog.Logger
	id        PeerID
	metrics   *hostMetrics
	penalties *penalties
	book      *book
	sessions  *sessions
	halfOpen  halfOpen
	libp2p    host.Host
	tasks     tasks                      // handlers that run
	wake      chan struct{}              // a peer came or went
	open      chan struct{}              // closed by Run: inbound connections may pass
	refusals  telemetry.Tally[[2]string] // by direction and reason

	ctx      context.Context // ends with Close
	end      context.CancelFunc
	closed   sync.Once
	closeErr error

	gossip atomic.Pointer[gossip] // nil but while running

	mu         sync.Mutex // until Run: topics, servers, collectors, started
	started    bool
	topics     map[string]*topic
	servers    map[string]*server
	registered []prometheus.Collector

	scores atomic.Pointer[map[PeerID]float64] // of the last inspection
}

// New opens the sockets, so that Addrs is known. No peer is admitted before Run, and Close releases
// all. Errors say which field of the config to change.
func New(cfg Config) (*Host, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("p2p: identity key: %w", err)
	}
	h := &Host{
		cfg: cfg, log: cfg.Logger, id: id,
		metrics:   newHostMetrics(),
		penalties: newPenalties(MaxPenalties),
		book:      newBook(id, MaxBook),
		halfOpen:  halfOpen{limit: cfg.MaxHalfOpen, blocks: make(map[netip.Prefix]int)},
		wake:      make(chan struct{}, 1),
		open:      make(chan struct{}),
		refusals:  telemetry.Tally[[2]string]{Every: refusedEvery},
		topics:    make(map[string]*topic),
		servers:   make(map[string]*server),
	}
	h.book.full = h.metrics.meet
	h.ctx, h.end = context.WithCancel(context.Background())
	protected := make(map[PeerID]bool)
	for _, s := range cfg.Bootnodes {
		info, err := peer.AddrInfoFromString(s)
		if err != nil || len(info.Addrs) != 1 || !isQUIC(info.Addrs[0]) {
			return nil, fmt.Errorf("p2p: bootnode %q: give it as /ip4/1.2.3.4/udp/5/quic-v1/p2p/12D3KooW", s)
		}
		h.book.addBoot(*info)
		protected[info.ID] = true
	}
	var seed [16]byte
	rand.Read(seed[:]) // never fails
	h.sessions = newSessions(newSessionTable(cfg.MaxPeers, max(cfg.MaxPeers/shareOfBlock, cfg.MaxConnsPerIP), seed, protected))
	h.sessions.displaced = h.displaced
	h.loadBook()
	if err := h.listen(); err != nil {
		return nil, err
	}
	h.Handle(exchangeProtocol, Limits{MaxRequest: 1, MaxResponse: maxExchangeBytes, Rate: 1, Burst: 5}, h.servePeers)
	for _, c := range h.collectors() {
		h.addCollector(c)
	}
	return h, nil
}

// listen makes the libp2p host below us.
func (h *Host) listen() error {
	cfg := h.cfg
	rm, err := newResourceManager(cfg, h.limited)
	if err != nil {
		return err
	}
	router := func(*libp2p.Config) error { return nil }
	if cfg.asksRouter() {
		router = libp2p.NATPortMap()
	}
	h.libp2p, err = libp2p.New(
		router,
		libp2p.Identity(cfg.Key),
		libp2p.NoListenAddrs, // until it is made: with a port in use it would leave goroutines behind
		libp2p.UserAgent("tweedle"),
		libp2p.Transport(h.newTransport),
		libp2p.QUICReuse(h.newQUIC),
		libp2p.ResourceManager(rm),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}), // the session table decides who stays
		libp2p.ConnectionGater(&connGater{h.penalties, h.refused}),
		libp2p.BandwidthReporter(bandwidth{in: h.metrics.bytesIn, out: h.metrics.out}),
		libp2p.WithDialTimeout(dialTimeout),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),                  // ours have no label that a peer chooses
		libp2p.DisableIdentifyAddressDiscovery(), // what others say of our address is not needed, and it stalls virtual time
		libp2p.Ping(false),
		// They give up on UDP after some failed dials; we have nothing else.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
	)
	if err != nil {
		return fmt.Errorf("p2p: %w", err)
	}
	h.libp2p.Network().Notify(&network.NotifyBundle{ConnectedF: h.connected, DisconnectedF: h.disconnected})
	for _, s := range cfg.Listen {
		addr, err := ma.NewMultiaddr(s)
		if err == nil {
			err = h.libp2p.Network().Listen(addr)
		}
		if err != nil {
			h.libp2p.Close()
			return fmt.Errorf("p2p: listen on %s: %w: choose another address, or stop who uses it", s, err)
		}
	}
	return nil
}

// newTransport is called by libp2p's constructor.
func (h *Host) newTransport(key crypto.PrivKey, cm *quicreuse.ConnManager, psk pnet.PSK, gater connmgr.ConnectionGater, rm network.ResourceManager) (transport.Transport, error) {
	t, err := libp2pquic.NewTransport(key, cm, psk, gater, rm)
	if err != nil {
		return nil, err
	}
	return &gate{
		Transport: t,
		ours:      hello{version: ProtocolVersion, network: h.cfg.Network},
		timeout:   h.cfg.HelloTimeout,
		refused:   h.refused,
		hellos:    h.cfg.hellos(),
		open:      h.open,
		admit:     h.sessions.admit,
	}, nil
}

// newQUIC is called by libp2p's constructor. It counts a connection against the limits from its first
// packet on, before there is any handshake, as libp2p's own constructor does.
func (h *Host) newQUIC(reset quic.StatelessResetKey, token quic.TokenGeneratorKey, rm network.ResourceManager, life fx.Lifecycle) (*quicreuse.ConnManager, error) {
	opts := []quicreuse.Option{
		quicreuse.ConnContext(func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
			addr, err := quicreuse.ToQuicMultiaddr(info.RemoteAddr, quic.Version1)
			if err != nil {
				return ctx, err
			}
			scope, err := rm.OpenConnection(network.DirInbound, false, addr)
			if err != nil {
				named := h.namedLimit(err)
				h.refused(Refusal{Addr: addr, Inbound: true, Reason: named.reason, Err: named})
				return ctx, err
			}
			leave, full := h.halfOpen.enter(ctx, sessionBlock(addr))
			if full != nil {
				scope.Done()
				h.refused(Refusal{Addr: addr, Inbound: true, Reason: full.reason, Err: full})
				return ctx, full
			}
			context.AfterFunc(ctx, scope.Done)
			return network.WithConnManagementScope(context.WithValue(ctx, halfOpenKey{}, leave), scope), nil
		}),
		// A Retry for everybody: who lies about its address costs us one packet, and nothing that lasts.
		quicreuse.VerifySourceAddress(func(net.Addr) bool { return true }),
	}
	if socket := h.cfg.Socket; socket != nil {
		source := &fixedSource{}
		opts = append(opts,
			quicreuse.OverrideListenUDP(func(_ string, local *net.UDPAddr) (net.PacketConn, error) {
				source.ip.Store(&local.IP)
				return socket(local)
			}),
			quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return source, nil }))
	}
	cm, err := quicreuse.NewConnManager(reset, token, opts...)
	if err != nil {
		return nil, err
	}
	life.Append(fx.StopHook(cm.Close))
	return cm, nil
}

// namedLimit says which limit a new connection met, and how it is changed. libp2p has texts only.
func (h *Host) namedLimit(err error) *errNoRoom {
	switch text := err.Error(); {
	case strings.Contains(text, "connections per ip"):
		return &errNoRoom{RefusedAddress, fmt.Sprintf("%d connections from one address are there: raise --peers-per-address if they are all yours", h.cfg.MaxConnsPerIP)}
	case strings.Contains(text, "rate limit"):
		return &errNoRoom{RefusedRate, fmt.Sprintf("connections from one address come faster than one in five seconds, after %d at once: raise --peers-per-address if they are all yours", 2*h.cfg.MaxConnsPerIP)}
	}
	return &errNoRoom{RefusedLimit, fmt.Sprintf("there are too many connections (--max-peers allows more): %v", err)}
}

// fixedSource says that all our packets leave from the address that we listen on: a virtual network has
// no routing table.
type fixedSource struct{ ip atomic.Pointer[net.IP] }

func (s *fixedSource) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	ip := s.ip.Load()
	if ip == nil {
		return nil, errors.New("p2p: dial before listen")
	}
	return *ip, nil
}

// Run serves peers until ctx ends or Close is called, then closes the host: it is not to be run again.
// It returns nil when it was asked to end, and else why it could not start.
func (h *Host) Run(ctx context.Context) error {
	defer h.saveBook() // when nobody comes any more: a peer is seen a moment before it is in the book
	defer h.Close()
	h.mu.Lock()
	again := h.started
	h.started = true
	h.mu.Unlock()
	if again {
		panic("p2p: Run called twice")
	}
	if err := h.registerMetrics(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, h.end)()
	g, err := h.startGossip(h.ctx)
	if err != nil {
		if h.ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("p2p: start gossip: %w", err)
	}
	for name, s := range h.servers {
		h.libp2p.SetStreamHandler(protocol.ID(name), func(stream network.Stream) { h.serve(s, stream) })
	}
	defer g.speaks.Close()
	h.gossip.Store(g)
	defer h.gossip.Store(nil)
	close(h.open)
	h.log.Info("p2p is running", "id", h.id, "network", h.cfg.Network.String(), "addrs", h.Addrs())
	h.discover(h.ctx)
	return nil
}

// Running is closed once Run serves: from then on Publish, Request and Connect do not return
// ErrNotRunning, until the end.
func (h *Host) Running() <-chan struct{} { return h.open }

// running returns the gossip of a host that serves, else nil.
func (h *Host) running() *gossip {
	if h.ctx.Err() != nil {
		return nil
	}
	return h.gossip.Load()
}

// Close ends Run, closes all connections and sockets, and waits for handlers that run. It may be called
// again, at any time and from any goroutine but a handler's.
func (h *Host) Close() error {
	h.closed.Do(func() {
		h.end()
		h.closeErr = h.libp2p.Close()
		h.tasks.close()
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, c := range h.registered {
			h.cfg.Registry.Unregister(c)
		}
	})
	return h.closeErr
}

// addCollector keeps a metric for registerMetrics.
func (h *Host) addCollector(c prometheus.Collector) { h.registered = append(h.registered, c) }

func (h *Host) registerMetrics() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.registered {
		if err := h.cfg.Registry.Register(c); err != nil {
			return fmt.Errorf("p2p: register metrics: %w: give each host its own registry", err)
		}
	}
	return nil
}

// ID returns the host's name.
func (h *Host) ID() PeerID { return h.id }

// Addrs returns where the host can be reached, each with /p2p/ and its ID, as Config.Bootnodes wants it; the
// ways in that a router gave us are the last.
func (h *Host) Addrs() []string {
	var all []string
	addrs, err := h.libp2p.Network().InterfaceListenAddresses()
	if err != nil {
		addrs = h.libp2p.Network().ListenAddresses()
	}
	if h.cfg.asksRouter() {
		for _, a := range h.libp2p.Addrs() {
			if !ma.Contains(addrs, a) {
				addrs = append(addrs, a)
			}
		}
	}
	for _, a := range addrs {
		all = append(all, fmt.Sprintf("%s/p2p/%s", a, h.id))
	}
	return all
}

// Connect dials a peer at an address with /p2p/. A peer of another network is a *MismatchError.
func (h *Host) Connect(ctx context.Context, addr string) error {
	if h.running() == nil {
		return ErrNotRunning
	}
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return fmt.Errorf("p2p: address %q: %w", addr, err)
	}
	if err := h.dial(ctx, *info); err != nil {
		return fmt.Errorf("p2p: connect: %w", err)
	}
	return nil
}

// A PeerInfo describes a connected peer.
type PeerInfo struct {
	ID      PeerID
	Addr    ma.Multiaddr // as we see it
	Inbound bool         // it dialed us
	Since   time.Time
	Score   float64 // of gossip; 0 is a newcomer, below the thresholds in this package a bad one
}

// Peers returns the connected peers, sorted by ID. A peer with several connections is listed once,
// with the oldest.
func (h *Host) Peers() []PeerInfo {
	scores := h.scores.Load()
	byID := make(map[PeerID]PeerInfo)
	for _, c := range h.libp2p.Network().Conns() {
		info := PeerInfo{ID: c.RemotePeer(), Addr: c.RemoteMultiaddr(), Inbound: c.Stat().Direction == network.DirInbound, Since: c.Stat().Opened}
		if scores != nil {
			info.Score = (*scores)[info.ID]
		}
		if old, ok := byID[info.ID]; !ok || info.Since.Before(old.Since) {
			byID[info.ID] = info
		}
	}
	peers := make([]PeerInfo, 0, len(byID))
	for _, info := range byID {
		peers = append(peers, info)
	}
	slices.SortFunc(peers, func(a, b PeerInfo) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return peers
}

// Some returns up to n connected peers in random order, those that we dialed before those that dialed
// us: who wants to be among them by making many identities must fill our address book first.
func (h *Host) Some(n int) []PeerID {
	var chosen, others []PeerID
	for _, p := range h.Peers() {
		if p.Inbound {
			others = append(others, p.ID)
		} else {
			chosen = append(chosen, p.ID)
		}
	}
	shuffle(chosen)
	shuffle(others)
	chosen = append(chosen, others...)
	return chosen[:min(n, len(chosen))]
}

func (h *Host) countPeers() (in, out int) {
	for _, p := range h.Peers() {
		if p.Inbound {
			in++
		} else {
			out++
		}
	}
	return in, out
}

// keepScores is called by gossipsub from time to time.
func (h *Host) keepScores(scores map[PeerID]float64) { h.scores.Store(&scores) }

// Disconnect closes the peer's connections. It may come back at once.
func (h *Host) Disconnect(p PeerID) {
	h.libp2p.Network().ClosePeer(p)
}

// Penalise gives the peer points for something that no honest host does. They lower its gossip score,
// halve every PenaltyHalfLife, and at BanThreshold disconnect and ban it for BanTime.
func (h *Host) Penalise(p PeerID, points float64, reason string) {
	h.log.Debug("peer penalised", "peer", p, "points", points, "reason", reason)
	if h.penalties.add(p, points, time.Now()) {
		h.log.Warn("peer banned", "peer", p, "for", BanTime, "reason", reason)
		h.Disconnect(p)
	}
}

// displaced tells once a minute that sessions gave way to newcomers; the table counts them.
func (h *Host) displaced(p PeerID, limits string) {
	if times := h.refusals.Add([2]string{"in", LeftRoom}, time.Now()); times > 0 {
		h.log.Warn("peers made room for newcomers", "limits", limits, "last", p, "times", times)
	}
}

// refused counts and reports a refused connection. The log has one line a minute for each reason, with how
// many there were.
func (h *Host) refused(r Refusal) {
	d := direction(r.Inbound)
	h.metrics.refused.WithLabelValues(d, r.Reason).Inc()
	if times := h.refusals.Add([2]string{d, r.Reason}, time.Now()); times > 0 {
		h.log.Warn("connection refused", "err", r.Err, "peer", r.Peer, "addr", r.Addr, "direction", d, "reason", r.Reason, "times", times)
	} else {
		h.log.Debug("connection refused", "err", r.Err, "peer", r.Peer, "addr", r.Addr, "direction", d, "reason", r.Reason)
	}
	if h.cfg.OnRefused != nil {
		h.cfg.OnRefused(r)
	}
}

func direction(inbound bool) string {
	if inbound {
		return "in"
	}
	return "out"
}

// tasks counts what must end before Close returns.
type tasks struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// begin reports false once closed; else end must follow.
func (t *tasks) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Add(1)
	return true
}

func (t *tasks) end() { t.wg.Done() }

func (t *tasks) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.wg.Wait()
}
