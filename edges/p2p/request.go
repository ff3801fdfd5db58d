package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	multistream "github.com/multiformats/go-multistream"
)

// Defaults of Limits.
const (
	// DefaultMaxRequest bounds a request, in bytes.
	DefaultMaxRequest = 16 << 10
	// DefaultMaxResponse bounds a response, in bytes.
	DefaultMaxResponse = 1 << 20
	// DefaultRequestTimeout bounds a request on both sides, reading and writing included.
	DefaultRequestTimeout = 10 * time.Second
	// DefaultRequestWorkers is the number of handlers of one protocol that run at the same time.
	DefaultRequestWorkers = 8
	// DefaultRequestQueue is the number of requests of one protocol that are read or wait.
	DefaultRequestQueue = 32
	// DefaultRequestRate is how many requests of one protocol a peer may make per second in the long run.
	DefaultRequestRate = 20
	// DefaultRequestBurst is how many it may make at once.
	DefaultRequestBurst = 50
	// DefaultByteRate is how many bytes of answers of one protocol a peer may get per second in the long run.
	DefaultByteRate = 4 << 20
	// DefaultByteBurst is how many it may get at once, or one answer if that is larger.
	DefaultByteBurst = 32 << 20
	// MaxErrorText bounds the text of a handler's error that the peer sees, in bytes.
	MaxErrorText = 256
)

// Limits bound a request protocol. A zero field takes its default.
type Limits struct {
	MaxRequest, MaxResponse int           // bytes
	Timeout                 time.Duration // of one request, both for who asks and who answers
	Workers, Queue          int           // handlers that run, requests that wait; half of both for one peer
	Rate                    float64       // requests per second and peer
	Burst                   int           // requests
	ByteRate                float64       // bytes of answers per second and peer
	ByteBurst               int           // bytes
}

// Errors of Request. Each names what the asker should do: ask another peer, later, or for less.
var (
	ErrNotConnected = errors.New("p2p: peer is not connected")
	ErrUnsupported  = errors.New("p2p: peer does not serve this protocol")
	ErrBusy         = errors.New("p2p: peer is busy: try another")
	ErrRateLimited  = errors.New("p2p: too many requests to this peer: slow down")
	ErrTooLarge     = errors.New("p2p: request or response is larger than the limit")
	ErrTimeout      = errors.New("p2p: peer did not answer in time")
	ErrBroken       = errors.New("p2p: peer broke off")
)

// A RemoteError is what the peer's handler returned, cut to MaxErrorText.
type RemoteError struct{ Text string }

func (e *RemoteError) Error() string { return fmt.Sprintf("peer answered: %q", e.Text) }

// A response is one status byte and then, to the end of the stream, the payload.
const (
	statusOK     byte = iota
	statusFailed      // payload is the handler's error
	statusBusy
	statusRateLimited
	statusTooLarge
	statusTimeout
)

// replyTime is what is left to send an answer when the time for the work is over.
const replyTime = time.Second

// server is a registered request protocol.
type server struct {
	Limits
	protocol  string
	handler   func(ctx context.Context, from PeerID, req []byte) ([]byte, error)
	admission *admission
	quota     *quota // requests
	bytes     *quota // of answers
}

