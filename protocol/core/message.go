package core

import (
	"errors"
	"fmt"

	"tweedle/proofs/post"
	"tweedle/proofs/posw"
	"tweedle/protocol/activation"
	"tweedle/protocol/beacon"
	"tweedle/protocol/hare"
	"tweedle/protocol/malfeasance"
	"tweedle/protocol/syncer"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// Topic is a kind of gossip message.
type Topic uint8

// The topics.
const (
	TopicATX Topic = iota + 1
	TopicProposal
	TopicDecision
	TopicTx
	TopicPoet
	TopicMalfeasance
	TopicBeacon
	TopicHare
)

// topics has what a topic is in words, how gossip names it, and the bytes of its largest message.
var topics = [...]struct {
	words, name string
	max         int
}{
	{words: "message"},
	TopicATX:         {"ATX", "atx", MaxATXSize},
	TopicProposal:    {"proposal", "proposal", 640 << 10},
	TopicDecision:    {"decision", "certify", 512},
	TopicTx:          {"transaction", "tx", types.MaxTransactionSize},
	TopicPoet:        {"PoET proof", "poet", MaxPoetSize},
	TopicMalfeasance: {"malfeasance proof", "malfeasance", malfeasance.MaxSize},
	TopicBeacon:      {"beacon message", "beacon", beacon.MaxMessageSize},
	TopicHare:        {"hare message", "hare", hare.MaxMessageSize},
}

// Topics returns all there are.
func Topics() (out []Topic) {
	for t := TopicATX; int(t) < len(topics); t++ {
		out = append(out, t)
	}
	return out
}

func (t Topic) String() string { return topics[int(t)%len(topics)].words }

// Name returns what gossip calls a topic.
func (t Topic) Name() string { return "tweedle/" + topics[t].name + "/4" }

// MaxSize returns the largest message of a topic, in bytes: 0 of one that there is not.
func (t Topic) MaxSize() int {
	if int(t) >= len(topics) {
		return 0
	}
	return topics[t].max
}

// Sizes of objects, in bytes.
const (
	MaxATXSize   = 64 << 10
	MaxPoetSize  = 256 << 10
	MaxSetSize   = 4 << 20
	MaxBlockSize = 4 << 20
)

// Message is what was heard and keeps the rules that need nothing but itself.
// Only Check and CheckAnswer make one.
type Message interface {
	size() int
}

type atxMessage struct {
	atx *types.ATX
	id  types.ATXID
	raw []byte
}

type poetMessage struct {
	msg *types.PoetProofMessage
	ref types.PoetProofRef
	raw []byte
}

type proposalMessage struct {
	p      *types.Proposal
	id     types.ProposalID
	ballot types.BallotID
	raw    []byte
}

type decisionMessage struct {
	m   types.CertifyMessage
	raw []byte
}

type txMessage struct{ tx vm.Tx }

type malfeasanceMessage struct {
	proof *malfeasance.Proof
	raw   []byte
}

// Objects that are only ever asked for.
type (
	setMessage    struct{ set types.ActiveSet }
	ballotMessage struct {
		b  *types.Ballot
		id types.BallotID
	}
	blockMessage struct{ b *types.Block }
)

// certMessage is a certificate, or the decision that the next one builds on.
type certMessage struct {
	cert    types.Certificate
	implied bool // by the one that builds on it
	asked   bool // it is part of a peer's answer
}

func (m *atxMessage) size() int         { return len(m.raw) }
func (m *poetMessage) size() int        { return len(m.raw) }
func (m *proposalMessage) size() int    { return len(m.raw) }
func (m *decisionMessage) size() int    { return len(m.raw) }
func (m *txMessage) size() int          { return len(m.tx.Raw) }
func (m *malfeasanceMessage) size() int { return len(m.raw) }
func (m *setMessage) size() int         { return 32 * len(m.set) }
func (m *ballotMessage) size() int      { return 256 + 88*len(m.b.Eligibilities) }
func (m *blockMessage) size() int       { return 32*len(m.b.Txs) + 64*len(m.b.Rewards) }
func (m *certMessage) size() int        { return 256 + 128*len(m.cert.Signatures) }

// RefusedError says why a message is refused by what it is alone.
type RefusedError struct {
	Reason string
	Err    error
}

func (e *RefusedError) Error() string { return e.Reason }
func (e *RefusedError) Unwrap() error { return e.Err }

func refuse(err error) error { return &RefusedError{err.Error(), err} }

// Reasons of Check.
var (
	ErrMalformed = errors.New("malformed message")
	errSignature = errors.New("wrong signature")
)

// Check decodes a message and checks what can be checked without knowing
// anything else: form, signatures, and the work of a PoET. It may be called
// from any goroutine. The error is a *RefusedError: no honest host sends that.
func Check(c Crypto, t Topic, raw []byte) (Message, error) {
	if len(raw) > t.MaxSize() {
		return nil, refuse(ErrMalformed)
	}
	switch t {
	case TopicATX:
		return checkATX(c, raw)
	case TopicProposal:
		var p types.Proposal
		if codec.Decode(raw, &p) != nil {
			return nil, refuse(ErrMalformed)
		}
		b := &p.Ballot
		if !c.Verify(signing.Ballot, b.Smesher, b.SignedBytes(), b.Signature) || !c.Verify(signing.Proposal, b.Smesher, p.SignedBytes(), p.Signature) {
			return nil, refuse(errSignature)
		}
		return &proposalMessage{&p, p.ID(), b.ID(), raw}, nil
	case TopicDecision:
		var m types.CertifyMessage
		if codec.Decode(raw, &m) != nil {
			return nil, refuse(ErrMalformed)
		}
		if !VerifySignatures(c, &types.Certificate{Decision: m.Decision, Signatures: []types.CertifySignature{m.By}}) {
			return nil, refuse(errSignature)
		}
		return &decisionMessage{m, raw}, nil
	case TopicHare:
		return checkHare(c, raw)
	case TopicTx:
		tx, err := vm.Parse(raw)
		if err == nil {
			err = c.VerifyTx(&tx)
		}
		if err != nil {
			return nil, refuse(err)
		}
		return &txMessage{tx}, nil
	case TopicPoet:
		return checkPoet(c, raw)
	case TopicMalfeasance:
		var p malfeasance.Proof
		if codec.Decode(raw, &p) != nil {
			return nil, refuse(ErrMalformed)
		}
		if err := p.Check(c); err != nil {
			return nil, refuse(err)
		}
		return &malfeasanceMessage{&p, raw}, nil
	case TopicBeacon:
		var b beacon.Message
		if codec.Decode(raw, &b) != nil {
			return nil, refuse(ErrMalformed)
		}
		if err := b.Check(c); err != nil {
			return nil, refuse(err)
		}
		return &beaconMessage{&b, raw}, nil
	}
	return nil, refuse(ErrMalformed)
}

func checkATX(c Crypto, raw []byte) (*atxMessage, error) {
	var a types.ATX
	if len(raw) > MaxATXSize || codec.Decode(raw, &a) != nil {
		return nil, refuse(ErrMalformed)
	}
	id := a.ID()
	if !c.Verify(signing.ATX, a.SmesherID, id[:], a.Signature) {
		return nil, refuse(activation.ErrSignature)
	}
	return &atxMessage{&a, id, raw}, nil
}

func checkPoet(c Crypto, raw []byte) (*poetMessage, error) {
	var p types.PoetProofMessage
	if len(raw) > MaxPoetSize || codec.Decode(raw, &p) != nil {
		return nil, refuse(ErrMalformed)
	}
	if err := c.VerifyPoet(&p); err != nil {
		return nil, refuse(err)
	}
	return &poetMessage{&p, p.Proof.Ref(), raw}, nil
}

// Own makes a message of this node's own from what it signed.
func Own(v codec.Encodable) Message {
	raw := codec.Encode(v)
	switch v := v.(type) {
	case *types.ATX:
		return &atxMessage{v, v.ID(), raw}
	case *types.Proposal:
		return &proposalMessage{v, v.ID(), v.Ballot.ID(), raw}
	case *types.CertifyMessage:
		return &decisionMessage{*v, raw}
	case *hare.Message:
		return &hareMessage{v, raw}
	case *malfeasance.Proof:
		return &malfeasanceMessage{v, raw}
	case *beacon.Message:
		return &beaconMessage{v, raw}
	}
	panic(fmt.Sprintf("core: %T is no message", v))
}

// checkObject checks an object that was asked for by name.
func checkObject(c Crypto, n syncer.Name, body []byte) (Message, error) {
	switch n.Kind {
	case syncer.ATX:
		m, err := checkATX(c, body)
		if err != nil || m.id != n.ID {
			return nil, errAnswer
		}
		return m, nil
	case syncer.PoetProof:
		m, err := checkPoet(c, body)
		if err != nil || m.ref != n.ID {
			return nil, errAnswer
		}
		return m, nil
	case syncer.ActiveSet:
		var s types.ActiveSet
		if len(body) > MaxSetSize || types.Sum(body) != n.ID || codec.Decode(body, &s) != nil {
			return nil, errAnswer
		}
		return &setMessage{s}, nil
	case syncer.Ballot:
		var b types.Ballot
		if codec.Decode(body, &b) != nil {
			return nil, errAnswer
		}
		id := b.ID()
		if syncer.Name20(syncer.Ballot, id) != n || !c.Verify(signing.Ballot, b.Smesher, b.SignedBytes(), b.Signature) {
			return nil, errAnswer
		}
		return &ballotMessage{&b, id}, nil
	case syncer.Block:
		var b types.Block
		if len(body) > MaxBlockSize || codec.Decode(body, &b) != nil || syncer.Name20(syncer.Block, b.ID()) != n {
			return nil, errAnswer
		}
		return &blockMessage{&b}, nil
	case syncer.Malfeasance:
		m, err := Check(c, TopicMalfeasance, body)
		if err != nil || m.(*malfeasanceMessage).proof.Smesher != n.ID {
			return nil, errAnswer
		}
		return m, nil
	case syncer.Transaction:
		if len(body) > types.MaxTransactionSize || types.Sum(body) != n.ID {
			return nil, errAnswer
		}
		tx, err := vm.Parse(body)
		if err != nil {
			return nil, errAnswer
		}
		// Whoever gives what a proposal names is not to blame for its signature.
		_ = c.VerifyTx(&tx)
		return &txMessage{tx}, nil
	}
	return nil, errAnswer
}

// outcome turns the error of checking space into an input.
func outcome(id types.ATXID, err error) Verified {
	v := Verified{ATX: id, Class: Accept}
	var wrong *post.InvalidIndexError
	switch {
	case err == nil:
		return v
	case errors.Is(err, post.ErrNotBuiltIn):
		v.Class = Ignore // we cannot tell; nobody is to blame
	default:
		v.Class = Reject
	}
	v.Why = err.Error()
	if errors.As(err, &wrong) && !errors.Is(err, activation.ErrInitialPost) {
		v.WrongLabel, v.Ordinal = true, uint32(wrong.Ordinal)
	}
	return v
}

// Real is the real Crypto of a network.
type Real struct {
	signing.Verifier
	Params activation.Params
	// State returns the newest state.
	State func() vm.State
	// Peer chooses which labels of an ATX this node checks; it should differ
	// from node to node.
	Peer []byte
}

// VerifyVRF implements Crypto.
func (r Real) VerifyVRF(id types.NodeID, msg []byte, sig types.VRFSignature) bool {
	return signing.VerifyVRF(id, msg, sig)
}

// VerifyTx implements Crypto.
func (r Real) VerifyTx(tx *vm.Tx) error {
	return vm.VerifySignature(tx, r.State().Account(tx.Principal), r.Params.Network)
}

// VerifyPoet implements Crypto.
func (r Real) VerifyPoet(m *types.PoetProofMessage) error {
	if m.Proof.NumLeaves < r.Params.TickSize {
		return errors.New("PoET proof has less work than one tick")
	}
	return posw.Verify(m.Statement[:], &m.Proof, 1)
}

// VerifySpace implements Crypto.
func (r Real) VerifySpace(claims []*activation.Claim) []error {
	return activation.VerifyAll(r.Params, claims, post.Subset(r.Peer))
}

// WrongLabel implements Crypto.
func (r Real) WrongLabel(a *types.ATX, commitment types.ATXID, ordinal uint32) bool {
	return activation.WrongLabel(r.Params, a, commitment, ordinal)
}

// Content returns what a message says: a *types.ATX, *types.Proposal,
// *types.CertifyMessage, *hare.Message, *types.PoetProofMessage, *malfeasance.Proof, *beacon.Message or
// types.Transaction. It is shared and must not be changed.
func Content(m Message) any {
	switch m := m.(type) {
	case *atxMessage:
		return m.atx
	case *proposalMessage:
		return m.p
	case *decisionMessage:
		return &m.m
	case *hareMessage:
		return m.m
	case *poetMessage:
		return m.msg
	case *malfeasanceMessage:
		return m.proof
	case *beaconMessage:
		return m.msg
	case *txMessage:
		return m.tx.Raw
	}
	return nil
}
