package core

import (
	"time"

	"tweedle/protocol/activation"
	"tweedle/protocol/eligibility"
	"tweedle/protocol/malfeasance"
	"tweedle/protocol/syncer"
	"tweedle/protocol/tortoise"
	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Peer names a connected host.
type Peer = syncer.Peer

// Self stands for this node where a peer is named: our own messages, those of
// our users, and what PoETs bring to us.
const Self Peer = ""

// Input is what happened: one of the types below.
type Input interface{ input() }

// Tick says only that time has passed.
type Tick struct{}

// Heard is a message that passed Check. Token comes back with its verdict.
type Heard struct {
	From    Peer
	Token   uint64
	Message Message
}

// Verified is the end of CheckSpace.
type Verified struct {
	ATX   types.ATXID
	Class Class  // Accept, Reject, or Ignore if we could not tell
	Why   string // one line, unless it is Accept
	// WrongLabel tells that the ATX's proof of space has a label, at place
	// Ordinal, that does not pass.
	WrongLabel bool
	Ordinal    uint32
}

// SlotsChecked is the end of CheckSlots.
type SlotsChecked struct {
	Ballot types.BallotID
	Err    error // nil: the proofs are valid
}

// Assigned is the end of Assign.
type Assigned struct {
	Assign
	Slots map[types.Layer][]types.Eligibility
}

// Answered is the end of an ask: an answer that passed CheckAnswer, or none.
type Answered struct {
	Ask     uint64
	Failure syncer.Failure
	Answer  Answer
}

// Peers tells who is connected; it comes whenever that changes.
type Peers struct{ Connected []Peer }

func (Tick) input()         {}
func (Heard) input()        {}
func (Verified) input()     {}
func (SlotsChecked) input() {}
func (Assigned) input()     {}
func (Answered) input()     {}
func (Peers) input()        {}

// Output says what is to be done, in this order.
type Output struct {
	// Writes are one transaction. Nothing below may happen before it is
	// committed; the write of a PoET proof must survive the loss of power.
	Writes []Write
	// Signs are messages of ours. Each goes out only if the guard lets all its
	// slots pass, durably; then it is to be given to Step as Heard from Self,
	// which sends it and counts it. If we stop before the guard holds, nothing
	// was sent.
	Signs []Sign
	// Sends are to be gossiped.
	Sends []Send
	// Asks are requests to peers; each is answered by Answered.
	Asks []syncer.Ask
	// Verdicts end messages that were Heard. Each Heard gets exactly one, now or later.
	Verdicts []Verdict
	// Penalties are what peers are charged for wasting our time.
	Penalties []syncer.Penalty
	// Work takes long; each is done by Do, in any goroutine, and ends with the input that it returns.
	Work []Work
	// Events say what happened, for logs, streams and metrics.
	Events []Event
	// Wake is when to call Step with a Tick at the latest.
	Wake time.Time
}

// Class is what a message deserves.
type Class uint8

// The classes.
const (
	Ignore Class = iota // not decided, or of no use: nobody is to blame
	Accept              // valid and new: it goes on
	Reject              // no honest host sends this
)

func (c Class) String() string { return [...]string{"ignore", "accept", "reject"}[c] }

// Verdict ends a message.
type Verdict struct {
	Token  uint64
	From   Peer
	Class  Class
	Reason string // one line, unless it is Accept
	Err    error  // the reason as a value, for our own users; nil with Accept
}

// Send is a gossip message.
type Send struct {
	Topic Topic
	Raw   []byte
}

// Sign is a message of ours that binds one of our identities.
type Sign struct {
	By      types.NodeID
	Slots   []Slot
	Message Message
}

// Slot is one place of the guard, and what an identity signed there: in a layer, in a round
// of one (HarePlace), for an ATX in an epoch, or for a beacon in a round (BeaconPlace).
type Slot struct {
	Domain signing.Domain
	Place  uint64
	Hash   types.Hash32
}

// Work is one of the types below.
type Work interface{ Do(Crypto) Input }

// CheckSpace checks the proofs of space of an ATX.
type CheckSpace struct{ Claim *activation.Claim }

// CheckSlots checks the proofs that a ballot has slots of its layer.
type CheckSlots struct {
	Ballot types.BallotID
	Params eligibility.Params
	Claim  eligibility.Claim
}

// Assign computes which slots of an epoch one of our identities has. It takes some 0.1 ms for each.
type Assign struct {
	Params eligibility.Params
	By     eligibility.Prover
	Epoch  types.Epoch
	Beacon types.Beacon
	Nonce  uint64
	Count  uint32
}

// Do implements Work.
func (w CheckSpace) Do(c Crypto) Input { return CheckSpaces(c, []CheckSpace{w})[0] }

// Do implements Work.
func (w CheckSlots) Do(c Crypto) Input {
	return SlotsChecked{w.Ballot, w.Claim.Verify(w.Params, c.VerifyVRF)}
}

// Do implements Work.
func (w Assign) Do(Crypto) Input {
	return Assigned{w, eligibility.Assign(w.Params, w.By, w.Beacon, w.Epoch, w.Nonce, w.Count)}
}

// CheckSpaces does several pieces of work at once, and gives for each what Do gives. It costs
// less than one by one.
func CheckSpaces(c Crypto, work []CheckSpace) []Verified {
	claims := make([]*activation.Claim, len(work))
	for i, w := range work {
		claims[i] = w.Claim
	}
	done := make([]Verified, len(work))
	for i, err := range c.VerifySpace(claims) {
		done[i] = outcome(claims[i].Info.ID, err)
	}
	return done
}

// Write is a change of what is stored: one of the types below.
type Write interface{ write() }

// WriteATX stores a valid ATX.
type WriteATX struct {
	ATX   *types.ATX
	Entry activation.Entry
}

// WritePoet stores a valid PoET proof, so that it survives the loss of power.
type WritePoet struct{ Message *types.PoetProofMessage }

// DropPoet forgets a PoET proof that no ATX refers to.
type DropPoet struct{ Ref types.PoetProofRef }

// WriteMalfeasance stores a proof, and when it came.
type WriteMalfeasance struct {
	Proof    *malfeasance.Proof
	Received time.Time
}

// WriteActiveSet stores an active set.
type WriteActiveSet struct{ Set types.ActiveSet }

// WriteBallot stores a valid ballot.
type WriteBallot struct {
	ID     types.BallotID // the ballot's: hashing it again costs more than carrying it
	Ballot *types.Ballot
}

// WriteBlock stores a block.
type WriteBlock struct{ Block *types.Block }

// WriteBeacon stores the beacon of an epoch, once.
type WriteBeacon struct {
	Epoch  types.Epoch
	Beacon types.Beacon
}

// WriteOpinion stores what is said of a layer, instead of what was said of it before. What is stored of
// layers before its Before is not needed any more; nor is all else, if it begins anew.
type WriteOpinion struct {
	Record tortoise.Record
	Anew   bool
}

// DropOpinions forgets what is said of layers.
type DropOpinions struct{}

// WriteLayer applies a layer on top of Base, and stores its transactions; layers
// after Base are undone, those between the two are empty.
type WriteLayer struct {
	Base        types.Layer
	Certificate *types.Certificate // without signatures as long as there are none, or only a later one says it
	Block       *types.Block
	Txs         []vm.Tx // of the block
	Outcome     vm.Outcome
}

// WriteCertificate stores the certificate of a layer that is applied.
type WriteCertificate struct{ Certificate *types.Certificate }

// WriteRevert undoes the layers after To, and forgets their transactions.
type WriteRevert struct{ To types.Layer }

func (WriteATX) write()         {}
func (WritePoet) write()        {}
func (DropPoet) write()         {}
func (WriteMalfeasance) write() {}
func (WriteActiveSet) write()   {}
func (WriteBallot) write()      {}
func (WriteBlock) write()       {}
func (WriteLayer) write()       {}
func (WriteCertificate) write() {}
func (WriteRevert) write()      {}
func (WriteOpinion) write()     {}
func (DropOpinions) write()     {}
func (WriteBeacon) write()      {}

// Event is something that happened: one of the types below.
type Event interface{ event() }

// Activated tells of a new valid ATX.
type Activated struct {
	Entry activation.Entry
	Proof types.PoetProofRef // the PoET proof that it refers to
}

// PoetStored tells of a new PoET proof.
type PoetStored struct {
	Ref     types.PoetProofRef
	Message *types.PoetProofMessage
}

// Admitted tells that a transaction waits for a block.
type Admitted struct{ Tx vm.Tx }

// Left tells that a transaction does not wait here any more and was not applied.
type Left struct {
	Tx    vm.Tx
	Cause Cause
}

// Cause is why a transaction does not wait any more.
type Cause uint8

// The causes. With the first two others may still apply it.
const (
	Replaced  Cause = iota + 1 // by one of the same account and nonce that pays more
	Crowded                    // those that wait pay more
	Overtaken                  // another one of its nonce was applied
	Unfunded                   // the account does not have the funds any more
)

func (c Cause) String() string {
	return [...]string{"", "one that pays more took its nonce", "those that wait pay more", "another one of its nonce was applied", "its account does not have the funds any more"}[c]
}

// Applied tells that a layer was applied.
type Applied struct{ WriteLayer }

// Certified tells that a layer that was applied before is certified.
type Certified struct{ Certificate *types.Certificate }

// Undone tells that applied layers were taken back, and whose fault that is.
type Undone struct {
	From, To types.Layer // layers after To up to From are undone
	Fault    string
	Smeshers []types.NodeID // who signed against each other, if that is the fault
}

// Disputed tells that somebody certified what does not fit our history.
type Disputed struct{ Dispute }

// Caught tells that a smesher is proved malicious.
type Caught struct {
	Proof *malfeasance.Proof
	Own   bool // it is an identity of ours: it runs somewhere else too
}

// OwnSeen tells of a valid message of an identity of ours that somebody else sent:
// the guard knows whether it is ours.
type OwnSeen struct {
	Smesher types.NodeID
	Slot    Slot
}

// Synced tells that the conclusion changed.
type Synced struct {
	Yes    bool
	Reason string
}

// ClockDiffers tells that our clock is not that of most peers, or is again.
type ClockDiffers struct {
	Differs bool
	Ahead   time.Duration // how far theirs are ahead of ours
	Peers   int           // that said what theirs show
}

// Decided tells what this node makes of a layer whose proposals are closed.
type Decided struct {
	Decision  types.Decision
	Proposals int
	Signers   []types.NodeID // those of our identities that sign it
}

// Eligible tells how many slots of an epoch one of our identities has.
type Eligible struct {
	Smesher types.NodeID
	Epoch   types.Epoch
	Slots   int
}

// BeaconKnown tells that the beacon of an epoch is known, and stays.
type BeaconKnown struct {
	Epoch  types.Epoch
	Beacon types.Beacon
}

// BeaconFailed tells that the beacon of an epoch was not found here, as not more than two thirds of the
// weight were heard to say the same. Ballots may tell it.
type BeaconFailed struct{ Epoch types.Epoch }

// Proposed tells that a proposal of one of our identities counts here, and how many of its slots
// it uses.
type Proposed struct {
	Smesher types.NodeID
	Layer   types.Layer
	Slots   int
}

// Silent tells why we did not take part in a layer in which we could have.
type Silent struct {
	Layer  types.Layer
	Reason string
}

// Settled tells that a layer is final: enough weight agrees about it, or it is too old to be held.
type Settled struct{ tortoise.State }

// Empty tells that the smeshers of a layer agreed that it has no proposal.
type Empty struct{ Layer types.Layer }

func (Empty) event()        {}
func (Settled) event()      {}
func (Activated) event()    {}
func (PoetStored) event()   {}
func (Admitted) event()     {}
func (Left) event()         {}
func (Applied) event()      {}
func (Certified) event()    {}
func (Undone) event()       {}
func (Disputed) event()     {}
func (Caught) event()       {}
func (OwnSeen) event()      {}
func (Synced) event()       {}
func (ClockDiffers) event() {}
func (Decided) event()      {}
func (Silent) event()       {}
func (Eligible) event()     {}
func (Proposed) event()     {}
func (BeaconKnown) event()  {}
func (BeaconFailed) event() {}
