package p2p

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/zeebo/blake3"
)

// Defaults of Topic.
const (
	// DefaultTopicWorkers is the number of handlers of one topic that run at the same time.
	DefaultTopicWorkers = 2
	// DefaultTopicQueue is the number of messages of one topic that wait for a worker.
	DefaultTopicQueue = 128
	// DefaultTopicTimeout is a message's time from its arrival to its verdict.
	DefaultTopicTimeout = 10 * time.Second
)

// A Topic is one kind of gossip message. At most Share of its places, Workers and Queue together, are
// taken by messages from one peer, so the memory it takes is below MaxSize times Workers+Queue.
type Topic struct {
	Name    string        // the same on all hosts; at most 64 bytes
	MaxSize int           // bytes, at most MaxMessageSize
	Workers int           // DefaultTopicWorkers
	Queue   int           // DefaultTopicQueue
	Share   int           // places that one peer may hold; half of all
	Timeout time.Duration // DefaultTopicTimeout
	OwnTurn bool          // the handler waits for a turn of its own, and then calls Begin
}

// A Verdict is what a handler thinks of a message. The zero Verdict ignores.
type Verdict struct {
	action action
	reason string
}

// String is the verdict without its reason.
func (v Verdict) String() string {
	return [...]string{"ignore", "accept", "reject", "unseen"}[v.action]
}

type action uint8

const (
	ignore action = iota
	accept
	reject
	unseen
)

// Accept says that the message is valid: it goes on to other peers.
func Accept() Verdict { return Verdict{action: accept} }

// Ignore says that the message goes nowhere and that its sender is not to blame: it is late, or early,
// or we could not check it.
func Ignore(reason string) Verdict { return Verdict{ignore, reason} }

// Reject says that no honest host would have sent this message: it goes nowhere, and whoever sent it
// loses score with the square of the number of such messages.
func Reject(reason string) Verdict { return Verdict{reject, reason} }

// Unseen says that nobody looked at the message, for want of a turn: another peer's copy of it may have one.
func Unseen(reason string) Verdict { return Verdict{unseen, reason} }

// A Handler judges one message. It must return when ctx ends, and must not change msg. from is the
// peer that sent it to us, not its author. It runs at the same time as others of its topic.
type Handler func(ctx context.Context, from PeerID, msg []byte) Verdict

// Errors of Publish.
var (
	// ErrNotRunning means that Run has not been called, or has ended.
	ErrNotRunning = errors.New("p2p: host is not running")
	// ErrNoPeers means that no connected peer takes this topic; the message was not sent and may be
	// published again.
	ErrNoPeers = errors.New("p2p: no peer to publish to: try again when there are some")
)

// Score thresholds. A peer starts at zero. Only invalid messages, broken gossip promises, many peers
// behind one address and Penalise lower a score, so an honest slow peer stays at zero or above: the
// penalties for late delivery (P3 of gossipsub v1.1) are off on purpose.
const (
	gossipThreshold   = -20 // below, we neither give nor ask for messages
	publishThreshold  = -40 // below, we do not publish to it
	graylistThreshold = -80 // below, we read nothing from it
)

// topicScore returns what a topic adds to a peer's score.
func topicScore() *pubsub.TopicScoreParams {
	return &pubsub.TopicScoreParams{
		TopicWeight: 1,
		// P1: up to 1 for staying in the mesh, in five minutes.
		TimeInMeshWeight: 0.01, TimeInMeshQuantum: 3 * time.Second, TimeInMeshCap: 100,
		// P2: up to 10 for being first with messages that were valid.
		FirstMessageDeliveriesWeight: 0.2, FirstMessageDeliveriesDecay: pubsub.ScoreParameterDecay(10 * time.Minute), FirstMessageDeliveriesCap: 50,
		// P4: one invalid message costs 5, two 20 (no gossip), three 45, four 80 (read nothing). An hour
		// forgives all, so a persistent liar is heard every few minutes.
		InvalidMessageDeliveriesWeight: -5, InvalidMessageDeliveriesDecay: pubsub.ScoreParameterDecay(time.Hour),
	}
}

