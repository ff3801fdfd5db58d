// Package telemetry is what a running process tells about itself: its log,
// its endpoints and its status, in forms that the launcher, the watch and people
// share. Metrics are where they are counted.
//
// It promises: stable JSON names; who logs never waits for who reads the log. It
// leaves to the caller what is true, and to flush its lines before it ends.
package telemetry

// Endpoints is written to endpoints.json in a service's directory once all of
// its listeners are open, and removed when it ends in order. Addresses are
// host:port; P2P is a multiaddress with the peer id. Absent parts are empty.
type Endpoints struct {
	PID     int    `json:"pid"`
	GRPC    string `json:"grpc,omitempty"`
	REST    string `json:"rest,omitempty"`
	Admin   string `json:"admin,omitempty"`
	Metrics string `json:"metrics,omitempty"`
	P2P     string `json:"p2p,omitempty"`
}

// EndpointsFile is the name of the file that holds Endpoints.
const EndpointsFile = "endpoints.json"

// NodeStatus is what a node serves at /status of its metrics listener.
type NodeStatus struct {
	Network      string `json:"network"`
	GenesisID    string `json:"genesis_id"`
	NodeID       string `json:"node_id"`
	Version      string `json:"version"`
	Layer        uint32 `json:"layer"` // by the clock
	Epoch        uint32 `json:"epoch"`
	AppliedLayer uint32 `json:"applied_layer"` // newest layer that is applied here; a fork of the network may undo it
	StateRoot    string `json:"state_root"`    // after AppliedLayer
	// VerifiedLayer is the newest layer that is final by the weight of votes, with all before it; 0 while none is known to be.
	VerifiedLayer uint32  `json:"verified_layer"`
	Beacon        *string `json:"beacon"` // randomness of Epoch, in hex; null while it is not known here: then no proposal counts
	Synced        bool    `json:"synced"`
	SyncReason    string  `json:"sync_reason"` // why, or why not
	// Dispute is what others certified and does not fit our history; empty if
	// there is nothing.
	Dispute string `json:"dispute,omitempty"`
	// ClockAhead is how many seconds the clocks of most peers are ahead of ours;
	// absent while that is not far.
	ClockAhead float64 `json:"clock_ahead,omitempty"`
	// IdentityElsewhere tells that a key of our smeshers signs on another machine
	// too: nothing is signed with it here.
	IdentityElsewhere bool        `json:"identity_elsewhere,omitempty"`
	Peers             int         `json:"peers"`
	ATXEpoch          *uint32     `json:"atx_epoch"` // publish epoch of the smesher's newest ATX
	Smesher           SmesherStep `json:"smesher"`
	Mempool           int         `json:"mempool"`
	// Others are the node's other identities; NodeID, ATXEpoch and Smesher are of its own.
	Others []IdentityStatus `json:"others,omitempty"`
}

// IdentityStatus is where one of a node's identities is.
type IdentityStatus struct {
	NodeID    string      `json:"node_id"` // empty: its key cannot be read
	Dir       string      `json:"dir"`     // its folder
	Elsewhere bool        `json:"elsewhere,omitempty"`
	ATXEpoch  *uint32     `json:"atx_epoch"`
	Smesher   SmesherStep `json:"smesher"`
}

// SmesherStep tells what the smesher is doing and what comes next.
type SmesherStep struct {
	Step     string  `json:"step"`               // initializing, registering, waiting, proving, publishing, idle, off
	Detail   string  `json:"detail,omitempty"`   // one line for people
	Progress float64 `json:"progress,omitempty"` // 0..1 of a long step
	Until    string  `json:"until,omitempty"`    // RFC 3339, when the step is expected to end
	For      string  `json:"for,omitempty"`      // what happens then, in words
	Error    string  `json:"error,omitempty"`    // last error, if the step is in trouble
}

// LayerStatus is one element of what a node serves at /layers?from=N.
type LayerStatus struct {
	Layer     uint32 `json:"layer"`
	Block     string `json:"block"`      // empty when the layer has none
	StateRoot string `json:"state_root"` // empty too then: it is that of the layer before
	Txs       int    `json:"txs"`
	Ballots   int    `json:"ballots"`
}

// Peers is what a node serves at /peers.
type Peers struct {
	ID       string        `json:"id"`       // the node's own
	Addrs    []string      `json:"addrs"`    // where it can be dialed, as it sees itself
	Reached  bool          `json:"reached"`  // somebody with a public address dialed it since it runs
	Limit    int           `json:"limit"`    // sessions that there may be
	Sessions []PeerSession `json:"sessions"` // the oldest first
	Left     []PeerLeft    `json:"left"`     // the last that ended, the newest first
}

// PeerSession is a connection with a peer.
type PeerSession struct {
	Peer      string  `json:"peer"`
	Addr      string  `json:"addr"`      // multiaddr, as the node sees it
	Direction string  `json:"direction"` // in, or out when the node dialed it
	Since     string  `json:"since"`     // RFC 3339
	State     string  `json:"state"`     // unproved, useful, busy, chosen: those who give way first to those who never do
	Used      string  `json:"used"`      // RFC 3339, when a message of it was accepted last, else when it came
	BytesIn   uint64  `json:"bytes_in"`
	BytesOut  uint64  `json:"bytes_out"`
	Score     float64 `json:"score"` // of gossip; 0 is a newcomer, below -80 nothing is read from it
}

// PeerLeft is one that ended.
type PeerLeft struct {
	Peer      string `json:"peer"`
	Direction string `json:"direction"`
	Since     string `json:"since"`  // RFC 3339
	At        string `json:"at"`     // RFC 3339
	Reason    string `json:"reason"` // room, share, peer, silent, us
}
