package node

import (
	"context"
	"errors"
	"fmt"

	"tweedle/edges/p2p"
	"tweedle/edges/store"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// errMissing says that a peer does not have what it was asked for.
var errMissing = errors.New("peer does not have it")

// fetch asks a peer for objects and returns them in the order of the names.
// Every object is there and has the name it was asked for by.
func (n *Node) fetch(ctx context.Context, p p2p.PeerID, names objectsRequest) (objectsAnswer, error) {
	var all objectsAnswer
	for len(all) < len(names) {
		part := names[len(all):min(len(names), len(all)+maxObjects)]
		b, err := n.host.Request(ctx, p, protocolObjects, codec.Encode(part))
		if err != nil {
			return nil, err
		}
		var got objectsAnswer
		if err := codec.Decode(b, &got); err != nil || len(got) > len(part) {
			return nil, fmt.Errorf("answer of peer %s: %w", p, errRequest)
		}
		for i, o := range got {
			if len(o) == 0 {
				return nil, fmt.Errorf("%s %x: %w", part[i].kind, part[i].id, errMissing)
			}
			if err := store.CheckName(part[i].kind, part[i].id, o); err != nil {
				return nil, fmt.Errorf("answer of peer %s: %w", p, err)
			}
		}
		if len(got) == 0 {
			return nil, errMissing
		}
		all = append(all, got...)
	}
	return all, nil
}

// serveObjects answers a request for objects with those that fit, in order.
func (n *Node) serveObjects(_ context.Context, _ p2p.PeerID, req []byte) ([]byte, error) {
	var names objectsRequest
	if err := codec.Decode(req, &names); err != nil {
		return nil, errRequest
	}
	var out objectsAnswer
	size := 0
	for _, o := range names {
		b, err := n.db.Object(o.kind, o.id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			n.storeFailed(err)
			return nil, errors.New("cannot read it now")
		}
		if size += len(b) + 8; size > maxObjectsSize && len(out) > 0 {
			break
		}
		out = append(out, b)
	}
	return codec.Encode(out), nil
}

// serveEpoch answers with the ids of the ATXs published in an epoch.
func (n *Node) serveEpoch(_ context.Context, _ p2p.PeerID, req []byte) ([]byte, error) {
	var e number
	if err := codec.Decode(req, &e); err != nil {
		return nil, errRequest
	}
	ids, err := n.db.EpochATXs(types.Epoch(e))
	if err != nil {
		n.storeFailed(err)
		return nil, errors.New("cannot read it now")
	}
	return codec.Encode(epochAnswer(ids[:min(len(ids), maxEpochATXs)])), nil
}

// serveLayers answers with our tip and the certificates from a layer on.
func (n *Node) serveLayers(_ context.Context, _ p2p.PeerID, req []byte) ([]byte, error) {
	var from number
	if err := codec.Decode(req, &from); err != nil {
		return nil, errRequest
	}
	out := layersAnswer{tip: n.tip.Load().layer}
	layers, err := n.db.BlockLayers(types.Layer(from), maxLayers)
	if err != nil {
		n.storeFailed(err)
		return nil, errors.New("cannot read it now")
	}
	size := 0
	for _, l := range layers {
		cert, err := n.db.Certificate(l.Layer)
		if err != nil {
			n.storeFailed(err)
			return nil, errors.New("cannot read it now")
		}
		if size += len(codec.Encode(cert)); size > maxCertificate && len(out.certs) > 0 {
			break
		}
		out.certs = append(out.certs, *cert)
	}
	return codec.Encode(&out), nil
}