func (h *Host) scoreParams() (*pubsub.PeerScoreParams, *pubsub.PeerScoreThresholds) {
	_, loopback4, _ := net.ParseCIDR("127.0.0.0/8")
	_, loopback6, _ := net.ParseCIDR("::1/128")
	topics := make(map[string]*pubsub.TopicScoreParams)
	for name := range h.topics {
		topics[name] = topicScore()
	}
	return &pubsub.PeerScoreParams{
			Topics:        topics,
			TopicScoreCap: 20, // good behaviour buys no more than two invalid messages
			// P5: points given with Penalise.
			AppSpecificScore:  func(p PeerID) float64 { return -h.penalties.level(p, time.Now()) },
			AppSpecificWeight: 1,
			// P6: peers behind one address, from MaxConnsPerIP on.
			IPColocationFactorWeight: -5, IPColocationFactorThreshold: h.cfg.MaxConnsPerIP,
			IPColocationFactorWhitelist: []*net.IPNet{loopback4, loopback6},
			// P7: broken promises to deliver, grafts during backoff; the first six are free.
			BehaviourPenaltyWeight: -5, BehaviourPenaltyThreshold: 6, BehaviourPenaltyDecay: pubsub.ScoreParameterDecay(10 * time.Minute),
			DecayInterval: pubsub.DefaultDecayInterval,
			DecayToZero:   pubsub.DefaultDecayToZero,
			RetainScore:   time.Hour, // to reconnect forgives nothing
			SeenMsgTTL:    h.cfg.SeenTTL,
		}, &pubsub.PeerScoreThresholds{
			GossipThreshold: gossipThreshold, PublishThreshold: publishThreshold, GraylistThreshold: graylistThreshold,
			OpportunisticGraftThreshold: 1,
		}
}

// topic is a registered Topic.
type topic struct {
	Topic
	handler   Handler
	admission *admission
}

// Register adds a topic. It panics on a topic that can never work, and after Run: both are our own
// mistakes.
func (h *Host) Register(t Topic, handler Handler) {
	setInt(&t.Workers, DefaultTopicWorkers)
	setInt(&t.Queue, DefaultTopicQueue)
	setInt(&t.Timeout, DefaultTopicTimeout)
	if t.Name == "" || len(t.Name) > 64 || t.MaxSize <= 0 || t.MaxSize > MaxMessageSize || t.Workers < 0 || t.Queue < 0 || handler == nil {
		panic(fmt.Sprintf("p2p: topic %+v cannot be registered", t))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.topics[t.Name] != nil || h.started {
		panic(fmt.Sprintf("p2p: topic %q registered twice or after Run", t.Name))
	}
	a := newAdmission(t.Workers, t.Queue, t.Share)
	a.reserve = gossipReserve
	h.topics[t.Name] = &topic{t, handler, a}
	h.addCollector(queueGauge("gossip_queue_length", "topic", t.Name, a))
}

func queueGauge(name, label, value string, a *admission) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "tweedle", Subsystem: "p2p", Name: name,
		Help: "Messages or requests that wait or run.", ConstLabels: prometheus.Labels{label: value}},
		func() float64 { return float64(a.taken()) })
}

// gossip is the part of a host that exists while it runs.
type gossip struct {
	host   *Host
	pubsub *pubsub.PubSub
	topics map[string]*pubsub.Topic
	copies copies
	ctx    context.Context // of the run
	speaks event.Emitter   // of what gossipsub takes for a peer that has come
}

// barren is a context that keeps nothing of those that are derived from it, and whose end they do not hear
// of. gossipsub derives one for each stream that it opens to a peer and ends none of them (v0.16.0, comm.go), so
// that each peer which comes and goes would leave a kB for as long as we run; the goroutines of its streams end
// with their queues.
type barren struct{ context.Context }

// Value hides what kind of context is inside, which would keep its children.
func (barren) Value(any) any { return nil }

// AfterFunc is what package context asks instead.
func (barren) AfterFunc(func()) (stop func() bool) { return func() bool { return true } }

