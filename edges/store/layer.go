package store

import (
	"errors"
	"fmt"
	"math"

	"zombiezen.com/go/sqlite"

	"tweedle/protocol/tortoise"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/types"
)

// Layer is the outcome of an applied layer.
type Layer struct {
	Layer     types.Layer
	Block     types.BlockID // types.EmptyBlock when it has none
	StateRoot types.Hash32  // after the layer
	Txs       int           // that had an effect
}

// Reward is what a smesher earned in a layer.
type Reward struct {
	vm.Reward
	Layer   types.Layer
	Smesher types.NodeID
}

// Account is a version of an account: what it was after a layer.
type Account struct {
	vm.Entry
	Layer types.Layer // that changed it
}

// LayerResult is all that applying a layer writes.
type LayerResult struct {
	Layer types.Layer
	// Base is the applied layer that this one extends. Layers after it are
	// reverted, layers between the two are empty.
	Base        types.Layer
	Block       *types.Block        // nil when the layer is empty
	Certificate *types.Certificate  // nil when there is none
	Txs         []types.Transaction // that had an effect
	Outcome     vm.Outcome
}

// Apply writes the outcome of a layer in one transaction. The first layer of a
// directory has no base; it carries the genesis accounts. ATXs that the outcome
// names must be stored.
//
// If we stop before Apply returns, the next start finds all of it or nothing,
// and applies the layer again from its certificate.
func (db *DB) Apply(l LayerResult) error {
	signed := db.signedSoFar()
	return db.write(func(c *sqlite.Conn) error { return apply(c, l, signed) })
}

func apply(c *sqlite.Conn, l LayerResult, signed uint64) error {
	if err := rebase(c, l); err != nil {
		return err
	}
	var block types.BlockID
	if l.Block != nil {
		block = l.Block.ID()
		if err := addBlock(c, l.Block); err != nil {
			return err
		}
	}
	if l.Certificate != nil { // the caller has decided that this one holds
		if err := putCertificate(c, l.Certificate); err != nil {
			return err
		}
	}
	if err := applyAccounts(c, l); err != nil {
		return err
	}
	txs, err := applyResults(c, l)
	if err != nil {
		return err
	}
	// What local.db had signed by now, so that an older copy is noticed.
	if err := rememberSigned(c, signed); err != nil {
		return err
	}
	root := l.Outcome.State.Root()
	return put(c, insert, "layers", int64(l.Layer), block[:], root[:], txs)
}

// rebase makes the layer's base the newest applied layer.
func rebase(c *sqlite.Conn, l LayerResult) error {
	if any, err := exists(c, "layers"); err != nil || !any {
		return err
	}
	if l.Layer <= l.Base {
		return fmt.Errorf("layer %v cannot extend layer %v", l.Layer, l.Base)
	}
	if err := revert(c, l.Base); err != nil {
		return err
	}
	last, err := lastApplied(c)
	if err == nil && last.Layer != l.Base || errors.Is(err, ErrNotFound) {
		return fmt.Errorf("layer %v cannot extend layer %v, which is not applied", l.Layer, l.Base)
	}
	return err
}

func applyAccounts(c *sqlite.Conn, l LayerResult) error {
	for _, e := range l.Outcome.Changed {
		err := put(c, insert, "accounts", e.Address[:], int64(l.Layer), int64(e.Account.NextNonce), int64(e.Account.Balance),
			e.Account.Template[:], e.Account.State)
		if err != nil {
			return err
		}
	}
	for i, w := range l.Outcome.Rewards {
		var atx ATXRecord
		err := one(c, "atxs", "WHERE id = ?", func(r *row) { atx = scanATX(r) }, w.ATX[:])
		if err != nil {
			return fmt.Errorf("reward of ATX %v: %w", w.ATX, err)
		}
		err = put(c, insert, "rewards", int64(l.Layer), int64(i), w.ATX[:], atx.Smesher[:], w.Coinbase[:], int64(w.Total), int64(w.Subsidy))
		if err != nil {
			return err
		}
	}
	return nil
}

