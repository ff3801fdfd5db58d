package api

import (
	"time"

	"tweedle/edges/front"
)

// Limits bound what clients can take of the node.
type Limits struct {
	front.Limits
	Transactions int // in an answer of several layers
	// Past bounds the reading of the past for one stream; a year takes minutes.
	Past time.Duration
	// Publish bounds the PoET proofs that are being checked at a time: each
	// takes some 5 ms of a core. PublishRate and PublishBurst bound those of one
	// address, in proofs a second; a PoET has a few an epoch.
	Publish      int
	PublishRate  float64
	PublishBurst int
}

// DefaultLimits suit a node with one user or a few hundred.
func DefaultLimits() Limits {
	return Limits{
		Limits: front.Limits{
			Connections: 1024, AddressConnections: 32, Calls: 1024, AddressCalls: 64,
			Replies: 64 << 20, AddressReplies: 8 << 20, Rate: 500, Burst: 1000,
			Streams: 32, Header: 16 << 10, Message: 512 << 10, Body: 256 << 10, Reply: 32 << 20, Speed: 32 << 10,
			Handshake: 5 * time.Second, Read: 10 * time.Second, Call: 10 * time.Second, Send: 20 * time.Second,
			Idle: 15 * time.Minute, Ping: 10 * time.Second,
		},
		Transactions: 10_000, Past: 5 * time.Minute, Publish: 2, PublishRate: 1, PublishBurst: 30,
	}
}
