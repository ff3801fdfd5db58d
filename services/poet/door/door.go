// Package door is the outside of a PoET server: its public API over gRPC and
// REST, and its admin API.
//
// It promises: the calls, names, status codes and JSON of the reference
// (reference/poet.md 1.7 and 3), so that its clients work unchanged. Bad input
// gets its status and one line that says why, and changes nothing. What clients
// can take is bounded as package front says, and the registrations of a key in
// rate. A proof is encoded once for all who ask for it. The admin API denies
// every method that is not listed, and everybody who does not show a token.
//
// It leaves to the caller: what a call means (Backend and Outbox), TLS (a
// reverse proxy's business), and the listeners: the admin API's must be one of
// front.ListenLocal.
package door

import (
	"context"
	"io"
	"time"

	"tweedle/edges/front"
	"tweedle/protocol/registration"
	"tweedle/services/poet"
	"tweedle/services/poet/delivery"
	"tweedle/values/types"
)

// Backend is what the APIs serve: a *rounds.Service.
type Backend interface {
	Submit(ctx context.Context, r poet.Registration) (poet.Receipt, error)
	Info() poet.Info
	PowParams() registration.PowParams
	ReloadTrustedKeys() error
	Proof(ctx context.Context, round string) (poet.ProofRecord, error)
	Member(ctx context.Context, round string, nodeID []byte) (poet.MembershipProof, error)
	Rounds() []poet.RoundStatus
	Reopen(ctx context.Context) (round string, err error)
	Storage() poet.StorageStatus
	Backup(w io.Writer) error
}

// Outbox is what the admin API steers: a *delivery.Courier.
type Outbox interface {
	Gateways() []delivery.GatewayStatus
	Slots() int
	SetGateways(addrs []string) error
	AddGateway(addr string) error
	RemoveGateway(addr string) error // poet.ErrNotFound if it is none
	Proofs() []delivery.Record
	// Rebroadcast offers a stored proof anew; poet.ErrNotFound if it is not stored.
	Rebroadcast(round string) error
}

// Limits bound what clients can ask.
type Limits struct {
	front.Limits
	// PerKey and KeyBurst bound the registrations that one key signed, in
	// requests a second; 0 means no limit.
	PerKey   float64
	KeyBurst int
}

// DefaultLimits are generous to a smesher, who needs a handful of calls a
// round. The last three times are the reference's (reference/poet.md 3).
func DefaultLimits() Limits {
	return Limits{
		Limits: front.Limits{
			Connections: 1024, AddressConnections: 16, Calls: 2048, AddressCalls: 64,
			Replies: 64 << 20, AddressReplies: 4 << 20, Rate: 20, Burst: 200,
			Streams: 16, Header: 16 << 10, Message: 16 << 10, Body: 16 << 10, Reply: 64 << 20, Speed: 32 << 10,
			Handshake: 5 * time.Second, Read: 10 * time.Second, Call: 10 * time.Second, Send: 30 * time.Second,
			Idle: 2 * time.Hour, Age: 3 * time.Hour, Ping: 30 * time.Second,
		},
		PerKey: 1, KeyBurst: 20,
	}
}

// Config is what the servers need besides what they serve.
type Config struct {
	Limits       Limits
	Front        front.Options // Log and Metrics for the admin API too
	Schedule     types.PoetSchedule
	CertifierURL string // told in Info; empty: none is told
	Version      string
}
