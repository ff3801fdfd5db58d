package store

import (
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"

	"tweedle/protocol/activation"
	"tweedle/protocol/core"
	"tweedle/protocol/malfeasance"
	"tweedle/protocol/syncer"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// Commit does the writes of a step of package core, all or none. With a PoET
// proof among them it survives the loss of power once it has returned.
//
// If we stop before it returns, the next start finds the state before the step,
// and the machine is built from that.
func (db *DB) Commit(writes []core.Write) error {
	if len(writes) == 0 {
		return nil
	}
	write := db.write
	for _, w := range writes {
		if _, poet := w.(core.WritePoet); poet {
			write = db.writeDurable
		}
	}
	signed := db.signedSoFar()
	return write(func(c *sqlite.Conn) error {
		for _, w := range writes {
			if err := commit(c, w, signed); err != nil {
				return fmt.Errorf("%T: %w", w, err)
			}
		}
		return nil
	})
}

func commit(c *sqlite.Conn, w core.Write, signed uint64) error {
	switch w := w.(type) {
	case core.WriteATX:
		return addATX(c, w.ATX, &w.Entry.Info, w.Entry.Received)
	case core.WritePoet:
		return addPoetProof(c, w.Message)
	case core.DropPoet:
		return dropPoet(c, w.Ref)
	case core.WriteMalfeasance:
		return put(c, ignore, "malicious", w.Proof.Smesher[:], w.Received.UnixNano(), codec.Encode(w.Proof))
	case core.WriteActiveSet:
		h := w.Set.Hash()
		return addObject(c, KindActiveSet, h[:], codec.Encode(w.Set))
	case core.WriteBallot:
		return addBallot(c, w.Ballot)
	case core.WriteBeacon:
		return put(c, ignore, "beacons", int64(w.Epoch), w.Beacon[:])
	case core.WriteOpinion:
		return putOpinion(c, &w.Record, w.Anew)
	case core.DropOpinions:
		return run(c, "DELETE FROM opinions")
	case core.WriteBlock:
		return addBlock(c, w.Block)
	case core.WriteCertificate:
		return addCertificate(c, w.Certificate)
	case core.WriteRevert:
		return revert(c, w.To)
	case core.WriteLayer:
		return apply(c, LayerOf(w), signed)
	}
	return fmt.Errorf("the store does not know it")
}

// LayerOf returns what is written for a layer.
func LayerOf(w core.WriteLayer) LayerResult {
	l := LayerResult{
		Layer: w.Certificate.Decision.Layer, Base: w.Base, Block: w.Block, Certificate: w.Certificate, Outcome: w.Outcome,
	}
	for i, tx := range w.Txs { // the results are parallel to them
		if w.Outcome.Results[i].Status != vm.Ineffective {
			l.Txs = append(l.Txs, tx.Raw)
		}
	}
	return l
}

func dropPoet(c *sqlite.Conn, ref types.PoetProofRef) error {
	if err := run(c, "DELETE FROM poet_proofs WHERE ref = ?", ref[:]); err != nil {
		return err
	}
	return run(c, "DELETE FROM objects WHERE kind = ? AND id = ?", int64(KindPoetProof), ref[:])
}

// Core is a Reader as package core asks it: what is not there is nil.
type Core struct{ *Reader }

var (
	_ core.Reader = Core{}
)

func orNil[T any](v *T, err error) (*T, error) {
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return v, err
}

// ATXEntry implements core.Reader.
func (r Core) ATXEntry(id types.ATXID) (*activation.Entry, error) {
	e, err := r.ATXRecord(id)
	return orNil(&e, err)
}

// ATX implements core.Reader.
func (r Core) ATX(id types.ATXID) (*types.ATX, error) { return orNil(r.Reader.ATX(id)) }

// EpochEntries implements core.Reader.
func (r Core) EpochEntries(e types.Epoch) ([]activation.Entry, error) { return r.EpochATXRecords(e) }

// HighestEntry implements core.Reader.
func (r Core) HighestEntry(last types.Epoch) (*activation.Entry, error) {
	e, err := r.HighestATX(last)
	return orNil(&e, err)
}

// Poet implements core.Reader.
func (r Core) Poet(ref types.PoetProofRef) (*types.PoetProofMessage, error) {
	return orNil(r.PoetProof(ref))
}

// ActiveSet implements core.Reader.
func (r Core) ActiveSet(h types.Hash32) (types.ActiveSet, error) {
	set, err := r.Reader.ActiveSet(h)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return set, err
}

// Ballot implements core.Reader.
func (r Core) Ballot(id types.BallotID) (*types.Ballot, error) { return orNil(r.Reader.Ballot(id)) }

// LayerBallots implements core.Reader.
func (r Core) LayerBallots(l types.Layer) (out []*types.Ballot, err error) {
	ids, err := r.Reader.LayerBallots(l)
	for _, id := range ids {
		b, err := r.Reader.Ballot(id)
		if err != nil {
			return nil, missing(err, "ballot %v of layer %v", id, l)
		}
		out = append(out, b)
	}
	return out, err
}

// ReferenceBallot implements core.Reader.
func (r Core) ReferenceBallot(smesher types.NodeID, first, last types.Layer) (*types.Ballot, error) {
	return orNil(r.Reader.ReferenceBallot(smesher, first, last))
}

// Block implements core.Reader.
func (r Core) Block(id types.BlockID) (*types.Block, error) { return orNil(r.Reader.Block(id)) }

// Transaction implements core.Reader.
func (r Core) Transaction(id types.TransactionID) (types.Transaction, error) {
	body, err := r.Reader.Object(KindTransaction, id[:])
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return body, err
}

// decision returns what a layer was decided as; of genesis, which nobody
// certifies, only layer and state.
func (r Core) decision(l Layer) (types.Decision, error) {
	cert, err := r.Certificate(l.Layer)
	if errors.Is(err, ErrNotFound) {
		return types.Decision{Layer: l.Layer, StateRoot: l.StateRoot}, nil
	}
	if err != nil {
		return types.Decision{}, err
	}
	return cert.Decision, nil
}

// Tip implements core.Reader.
func (r Core) Tip() (types.Decision, error) {
	last, err := r.LastApplied()
	if err != nil {
		return types.Decision{}, err
	}
	return r.decision(last)
}

// Before implements core.Reader.
func (r Core) Before(l types.Layer) (*types.Decision, error) {
	before, err := r.LayerBefore(l)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d, err := r.decision(before)
	return &d, err
}

// Decisions implements core.Reader.
func (r Core) Decisions(from types.Layer, limit int) (out []types.Decision, err error) {
	certs, err := r.Certificates(from, limit)
	for i := range certs {
		out = append(out, certs[i].Decision)
	}
	return out, err
}

// Certificates implements core.Library.
func (r Core) Certificates(from types.Layer, limit int) (out []types.Certificate, err error) {
	for len(out) < limit {
		layers, err := r.BlockLayers(from, limit-len(out))
		if err != nil || len(layers) == 0 {
			return out, err
		}
		for _, l := range layers {
			cert, err := r.Certificate(l.Layer)
			if err != nil {
				return out, missing(err, "certificate of layer %v", l.Layer)
			}
			out = append(out, *cert)
			from = l.Layer + 1
		}
	}
	return out, nil
}

// LayerTransactions implements core.Reader.
func (r Core) LayerTransactions(l types.Layer) (out []types.Transaction, err error) {
	txs, err := r.Reader.LayerTransactions(l)
	for _, tx := range txs {
		out = append(out, tx.Raw)
	}
	return out, err
}

// Accounts implements core.Reader.
func (r Core) Accounts(at types.Layer) (entries []vm.Entry, err error) {
	err = r.read(func(c *sqlite.Conn) error {
		return each(c, "accounts", `WHERE (address, layer) IN (
			WITH RECURSIVE a (address) AS (
				SELECT min(address) FROM accounts
				UNION ALL SELECT (SELECT min(address) FROM accounts WHERE address > a.address) FROM a WHERE a.address IS NOT NULL)
			SELECT address, (SELECT max(layer) FROM accounts WHERE address = a.address AND layer <= ?) FROM a)
			ORDER BY address`, func(r *row) { entries = append(entries, scanAccount(r).Entry) }, int64(at))
	})
	return entries, err
}

// Beacon implements core.Reader.
func (r Core) Beacon(e types.Epoch) (*types.Beacon, error) {
	var v types.Beacon
	err := r.read(func(c *sqlite.Conn) error {
		return one(c, "beacons", "WHERE epoch = ?", func(r *row) {
			r.skip()
			r.raw(v[:])
		}, int64(e))
	})
	return orNil(&v, err)
}

// Malicious implements core.Reader.
func (r Core) Malicious() (map[types.NodeID]time.Time, error) {
	out := make(map[types.NodeID]time.Time)
	err := r.read(func(c *sqlite.Conn) error {
		return each(c, "malicious", "", func(r *row) {
			var id types.NodeID
			r.raw(id[:])
			out[id] = time.Unix(0, r.int()).UTC()
		})
	})
	return out, err
}

// Published implements core.Reader.
func (r Core) Published(id types.NodeID) (found bool, err error) {
	err = r.read(func(c *sqlite.Conn) error {
		found, err = exists(c, "atxs WHERE smesher = ?", id[:])
		return err
	})
	return found, err
}

// BallotIDs implements core.Library.
func (r Core) BallotIDs(from types.Layer, limit int) (ids []types.BallotID, err error) {
	err = r.read(func(c *sqlite.Conn) error {
		return each(c, "ballots", "WHERE layer >= ? ORDER BY layer, id LIMIT ?", func(r *row) {
			var id types.BallotID
			r.raw(id[:])
			ids = append(ids, id)
		}, int64(from), int64(limit))
	})
	return ids, err
}

// MaliciousIDs implements core.Library.
func (r Core) MaliciousIDs() (out []types.NodeID, err error) {
	err = r.read(func(c *sqlite.Conn) error {
		return each(c, "malicious", "ORDER BY smesher", func(r *row) {
			var id types.NodeID
			r.raw(id[:])
			out = append(out, id)
		})
	})
	return out, err
}

// EpochATXs implements core.Library.
func (r Core) EpochATXs(e types.Epoch) ([]types.ATXID, error) { return r.Reader.EpochATXs(e) }

// Object implements core.Library.
func (r Core) Object(n syncer.Name) ([]byte, error) {
	if n.Kind == syncer.Malfeasance {
		return r.malfeasance(n.ID)
	}
	body, err := r.Reader.Object(Kind(n.Kind), n.ID[:n.Size()])
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return body, err
}

func (r Core) malfeasance(id types.NodeID) (body []byte, err error) {
	err = r.read(func(c *sqlite.Conn) error {
		return one(c, "malicious", "WHERE smesher = ?", func(r *row) {
			r.skip()
			r.skip()
			body = r.blob()
		}, id[:])
	})
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	var p malfeasance.Proof
	if err == nil && codec.Decode(body, &p) != nil {
		err = fmt.Errorf("table malicious, row %v: %w", id, ErrCorrupt)
	}
	return body, err
}