// applyResults returns how many transactions had an effect.
func applyResults(c *sqlite.Conn, l LayerResult) (applied int64, err error) {
	for _, raw := range l.Txs {
		if err := addTransaction(c, raw); err != nil {
			return 0, err
		}
	}
	for i, t := range l.Outcome.Results {
		if t.Status == vm.Ineffective {
			continue
		}
		seq, err := seqOf(c, t.ID)
		if err != nil {
			return 0, fmt.Errorf("result of transaction %v: %w", t.ID, err)
		}
		reason := t.Reason[:min(len(t.Reason), MaxReason)]
		err = put(c, insert, "tx_results", t.ID[:], int64(l.Layer), int64(i), int64(t.Status), reason, int64(t.Gas), int64(t.Fee))
		if err != nil {
			return 0, err
		}
		if err := addAddresses(c, seq, t.Addresses); err != nil {
			return 0, err
		}
		applied++
	}
	return applied, nil
}

// Revert undoes the layers after to, in one transaction, and forgets their
// transactions. Blocks and certificates stay, they are what peers said.
func (db *DB) Revert(to types.Layer) error {
	return db.write(func(c *sqlite.Conn) error { return revert(c, to) })
}

func revert(c *sqlite.Conn, to types.Layer) error {
	if err := dropTransactions(c, to); err != nil {
		return err
	}
	for _, table := range []string{"tx_results", "rewards", "accounts", "layers"} {
		if err := run(c, "DELETE FROM "+table+" WHERE layer > ?", int64(to)); err != nil {
			return err
		}
	}
	return nil
}

func scanLayer(r *row) (l Layer) {
	l.Layer = types.Layer(r.int())
	r.raw(l.Block[:])
	r.raw(l.StateRoot[:])
	l.Txs = int(r.int())
	return l
}

func lastApplied(c *sqlite.Conn) (l Layer, err error) {
	err = one(c, "layers", "ORDER BY layer DESC", func(r *row) { l = scanLayer(r) })
	return l, err
}

// LastApplied returns the outcome of the newest applied layer.
func (rd *Reader) LastApplied() (l Layer, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		l, err = lastApplied(c)
		return err
	})
	return l, err
}

// Layer returns the outcome of a layer.
func (rd *Reader) Layer(n types.Layer) (l Layer, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return one(c, "layers", "WHERE layer = ?", func(r *row) { l = scanLayer(r) }, int64(n))
	})
	return l, err
}

// LayerBefore returns the newest outcome before a layer, not the layer's own.
func (rd *Reader) LayerBefore(n types.Layer) (l Layer, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return one(c, "layers", "WHERE layer < ? ORDER BY layer DESC", func(r *row) { l = scanLayer(r) }, int64(n))
	})
	return l, err
}

// BlockLayers returns at most MaxPage layers that have a block, from the given
// one upwards.
func (rd *Reader) BlockLayers(from types.Layer, limit int) (ls []Layer, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return each(c, "layers", "WHERE layer >= ? AND block <> ? ORDER BY layer LIMIT ?", func(r *row) {
			ls = append(ls, scanLayer(r))
		}, int64(from), types.EmptyBlock[:], page(limit))
	})
	return ls, err
}

// addCertificate stores a layer's certificate, or one with more signatures under the same decision. One of
// another decision than the stored one is refused with ErrConflict.
func addCertificate(c *sqlite.Conn, cert *types.Certificate) error {
	d := cert.Decision
	switch old, err := certificate(c, d.Layer); {
	case err == nil && old.Decision != d:
		return fmt.Errorf("certificate of layer %v for block %v and state %v: %w: the stored one is for block %v and state %v",
			d.Layer, d.Block, d.StateRoot, ErrConflict, old.Decision.Block, old.Decision.StateRoot)
	case err == nil && len(old.Signatures) >= len(cert.Signatures):
		return nil
	case err != nil && !errors.Is(err, ErrNotFound):
		return err
	}
	return putCertificate(c, cert)
}

func putCertificate(c *sqlite.Conn, cert *types.Certificate) error {
	return put(c, replace, "certificates", int64(cert.Decision.Layer), codec.Encode(cert))
}

// Certificate returns a layer's certificate.
func (rd *Reader) Certificate(l types.Layer) (cert *types.Certificate, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		cert, err = certificate(c, l)
		return err
	})
	return cert, err
}

func certificate(c *sqlite.Conn, l types.Layer) (*types.Certificate, error) {
	var body []byte
	err := one(c, "certificates", "WHERE layer = ?", func(r *row) {
		r.skip()
		body = r.blob()
	}, int64(l))
	if err != nil {
		return nil, err
	}
	var cert types.Certificate
	if err := codec.Decode(body, &cert); err != nil || cert.Decision.Layer != l {
		return nil, fmt.Errorf("table certificates, row %v: %w", l, ErrCorrupt)
	}
	return &cert, nil
}

