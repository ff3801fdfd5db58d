// Package door is the outside of a PoET server: its public API over gRPC and
// REST, and its admin API.
//
// It promises: the calls, names, status codes and JSON of the reference
// (reference/poet.md 1.7 and 3), so that its clients work unchanged. Bad input
// gets its status and one line that says why, and changes nothing. Requests
// are bounded in size, number, rate and time. The admin API listens on this
// machine only and denies every method that is not listed, and everybody who
// does not show a token.
//
// It leaves to the caller: what a call means (Backend and Outbox), TLS (a
// reverse proxy's business), and the listeners' addresses.
package door

import (
	"context"
	"log/slog"
	"time"

	"tweedle/services/poet"
	"tweedle/services/poet/delivery"
	"tweedle/protocol/registration"
	"tweedle/values/types"
)

// Backend is what the APIs serve: a *rounds.Service.
type Backend interface {
	Submit(ctx context.Context, r poet.Registration) (poet.Receipt, error)
	Info() poet.Info
	PowParams() registration.PowParams
	ReloadTrustedKeys() error
	Proof(round string) (poet.ProofRecord, error)
	Member(round string, nodeID []byte) (poet.MembershipProof, error)
	Rounds() []poet.RoundStatus
	Storage() poet.StorageStatus
}

// Outbox is what the admin API steers: a *delivery.Courier.
type Outbox interface {
	Gateways() []delivery.GatewayStatus
	Slots() int
	SetGateways(addrs []string) error
	AddGateway(addr string) error
	RemoveGateway(addr string) (known bool, err error)
	Proofs() []delivery.Record
	// Rebroadcast offers a stored proof anew; poet.ErrNotFound if it is not stored.
	Rebroadcast(round string) error
}

// Limits bound what one client can ask.
type Limits struct {
	// PerAddress and AddressBurst bound the requests of one IPv4 address or
	// IPv6 /64, in requests a second; 0 means no limit. This machine's own
	// addresses are never limited.
	PerAddress   float64
	AddressBurst int
	// PerKey and KeyBurst bound the valid registrations of one key, in requests
	// a second; 0 means no limit.
	PerKey   float64
	KeyBurst int
	// MaxBody bounds a request's body, MaxHeader its header, in bytes.
	MaxBody, MaxHeader int
	// MaxReply bounds a gRPC reply, in bytes.
	MaxReply int
	// MaxConns bounds the open connections of a listener.
	MaxConns int
	// Deadline bounds the time of one call.
	Deadline time.Duration
}

// DefaultLimits are generous to a smesher, who needs a handful of calls a
// round.
func DefaultLimits() Limits {
	return Limits{
		PerAddress: 20, AddressBurst: 200,
		PerKey: 1, KeyBurst: 20,
		MaxBody: 16 << 10, MaxHeader: 16 << 10, MaxReply: 64 << 20,
		MaxConns: 4096,
		Deadline: 10 * time.Second,
	}
}

// Config is what the servers need besides what they serve.
type Config struct {
	Limits       Limits
	Schedule     types.PoetSchedule
	CertifierURL string // told in Info; empty: none is told
	Version      string
	Log          *slog.Logger // nil: silent
	Metrics      *Metrics     // nil: not counted
}

func (c Config) logger() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}
