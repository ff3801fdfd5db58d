package core

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"tweedle/protocol/syncer"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// Limits of answers, in bytes.
const (
	MaxObjectsAnswer = 4 << 20 // the last object may exceed it
	MaxLayersAnswer  = 4 << 20
	maxObject        = MaxBlockSize
	// MaxAnswer is the longest answer to any ask.
	MaxAnswer = MaxObjectsAnswer + maxObject + 1024
	// MaxRequest is the longest request.
	MaxRequest = syncer.MaxObjects*34 + 8
)

// Request is an ask as it goes over the wire: one of the three.
type Request struct {
	Objects []syncer.Name
	Epochs  *syncer.Epochs
	Layers  *syncer.Layers
}

const (
	requestObjects = 1
	requestEpochs  = 2
	requestLayers  = 3
)

// RequestOf returns what an ask sends.
func RequestOf(a syncer.Ask) *Request { return &Request{a.Objects, a.Epochs, a.Layers} }

// EncodeTo appends the canonical encoding.
func (r *Request) EncodeTo(e *codec.Encoder) {
	switch {
	case r.Epochs != nil:
		e.U8(requestEpochs)
		e.Compact(uint64(r.Epochs.From))
		e.Compact(uint64(r.Epochs.To))
		e.Raw(r.Epochs.After[:])
		e.Raw(r.Epochs.Evil[:])
	case r.Layers != nil:
		e.U8(requestLayers)
		e.Compact(uint64(r.Layers.From))
		e.Compact(uint64(r.Layers.Ballots))
	default:
		e.U8(requestObjects)
		e.Compact(uint64(len(r.Objects)))
		for _, n := range r.Objects {
			e.U8(uint8(n.Kind))
			e.Raw(n.ID[:n.Size()])
		}
	}
}

// DecodeFrom reads the canonical encoding.
func (r *Request) DecodeFrom(d *codec.Decoder) {
	switch d.U8() {
	case requestEpochs:
		r.Epochs = &syncer.Epochs{From: types.Epoch(d.Compact32()), To: types.Epoch(d.Compact32())}
		if r.Epochs.To < r.Epochs.From || r.Epochs.To-r.Epochs.From >= syncer.MaxEpochs {
			d.Fail(codec.ErrRange)
		}
		d.Raw(r.Epochs.After[:])
		d.Raw(r.Epochs.Evil[:])
	case requestLayers:
		r.Layers = &syncer.Layers{From: types.Layer(d.Compact32()), Ballots: types.Layer(d.Compact32())}
	case requestObjects:
		for range d.Count(syncer.MaxObjects) {
			n := syncer.Name{Kind: syncer.Kind(d.U8())}
			if n.Kind < syncer.ATX || n.Kind > syncer.Malfeasance {
				d.Fail(codec.ErrRange)
				return
			}
			d.Raw(n.ID[:n.Size()])
			r.Objects = append(r.Objects, n)
		}
	default:
		d.Fail(codec.ErrRange)
	}
}

// ObjectsAnswer has an element for each object asked for, in order, empty if it
// is not there; it may end early.
type ObjectsAnswer [][]byte

// EncodeTo appends the canonical encoding.
func (r ObjectsAnswer) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(len(r)))
	for _, b := range r {
		e.ByteSlice(b)
	}
}

// DecodeFrom reads the canonical encoding.
func (r *ObjectsAnswer) DecodeFrom(d *codec.Decoder) {
	for range d.Count(syncer.MaxObjects) {
		b := d.ByteSlice(maxObject)
		if d.Err() != nil {
			return
		}
		*r = append(*r, b)
	}
}

// EpochsAnswer has the ids of the ATXs of each epoch asked for, ascending, and
// the smeshers that are proved malicious, ascending. It ends early, within an
// epoch, when it has syncer.MaxIDs ids, or MaxMalicious smeshers.
type EpochsAnswer struct {
	ATXs      [][]types.ATXID
	Malicious []types.NodeID
}

// EncodeTo appends the canonical encoding.
func (r *EpochsAnswer) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(len(r.ATXs)))
	for _, ids := range r.ATXs {
		e.Compact(uint64(len(ids)))
		for i := range ids {
			e.Raw(ids[i][:])
		}
	}
	e.Compact(uint64(len(r.Malicious)))
	for i := range r.Malicious {
		e.Raw(r.Malicious[i][:])
	}
}