func putOpinion(c *sqlite.Conn, o *tortoise.Record, anew bool) error {
	before := int64(o.Before)
	if anew {
		before = math.MaxInt64
	}
	if err := run(c, "DELETE FROM opinions WHERE layer < ?", before); err != nil {
		return err
	}
	return put(c, replace, "opinions", int64(o.Layer), codec.Encode(o))
}

// Opinions returns what is said of the layers that are voted about, ascending.
func (rd *Reader) Opinions() (out []tortoise.Record, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return each(c, "opinions", "ORDER BY layer", func(r *row) {
			var o tortoise.Record
			if l := r.int(); codec.Decode(r.blob(), &o) != nil || int64(o.Layer) != l {
				r.bad = true
			}
			out = append(out, o)
		})
	})
	return out, err
}

func scanReward(r *row) (w Reward) {
	w.Layer = types.Layer(r.int())
	r.skip()
	r.raw(w.ATX[:])
	r.raw(w.Smesher[:])
	r.raw(w.Coinbase[:])
	w.Total = uint64(r.int())
	w.Subsidy = uint64(r.int())
	return w
}

func (rd *Reader) rewards(rest string, args ...any) (ws []Reward, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return each(c, "rewards", rest, func(r *row) { ws = append(ws, scanReward(r)) }, args...)
	})
	return ws, err
}

// LayerRewards returns a layer's rewards in the order of its block.
func (rd *Reader) LayerRewards(l types.Layer) ([]Reward, error) {
	return rd.rewards("WHERE layer = ? ORDER BY position", int64(l))
}

// CoinbaseRewards returns at most MaxPage rewards of a coinbase in the order
// of layers, skipping the first offset.
func (rd *Reader) CoinbaseRewards(a types.Address, offset, limit int) ([]Reward, error) {
	return rd.rewards("WHERE coinbase = ? ORDER BY layer, position LIMIT ? OFFSET ?", a[:], page(limit), int64(max(offset, 0)))
}

// Earnings are what a smesher got.
type Earnings struct {
	Layers int
	Total  uint64 // smidges
	Last   types.Layer
}

// Earned adds up the rewards of a smesher for a coinbase. It reads each of them.
func (rd *Reader) Earned(smesher types.NodeID, coinbase types.Address) (e Earnings, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return each(c, "rewards", "WHERE coinbase = ? AND smesher = ? ORDER BY layer", func(r *row) {
			w := scanReward(r)
			e.Layers, e.Total, e.Last = e.Layers+1, e.Total+w.Total, w.Layer
		}, coinbase[:], smesher[:])
	})
	return e, err
}

// CountCoinbaseRewards returns how many rewards a coinbase has.
func (rd *Reader) CountCoinbaseRewards(a types.Address) (int, error) {
	return rd.count("SELECT count(*) FROM rewards WHERE coinbase = ?", a[:])
}

func scanAccount(r *row) (a Account) {
	r.raw(a.Address[:])
	a.Layer = types.Layer(r.int())
	a.Account.NextNonce = uint64(r.int())
	a.Account.Balance = uint64(r.int())
	r.raw(a.Account.Template[:])
	a.Account.State = r.blob()
	return a
}

// Accounts returns the newest version of every account, ascending by address:
// what vm.Restore rebuilds the state from at start. The caller compares its
// root with that of LastApplied. It steps from address to address, so that its
// cost is that of the accounts and not of their versions.
func (rd *Reader) Accounts() (entries []vm.Entry, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return each(c, "accounts", `WHERE (address, layer) IN (
			WITH RECURSIVE a (address) AS (
				SELECT min(address) FROM accounts
				UNION ALL SELECT (SELECT min(address) FROM accounts WHERE address > a.address) FROM a WHERE a.address IS NOT NULL)
			SELECT address, (SELECT max(layer) FROM accounts WHERE address = a.address) FROM a)
			ORDER BY address`, func(r *row) { entries = append(entries, scanAccount(r).Entry) })
	})
	return entries, err
}

// Account returns the newest version of an account.
func (rd *Reader) Account(a types.Address) (Account, error) {
	return rd.AccountAt(a, ^types.Layer(0))
}

// AccountAt returns an account as it was after a layer.
func (rd *Reader) AccountAt(a types.Address, l types.Layer) (acc Account, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return one(c, "accounts", "WHERE address = ? AND layer <= ? ORDER BY layer DESC",
			func(r *row) { acc = scanAccount(r) }, a[:], int64(l))
	})
	return acc, err
}
