// Package front is the front door of a server: listeners, guards and limits of
// every gRPC and REST API, of the node and of the PoET alike.
//
// It promises: what clients can take is bounded by Limits, whichever way they
// come: connections, calls and streams at a time, requests a second, the size
// and the time of a request, the bytes of replies that nobody reads and the
// time for reading them. One address gets a share of each, so that it cannot
// keep the others out; a refusal is counted, and logged once a minute with the
// name of the limit. A panic of a handler costs that call and is reported.
// New starts nothing; Serve and ServeHTTP leave nothing behind.
//
// A listener speaks TLS if it is given a certificate; one on a unix socket never
// does, since that is for a proxy in front (Options.Proxies), which has it.
//
// It leaves to the caller: what a call means, and who may call it.
package front

import (
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tweedle/base/telemetry"
)

// Limits bound what the clients of a Guard can take, all together and each
// address for itself. An address is an IPv4 address or an IPv6 /64; the /64s
// of one /48 have networkShare times an address's share together. An address
// limit of 0 means that there is none.
type Limits struct {
	Connections, AddressConnections int // open at a time
	Calls, AddressCalls             int // running at a time, streams and REST too
	// Replies and AddressReplies bound the bytes of replies that are not sent
	// yet. A single larger reply passes when nothing else is on its way. Shared
	// ones are bounded alike, beside an address's own.
	Replies, AddressReplies int
	Rate                    float64 // requests a second of an address; 0: no limit
	Burst                   int     // requests at once of an address

	Streams uint32 // calls at a time on one gRPC connection; more than 0
	Header  int    // bytes of a request's headers
	Message int    // bytes of a gRPC request
	Body    int    // bytes of a REST request
	Reply   int    // bytes of a gRPC reply
	Speed   int    // bytes a second at which a client must take a large reply

	Handshake time.Duration // for a connection to say what it wants: TLS, and the first frames of gRPC or the headers of a REST request
	Read      time.Duration // for a request to arrive
	Call      time.Duration // for the answer of a call that is not a stream
	Send      time.Duration // for a client to take a reply, and as long as it takes at Speed
	Idle      time.Duration // of a connection without calls
	Age       time.Duration // of a gRPC connection; 0: no limit
	Ping      time.Duration // least time between a client's keepalives
}

// networkShare is how much more than one IPv6 /64 a whole /48 gets. A household
// is given a /56 or 256 /64s, a company a /48 or 65,536: counted only by /64,
// one line would be that many clients.
const networkShare = 4

// maxRates bounds the addresses whose rates are remembered.
const maxRates = 1 << 14

// sending is the time that a client has to take n bytes.
func (l Limits) sending(n int) time.Duration {
	return l.Send + time.Duration(n)*time.Second/time.Duration(l.Speed)
}

// Options are what a Guard needs besides its limits.
type Options struct {
	// Proxies are addresses whose X-Forwarded-For is believed. Nobody else's
	// is: it would be a way to be anybody. Their connections have no share, and
	// what they send without that header counts as theirs. The zero prefix is
	// whoever comes over a unix socket.
	Proxies []netip.Prefix
	// Free are addresses without a share of their own, for which only the
	// limits of all together hold; nil means Local.
	Free []netip.Prefix
	// Origins are the web pages whose scripts may read REST answers, as in
	// "https://explorer.example", or "*"; empty: none.
	Origins []string
	// Door stands before the names of limits in log and metric; empty: none.
	Door        string
	Certificate *Certificate // of listeners that are no unix sockets; nil: plain text
	Log         *slog.Logger // nil: silent
	Metrics     *Metrics     // nil: not counted
}

// Local returns this machine's own addresses.
func Local() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// Guard holds the limits and the accounts of one server, which may have
// several listeners.
type Guard struct {
	limits  Limits
	options Options

	connections, calls, replies *shares
	shared                      *shares // of shared replies, for each address
	rates, networks             *Rates[netip.Prefix]
	refused                     telemetry.Tally[string] // by limit
}

// New returns a guard that has let nobody in.
func New(l Limits, o Options) *Guard {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Free == nil {
		o.Free = Local()
	}
	return &Guard{
		limits: l, options: o, refused: telemetry.Tally[string]{Every: tellEvery},
		connections: newShares(l.Connections, l.AddressConnections),
		calls:       newShares(l.Calls, l.AddressCalls),
		replies:     newShares(l.Replies, l.AddressReplies),
		shared:      newShares(math.MaxInt, l.AddressReplies),
		rates:       NewRates[netip.Prefix](l.Rate, l.Burst),
		networks:    NewRates[netip.Prefix](networkShare*l.Rate, networkShare*l.Burst),
	}
}

// Log returns the guard's logger, which is never nil.
func (g *Guard) Log() *slog.Logger { return g.options.Log }

// Names of the limits, in the log and as the metric's label; each is the flag that sets it, behind an [Options.Door] and a dash.
const (
	limitConnections        = "max-connections"
	limitAddressConnections = "address-connections"
	limitCalls              = "max-calls"
	limitAddressCalls       = "address-calls"
	limitReplies            = "max-replies"
	limitAddressReplies     = "address-replies"
	limitRate               = "rate-limit"
	limitSend               = "send-time"
	limitRead               = "request-time"
	limitMessage            = "max-message"
	limitBody               = "max-body"
	limitHeader             = "max-header"
	limitStreams            = "max-streams"
	limitHandshake          = "handshake-time"
)

// LimitNames lists them.
func LimitNames() []string {
	return []string{
		limitConnections, limitAddressConnections, limitCalls, limitAddressCalls, limitReplies, limitAddressReplies, limitRate, limitSend, limitRead, limitMessage, limitBody, limitHeader, limitStreams, limitHandshake,
	}
}

// tellEvery is the time between two log lines about one limit.
const tellEvery = time.Minute

// Refuse counts that the limit of this name held somebody back, and logs it
// if that was not told in the last minute.
func (g *Guard) Refuse(limit, who string) {
	if g.options.Door != "" {
		limit = g.options.Door + "-" + limit
	}
	g.options.Metrics.refuse(limit)
	if times := g.refused.Add(limit, time.Now()); times > 0 {
		g.options.Log.Warn("a limit holds clients back", "limit", limit, "last", who, "times", times)
	}
}

// allow takes one of the requests that a client may send a second.
func (g *Guard) allow(c client) bool {
	now := time.Now()
	if c.free {
		return true
	}
	if !g.networks.Room(c.wide, now) || !g.rates.Allow(c.narrow, now) {
		g.Refuse(limitRate, c.String())
		return false
	}
	g.networks.Allow(c.wide, now)
	return true
}

// enter takes one call of a client, until leave.
func (g *Guard) enter(c client) (leave func(), err error) {
	if !g.allow(c) {
		return nil, status.Error(codes.ResourceExhausted, "too many requests from this address: send fewer a second")
	}
	switch g.calls.take(c, 1) {
	case tooManyOfAddress:
		g.Refuse(limitAddressCalls, c.String())
		return nil, status.Error(codes.ResourceExhausted, "too many requests of this address are running: wait for their answers")
	case tooMany:
		g.Refuse(limitCalls, c.String())
		return nil, status.Error(codes.ResourceExhausted, "too many requests are running: try later")
	}
	return sync.OnceFunc(func() { g.calls.give(c, 1) }), nil
}