// DecodeFrom reads the canonical encoding.
func (r *EpochsAnswer) DecodeFrom(d *codec.Decoder) {
	left := syncer.MaxIDs
	for range d.Count(syncer.MaxEpochs) {
		n := d.Count(left)
		if d.Remaining() < n*32 {
			d.Fail(codec.ErrShort)
			return
		}
		left -= n
		ids := make([]types.ATXID, n)
		for i := range ids {
			d.Raw(ids[i][:])
		}
		r.ATXs = append(r.ATXs, ids)
	}
	for range d.Count(syncer.MaxMalicious) {
		var id types.NodeID
		d.Raw(id[:])
		if d.Err() != nil {
			return
		}
		r.Malicious = append(r.Malicious, id)
	}
}

// LayersAnswer has certificates of ascending layers. One without signatures is
// of a decision that only the next one certifies, by building on it. Open has
// decisions after them with the signatures that there are so far. Clock is what
// the peer's clock shows, in Unix milliseconds. Ballots are the ids of at most syncer.MaxIDs ballots in the order
// of their layers.
type LayersAnswer struct {
	Clock   uint64
	Certs   []types.Certificate
	Open    []types.Certificate
	Ballots []types.BallotID
}

// EncodeTo appends the canonical encoding.
func (r *LayersAnswer) EncodeTo(e *codec.Encoder) {
	e.Compact(r.Clock)
	codec.EncodeList(e, r.Certs)
	codec.EncodeList(e, r.Open)
	e.Compact(uint64(len(r.Ballots)))
	for i := range r.Ballots {
		e.Raw(r.Ballots[i][:])
	}
}

// DecodeFrom reads the canonical encoding.
func (r *LayersAnswer) DecodeFrom(d *codec.Decoder) {
	r.Clock = d.Compact()
	r.Certs = codec.DecodeList[types.Certificate](d, syncer.MaxCertificates)
	r.Open = codec.DecodeList[types.Certificate](d, syncer.MaxOpen)
	n := d.Count(syncer.MaxIDs)
	if d.Remaining() < n*len(types.BallotID{}) {
		d.Fail(codec.ErrShort)
		return
	}
	if n > 0 {
		r.Ballots = make([]types.BallotID, n)
	}
	for i := range r.Ballots {
		d.Raw(r.Ballots[i][:])
	}
}

// Answer is what a peer answered and passed CheckAnswer.
type Answer struct {
	Given   int       // objects: how many of the names the answer covers
	Objects []Message // of those, nil where it is not there
	Epochs  EpochsAnswer
	Layers  LayersAnswer
}

var errAnswer = errors.New("peer answered something else than it was asked for")

// CheckAnswer decodes the answer to an ask and checks what can be checked
// without knowing anything else: form, names, signatures. It may be called from
// any goroutine. An error means that no honest host answers so.
func CheckAnswer(c Crypto, a syncer.Ask, raw []byte) (Answer, error) {
	switch {
	case a.Epochs != nil:
		var got EpochsAnswer
		if codec.Decode(raw, &got) != nil || len(got.ATXs) > int(a.Epochs.To-a.Epochs.From)+1 {
			return Answer{}, errAnswer
		}
		return Answer{Epochs: got}, nil
	case a.Layers != nil:
		var got LayersAnswer
		if codec.Decode(raw, &got) != nil || a.Layers.Ballots == 0 && len(got.Ballots) > 0 {
			return Answer{}, errAnswer
		}
		for i := range got.Open {
			if !VerifySignatures(c, &got.Open[i]) {
				return Answer{}, errAnswer
			}
		}
		return Answer{Layers: got}, checkCerts(c, a.Layers.From, got.Certs)
	}
	var got ObjectsAnswer
	if codec.Decode(raw, &got) != nil || len(got) > len(a.Objects) {
		return Answer{}, errAnswer
	}
	out := Answer{Given: len(got)}
	for i, b := range got {
		if len(b) == 0 {
			out.Objects = append(out.Objects, nil)
			continue
		}
		o, err := checkObject(c, a.Objects[i], bytes.Clone(b))
		if err != nil {
			return Answer{}, err
		}
		out.Objects = append(out.Objects, o)
	}
	return out, nil
}