// startGossip joins all topics. All its goroutines end with ctx.
func (h *Host) startGossip(ctx context.Context) (*gossip, error) {
	g := &gossip{host: h, topics: make(map[string]*pubsub.Topic), copies: copies{open: make(map[string]*unjudged), full: h.metrics.meet}, ctx: ctx}
	places := 0
	names := make([]string, 0, len(h.topics))
	for name, t := range h.topics {
		places += t.Workers + t.Queue
		names = append(names, name)
	}
	params := pubsub.DefaultGossipSubParams()
	params.HeartbeatInterval = h.cfg.Heartbeat
	score, thresholds := h.scoreParams()
	ps, err := pubsub.NewGossipSub(barren{ctx}, h.libp2p,
		// No libp2p signatures: what needs an author is signed inside the payload, and a signature of
		// the host would tell on which machine a smesher runs. A message that has one is refused.
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		// The same bytes from several publishers are one message.
		pubsub.WithMessageIdFn(func(m *pb.Message) string { id := messageID(m.GetTopic(), m.GetData()); return string(id[:]) }),
		pubsub.WithMaxMessageSize(MaxMessageSize+64<<10), // the rest of the RPC
		pubsub.WithSeenMessagesTTL(h.cfg.SeenTTL),
		// A network of a few nodes has no mesh worth the name: our own messages go to all peers.
		pubsub.WithFloodPublish(true),
		pubsub.WithGossipSubParams(params),
		pubsub.WithPeerScore(score, thresholds),
		pubsub.WithPeerScoreInspect(h.keepScores, 10*time.Second),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(names...), 2*len(names)+16)),
		// gossipsub's own throttles never bind: admission is per topic and per peer.
		pubsub.WithValidateThrottle(places+1),
		pubsub.WithValidateQueueSize(256),
		pubsub.WithPeerOutboundQueueSize(128),
		pubsub.WithRawTracer(tracer{g}),
	)
	if err != nil {
		return nil, err
	}
	g.pubsub = ps
	if g.speaks, err = h.libp2p.EventBus().Emitter(new(event.EvtPeerProtocolsUpdated)); err != nil {
		return nil, err
	}
	for name, t := range h.topics {
		if err := ps.RegisterTopicValidator(name, g.validator(t), pubsub.WithValidatorConcurrency(places+1)); err != nil {
			return nil, err
		}
		joined, err := ps.Join(name)
		if err != nil {
			return nil, err
		}
		g.topics[name] = joined
		// The validator is the consumer. A relay makes us part of the mesh without one more queue.
		if _, err := joined.Relay(); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// rejoin tells gossipsub of connected peers that it does not have. It forgets one that has two connections,
// of which one ends while it opens its stream there, and hears of the peer only with the next one.
func (g *gossip) rejoin() {
	net := g.host.libp2p.Network()
	has := g.pubsub.ListPeers("")
	for _, p := range net.Peers() {
		if slices.Contains(has, p) {
			continue
		}
		protocols, err := g.host.libp2p.Peerstore().SupportsProtocols(p, pubsub.GossipSubDefaultProtocols...)
		if err != nil || len(protocols) == 0 {
			continue // it has not said yet what it speaks
		}
		if err := g.speaks.Emit(event.EvtPeerProtocolsUpdated{Peer: p, Added: protocols}); err != nil {
			return // we end
		}
	}
}

// messageID depends on nothing but what is said.
func messageID(topic string, data []byte) [32]byte {
	hash := blake3.New()
	var n [4]byte
	binary.LittleEndian.PutUint32(n[:], uint32(len(topic)))
	hash.Write(n[:])
	hash.WriteString(topic)
	hash.Write(data)
	return [32]byte(hash.Sum(nil))
}

// validator judges the messages of a topic. gossipsub calls it on a goroutine of its own for the first
// copy of each message.
func (g *gossip) validator(t *topic) pubsub.ValidatorEx {
	return func(_ context.Context, from PeerID, m *pubsub.Message) pubsub.ValidationResult {
		h := g.host
		if from == h.id { // the caller of Publish has judged it
			return pubsub.ValidationAccept
		}
		h.metrics.gossipBytes.WithLabelValues(t.Name).Add(float64(len(m.Data)))
		if len(m.Data) > t.MaxSize {
			g.count(t, "too_large")
			return pubsub.ValidationReject
		}
		if !h.tasks.begin() {
			return pubsub.ValidationIgnore
		}
		defer h.tasks.end()
		switch g.judge(t, from, m).action {
		case accept:
			return pubsub.ValidationAccept
		case reject:
			return pubsub.ValidationReject
		}
		return pubsub.ValidationIgnore
	}
}

func (g *gossip) count(t *topic, verdict string) {
	g.host.metrics.gossipIn.WithLabelValues(t.Name, verdict).Inc()
}

// judge has a message looked at for whoever has a turn first of those who bring it.
func (g *gossip) judge(t *topic, from PeerID, m *pubsub.Message) Verdict {
	u, ok := g.copies.begin(m.ID, from)
	if !ok {
		return Ignore("it is being judged")
	}
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel() // who still waits for a turn
	verdicts := make(chan Verdict, maxBringers)
	waits := 0
	wait := func(p PeerID) {
		if g.host.tasks.begin() {
			waits++
			go func() {
				defer g.host.tasks.end()
				verdicts <- g.look(ctx, t, p, m.Data, &turn{of: u})
			}()
		}
	}
	for wait(from); ; {
		for p, ok := u.another(); ok; p, ok = u.another() {
			wait(p)
		}
		if waits == 0 {
			if u.rest() {
				return Ignore("nobody had a turn")
			}
			continue // one more has just come
		}
		select {
		case v := <-verdicts:
			waits--
			if v.action != unseen {
				u.end()
				return v
			}
		case <-u.more:
		}
	}
}

// look runs the handler of a topic for a peer, within the topic's limits.
func (g *gossip) look(ctx context.Context, t *topic, from PeerID, data []byte, turn *turn) (v Verdict) {
	h := g.host
	defer func() {
		if v.action == unseen {
			turn.giveUp()
		}
	}()
	if !t.admission.enter(from) {
		g.count(t, "queue_full")
		return Unseen("no room for one more of this peer")
	}
	defer t.admission.leave(from)
	all := ctx
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, turnKey{}, turn), t.Timeout)
	defer cancel()
	late := func() Verdict {
		if all.Err() == nil { // or another had its turn
			g.count(t, "late")
		}
		return Unseen("there was no time")
	}
	select {
	case t.admission.running <- struct{}{}:
		defer func() { <-t.admission.running }()
	case <-ctx.Done():
		return late()
	}
	if !t.OwnTurn && !Begin(ctx) {
		return Unseen("another had its turn")
	}
	start := time.Now()
	v = t.handler(ctx, from, data)
	h.metrics.handlerTime.WithLabelValues(t.Name).Observe(time.Since(start).Seconds())
	switch {
	case v.action == unseen:
		return v
	case ctx.Err() != nil: // the verdict may be about the deadline and not about the message
		return late()
	}
	g.count(t, v.String())
	switch v.action {
	case accept:
		h.sessions.use(from)
	case reject:
		h.log.Debug("rejected gossip", "topic", t.Name, "from", from, "reason", v.reason)
	}
	return v
}

