package node

import (
	"errors"
	"time"

	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// Gossip topics.
const (
	topicATX      = "tweedle/atx/1"
	topicProposal = "tweedle/proposal/1"
	topicCertify  = "tweedle/certify/1"
	topicTx       = "tweedle/tx/1"
	topicPoet     = "tweedle/poet/1"
)

// Sizes of gossip messages in bytes.
const (
	maxATXSize      = 64 << 10
	maxProposalSize = 640 << 10
	maxCertifySize  = 512
	maxPoetSize     = 256 << 10
)

// Request protocols.
const (
	protocolObjects = "/tweedle/objects/1" // objects by kind and name
	protocolEpoch   = "/tweedle/epoch/1"   // ids of the ATXs published in an epoch
	protocolLayers  = "/tweedle/layers/1"  // certificates from a layer on, and the tip
	protocolPoet    = "/tweedle/poet/1"    // hands over a PoET proof, for an acknowledgement
	protocolGateway = "/tweedle/gateway/1" // the gRPC address at which a node takes PoET proofs
)

// Limits of requests.
const (
	maxObjects      = 128     // in one request
	maxObjectsSize  = 4 << 20 // bytes of one answer
	maxObjectSize   = 5 << 20
	maxEpochATXs    = 100_000 // ids in one answer
	maxLayers       = 64      // certificates in one answer
	maxCertificate  = 4 << 20
	maxObjectName   = 32
	maxAddress      = 256 // bytes of a gRPC address
	requestTimeout  = 5 * time.Second
	requestsPerPeer = 50 // a second
)

func limits(request, response int) p2p.Limits {
	return p2p.Limits{
		MaxRequest: request, MaxResponse: response, Timeout: requestTimeout,
		Rate: requestsPerPeer, Burst: 4 * requestsPerPeer,
	}
}

// objectName names one object.
type objectName struct {
	kind store.Kind
	id   []byte
}

func name[T ~[32]byte](k store.Kind, id T) objectName {
	b := [32]byte(id)
	return objectName{k, b[:]}
}

func name20[T ~[20]byte](k store.Kind, id T) objectName {
	b := [20]byte(id)
	return objectName{k, b[:]}
}

type objectsRequest []objectName

func (r objectsRequest) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(len(r)))
	for _, o := range r {
		e.U8(uint8(o.kind))
		e.ByteSlice(o.id)
	}
}

func (r *objectsRequest) DecodeFrom(d *codec.Decoder) {
	for range d.Count(maxObjects) {
		o := objectName{store.Kind(d.U8()), d.ByteSlice(maxObjectName)}
		if d.Err() != nil {
			return
		}
		*r = append(*r, o)
	}
}

// objectsAnswer has an element for each object asked for, empty if it is not
// there, or did not fit.
type objectsAnswer [][]byte

func (r objectsAnswer) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(len(r)))
	for _, b := range r {
		e.ByteSlice(b)
	}
}

func (r *objectsAnswer) DecodeFrom(d *codec.Decoder) {
	for range d.Count(maxObjects) {
		b := d.ByteSlice(maxObjectSize)
		if d.Err() != nil {
			return
		}
		*r = append(*r, b)
	}
}

type number uint32

func (n number) EncodeTo(e *codec.Encoder)    { e.Compact(uint64(n)) }
func (n *number) DecodeFrom(d *codec.Decoder) { *n = number(d.Compact32()) }

type epochAnswer []types.ATXID

func (r epochAnswer) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(len(r)))
	for i := range r {
		e.Raw(r[i][:])
	}
}

func (r *epochAnswer) DecodeFrom(d *codec.Decoder) {
	for range d.Count(maxEpochATXs) {
		var id types.ATXID
		d.Raw(id[:])
		if d.Err() != nil {
			return
		}
		*r = append(*r, id)
	}
}

// layersAnswer has the peer's newest applied layer and its certificates of
// the layers asked for, ascending.
type layersAnswer struct {
	tip   types.Layer
	certs []types.Certificate
}

func (r *layersAnswer) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(r.tip))
	codec.EncodeList(e, r.certs)
}

func (r *layersAnswer) DecodeFrom(d *codec.Decoder) {
	r.tip = types.Layer(d.Compact32())
	r.certs = codec.DecodeList[types.Certificate](d, maxLayers)
}

// poetAnswer tells whether a handed over proof is stored, and was before.
type poetAnswer struct{ known bool }

func (r poetAnswer) EncodeTo(e *codec.Encoder)    { e.Bool(r.known) }
func (r *poetAnswer) DecodeFrom(d *codec.Decoder) { r.known = d.Bool() }

// errRequest says that a peer's request could not be read.
var errRequest = errors.New("malformed request")