// checkCerts checks order, links and signatures of certificates.
func checkCerts(c Crypto, from types.Layer, certs []types.Certificate) error {
	for i := range certs {
		d := &certs[i].Decision
		if d.Layer < from || i > 0 && d.Layer <= certs[i-1].Decision.Layer {
			return errAnswer
		}
		if len(certs[i].Signatures) == 0 {
			if i+1 < len(certs) && certs[i+1].Decision.Parent != d.StateRoot {
				return errAnswer
			}
			continue
		}
		if !VerifySignatures(c, &certs[i]) {
			return errAnswer
		}
	}
	return nil
}

// Library is what a node serves to others.
type Library interface {
	// Object returns the bytes of an object, nil if it is not there.
	Object(syncer.Name) ([]byte, error)
	// EpochATXs returns the ids of the ATXs published in an epoch, ascending.
	EpochATXs(types.Epoch) ([]types.ATXID, error)
	// Certificates returns at most limit certificates of applied layers,
	// ascending from a layer, also those without signatures.
	Certificates(from types.Layer, limit int) ([]types.Certificate, error)
	// BallotIDs returns the ids of at most limit ballots of the layers from one on, in the order of their layers.
	BallotIDs(from types.Layer, limit int) ([]types.BallotID, error)
	// Malicious returns the smeshers that are proved malicious, ascending.
	MaliciousIDs() ([]types.NodeID, error)
	// Open returns what Machine.Open does.
	Open() []types.Certificate
	// Now is what the clock shows.
	Now() time.Time
}

// Serve answers a request. The error is ErrMalformed, or one of the library.
func Serve(l Library, raw []byte) ([]byte, error) {
	var r Request
	if codec.Decode(raw, &r) != nil {
		return nil, ErrMalformed
	}
	switch {
	case r.Epochs != nil:
		return serveEpochs(l, r.Epochs)
	case r.Layers != nil:
		return serveLayers(l, r.Layers)
	}
	var out ObjectsAnswer
	size := 0
	for _, n := range r.Objects {
		b, err := l.Object(n)
		if err != nil {
			return nil, err
		}
		if size += len(b) + 8; size > MaxObjectsAnswer && len(out) > 0 {
			break
		}
		out = append(out, b)
	}
	return codec.Encode(out), nil
}

func serveEpochs(l Library, r *syncer.Epochs) ([]byte, error) {
	var out EpochsAnswer
	room := syncer.MaxIDs
	for e := r.From; e <= r.To && e >= r.From && room > 0; e++ {
		got, err := l.EpochATXs(e)
		if err != nil {
			return nil, err
		}
		if e == r.From {
			got = after(got, r.After)
		}
		got = got[:min(len(got), room)]
		room -= len(got)
		out.ATXs = append(out.ATXs, got)
	}
	evil, err := l.MaliciousIDs()
	if err != nil {
		return nil, err
	}
	evil = after(evil, r.Evil)
	out.Malicious = evil[:min(len(evil), syncer.MaxMalicious)]
	e := codec.NewEncoder(64 + 32*(syncer.MaxIDs-room+len(out.Malicious)) + 4*len(out.ATXs))
	out.EncodeTo(e)
	return e.Bytes(), nil
}

// after returns the part of an ascending list after an id; zero is before all.
func after[ID ~[32]byte](list []ID, id ID) []ID {
	i, found := slices.BinarySearchFunc(list, id, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	if found {
		i++
	}
	return list[i:]
}

func serveLayers(l Library, r *syncer.Layers) ([]byte, error) {
	certs, err := l.Certificates(r.From, syncer.MaxCertificates)
	if err != nil {
		return nil, err
	}
	out := LayersAnswer{Clock: uint64(max(l.Now().UnixMilli(), 0))}
	size := 0
	fits := func(c *types.Certificate) bool {
		size += 136 + 128*len(c.Signatures) // their encoding is no longer
		return size <= MaxLayersAnswer
	}
	for i := range certs {
		if !fits(&certs[i]) && len(out.Certs) > 0 {
			break
		}
		out.Certs = append(out.Certs, certs[i])
	}
	if len(out.Certs) == len(certs) && len(certs) < syncer.MaxCertificates {
		for _, c := range l.Open() {
			if fits(&c) {
				out.Open = append(out.Open, c)
			}
		}
	}
	if r.Ballots > 0 {
		if out.Ballots, err = l.BallotIDs(r.Ballots, syncer.MaxIDs); err != nil {
			return nil, err
		}
	}
	e := codec.NewEncoder(size + 16 + 20*len(out.Ballots))
	out.EncodeTo(e)
	return e.Bytes(), nil
}