// again takes one more copy of a message. gossipsub's loop calls it.
func (g *gossip) again(m *pubsub.Message) {
	t := g.host.topics[m.GetTopic()]
	if t == nil || m.ID == "" || !g.copies.again(m.ID, m.ReceivedFrom) || !g.host.tasks.begin() {
		return
	}
	go func() {
		defer g.host.tasks.end()
		g.judge(t, m.ReceivedFrom, m) // gossipsub has ended it: whoever else needs it has it from its bringer
	}()
}

// Publish gives the message to the connected peers that take the topic, as far as their queues have
// room; our own handler does not see it. A message that went through this host within Config.SeenTTL,
// published here or received, is not sent again: whoever must answer for its delivery offers it by
// Request. Errors: ErrNoPeers, ErrNotRunning, or one about the message's size.
func (h *Host) Publish(ctx context.Context, topic string, msg []byte) error {
	g := h.running()
	if g == nil {
		return ErrNotRunning
	}
	t := h.topics[topic]
	if t == nil {
		return fmt.Errorf("p2p: publish to %q: no such topic", topic)
	}
	if len(msg) > t.MaxSize {
		return fmt.Errorf("p2p: publish to %q: message has %d bytes, the limit is %d", topic, len(msg), t.MaxSize)
	}
	// gossipsub would mark the message as seen, and so make it impossible to publish later.
	if len(g.pubsub.ListPeers(topic)) == 0 {
		return ErrNoPeers
	}
	switch err := g.topics[topic].Publish(ctx, bytes.Clone(msg)); {
	case err == nil:
		return nil
	case h.ctx.Err() != nil:
		return ErrNotRunning
	default:
		return fmt.Errorf("p2p: publish to %q: %w", topic, err)
	}
}

// tracer counts what gossipsub does. Its methods are called from gossipsub's loop and must not wait.
type tracer struct{ g *gossip }

func (t tracer) SendRPC(rpc *pubsub.RPC, _ PeerID) {
	for _, m := range rpc.Publish {
		t.g.host.metrics.gossipOut.WithLabelValues(m.GetTopic()).Inc()
	}
}

func (t tracer) DropRPC(rpc *pubsub.RPC, _ PeerID) {
	t.g.host.metrics.gossipDrop.Add(float64(len(rpc.Publish)))
}

func (t tracer) DuplicateMessage(m *pubsub.Message) {
	t.count(m, "duplicate")
	t.g.again(m)
}

func (t tracer) RejectMessage(m *pubsub.Message, reason string) {
	switch reason {
	case pubsub.RejectValidationFailed, pubsub.RejectValidationIgnored: // the validator has counted them
	case pubsub.RejectValidationQueueFull, pubsub.RejectValidationThrottled:
		t.count(m, "queue_full")
	default: // signed against the policy, or from a peer that is not allowed
		t.count(m, "malformed")
	}
}

// count labels with a topic only if it is one of ours.
func (t tracer) count(m *pubsub.Message, verdict string) {
	name := m.GetTopic()
	if t.g.host.topics[name] == nil {
		name = "unknown"
	}
	t.g.host.metrics.gossipIn.WithLabelValues(name, verdict).Inc()
}

func (tracer) DeliverMessage(*pubsub.Message)          {}
func (tracer) OnNewOutboundStream(PeerID, protocol.ID) {}
func (tracer) OnClosedOutboundStream(PeerID)           {}
func (tracer) Join(string)                             {}
func (tracer) Leave(string)                            {}
func (tracer) Graft(PeerID, string)                    {}
func (tracer) Prune(PeerID, string)                    {}
func (tracer) ValidateMessage(*pubsub.Message)         {}
func (tracer) ThrottlePeer(PeerID)                     {}
func (tracer) RecvRPC(*pubsub.RPC)                     {}
func (tracer) UndeliverableMessage(*pubsub.Message)    {}