// Handle serves a protocol, named as "/tweedle/atx/1", and fixes the limits that Request uses for it.
// The text of the handler's error goes to the peer. The handler must return when ctx ends. Handle
// panics on limits that can never work, and after Run: both are our own mistakes.
func (h *Host) Handle(name string, limits Limits, handler func(ctx context.Context, from PeerID, req []byte) ([]byte, error)) {
	limits = limits.withDefaults()
	if !strings.HasPrefix(name, "/") || limits.MaxRequest < 0 || limits.MaxResponse < 0 || limits.Workers < 0 || limits.Queue < 0 || handler == nil {
		panic(fmt.Sprintf("p2p: protocol %q cannot be served with %+v", name, limits))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.servers[name] != nil || h.started {
		panic(fmt.Sprintf("p2p: protocol %q registered twice or after Run", name))
	}
	s := &server{limits, name, handler, newAdmission(limits.Workers, limits.Queue, 0), newQuota(limits.Rate, limits.Burst), newQuota(limits.ByteRate, max(limits.ByteBurst, limits.MaxResponse))}
	h.servers[name] = s
	h.addCollector(queueGauge("request_queue_length", "protocol", name, s.admission))
}

func (l Limits) withDefaults() Limits {
	setInt(&l.MaxRequest, DefaultMaxRequest)
	setInt(&l.MaxResponse, DefaultMaxResponse)
	setInt(&l.Timeout, DefaultRequestTimeout)
	setInt(&l.Workers, DefaultRequestWorkers)
	setInt(&l.Queue, DefaultRequestQueue)
	setInt(&l.Burst, DefaultRequestBurst)
	setInt(&l.ByteBurst, DefaultByteBurst)
	if l.Rate == 0 {
		l.Rate = DefaultRequestRate
	}
	if l.ByteRate == 0 {
		l.ByteRate = DefaultByteRate
	}
	return l
}

// serve answers one request. libp2p calls it on a goroutine of its own, for no more streams than the
// resource manager admits.
func (h *Host) serve(s *server, stream network.Stream) {
	if !h.tasks.begin() {
		stream.Reset()
		return
	}
	defer h.tasks.end()
	start := time.Now()
	result := h.answer(s, stream)
	h.metrics.servedTime.WithLabelValues(s.protocol, result).Observe(time.Since(start).Seconds())
}

// answer returns the result as the metric's label.
func (h *Host) answer(s *server, stream network.Stream) string {
	from := stream.Conn().RemotePeer()
	ctx, cancel := context.WithTimeout(h.ctx, s.Timeout)
	defer cancel()
	begin := time.Now()
	stream.SetReadDeadline(begin.Add(s.Timeout))
	stream.SetWriteDeadline(begin.Add(s.Timeout + replyTime))
	reply := func(status byte, payload []byte, label string) string {
		if _, err := stream.Write(append([]byte{status}, payload...)); err != nil {
			stream.Reset()
			return "unsent"
		}
		stream.Close()
		return label
	}
	// What an answer costs is known when it is there: who got too much waits before the next.
	if !s.quota.take(from, begin) || !s.bytes.solvent(from, begin) {
		return reply(statusRateLimited, nil, "rate_limited")
	}
	// The place is taken before the first byte is read: it is what bounds the memory.
	if !s.admission.enter(from) {
		return reply(statusBusy, nil, "busy")
	}
	defer s.admission.leave(from)
	defer h.sessions.busy(from)()
	req, err := io.ReadAll(io.LimitReader(stream, int64(s.MaxRequest)+1))
	if err != nil {
		stream.Reset()
		return "unread"
	}
	if len(req) > s.MaxRequest {
		return reply(statusTooLarge, nil, "too_large")
	}
	select {
	case s.admission.running <- struct{}{}:
	case <-ctx.Done():
		return reply(statusTimeout, nil, "timeout")
	}
	resp, err := s.handler(ctx, from, req)
	<-s.admission.running
	switch {
	case ctx.Err() != nil: // who asked has given up, or is about to
		return reply(statusTimeout, nil, "timeout")
	case err != nil:
		text := err.Error()
		return reply(statusFailed, []byte(text[:min(len(text), MaxErrorText)]), "failed")
	case len(resp) > s.MaxResponse:
		h.log.Error("response is larger than the protocol's limit", "protocol", s.protocol, "bytes", len(resp), "limit", s.MaxResponse)
		return reply(statusTooLarge, nil, "too_large")
	}
	s.bytes.charge(from, len(resp), time.Now())
	return reply(statusOK, resp, "ok")
}

// Request asks a connected peer and returns its answer. It takes the limits that the protocol was
// given with Handle, else the defaults, and ends at ctx's deadline or the protocol's, the earlier one.
// Errors: ErrNotConnected, ErrUnsupported, ErrBusy, ErrRateLimited, ErrTooLarge, ErrTimeout, ErrBroken,
// *RemoteError, ErrNotRunning; all but the last two are wrapped with the peer's name.
func (h *Host) Request(ctx context.Context, p PeerID, name string, req []byte) ([]byte, error) {
	if h.running() == nil {
		return nil, ErrNotRunning
	}
	limits := Limits{}.withDefaults()
	label := "other"
	if s := h.servers[name]; s != nil {
		limits, label = s.Limits, name
	}
	ctx, cancel := context.WithTimeout(ctx, limits.Timeout)
	defer cancel()
	begin := time.Now()
	resp, err := h.request(ctx, p, name, limits, req)
	result := "ok"
	if err != nil {
		result = resultLabel(err)
		var remote *RemoteError
		if !errors.As(err, &remote) {
			err = fmt.Errorf("%s of %s: %w", name, p, err)
		}
	}
	h.metrics.requestTime.WithLabelValues(label, result).Observe(time.Since(begin).Seconds())
	return resp, err
}

func resultLabel(err error) string {
	var remote *RemoteError
	switch {
	case errors.As(err, &remote):
		return "failed"
	case errors.Is(err, ErrBusy):
		return "busy"
	case errors.Is(err, ErrRateLimited):
		return "rate_limited"
	case errors.Is(err, ErrTooLarge):
		return "too_large"
	case errors.Is(err, ErrTimeout):
		return "timeout"
	default:
		return "broken"
	}
}

func (h *Host) request(ctx context.Context, p PeerID, name string, limits Limits, req []byte) ([]byte, error) {
	if len(req) > limits.MaxRequest {
		return nil, fmt.Errorf("%w: request has %d bytes, the limit is %d", ErrTooLarge, len(req), limits.MaxRequest)
	}
	if !h.isConnected(p) {
		return nil, ErrNotConnected
	}
	defer h.sessions.busy(p)()
	stream, err := h.libp2p.NewStream(network.WithNoDial(ctx, "requests go to peers that we have"), p, protocol.ID(name))
	if err != nil {
		return nil, requestError(ctx, err)
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { stream.Reset() })
	defer stop()
	if _, err := stream.Write(req); err != nil && !errors.Is(err, network.ErrReset) {
		return nil, requestError(ctx, err)
	}
	stream.CloseWrite() // an error shows when we read
	b, err := io.ReadAll(io.LimitReader(stream, 1+int64(max(limits.MaxResponse, MaxErrorText))+1))
	if err != nil {
		return nil, requestError(ctx, err)
	}
	return readAnswer(b, limits)
}

// readAnswer reads a response.
func readAnswer(b []byte, limits Limits) ([]byte, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: empty answer", ErrBroken)
	}
	status, payload := b[0], b[1:]
	switch {
	case status == statusOK && len(payload) <= limits.MaxResponse:
		return payload, nil
	case status == statusOK:
		return nil, fmt.Errorf("%w: response has more than %d bytes", ErrTooLarge, limits.MaxResponse)
	case status == statusFailed:
		return nil, &RemoteError{strings.ToValidUTF8(string(payload[:min(len(payload), MaxErrorText)]), "?")}
	case status == statusBusy:
		return nil, ErrBusy
	case status == statusRateLimited:
		return nil, ErrRateLimited
	case status == statusTooLarge:
		return nil, fmt.Errorf("%w: so says the peer", ErrTooLarge)
	case status == statusTimeout:
		return nil, ErrTimeout
	}
	return nil, fmt.Errorf("%w: answer has unknown status %d", ErrBroken, status)
}

func requestError(ctx context.Context, err error) error {
	var unsupported multistream.ErrNotSupported[protocol.ID]
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded):
		return ErrTimeout
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &unsupported):
		return ErrUnsupported
	case errors.Is(err, network.ErrNoConn):
		return ErrNotConnected
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}
