package store

import (
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"

	"tweedle/codec"
	"tweedle/types"
)

// Layer is the outcome of an applied layer.
type Layer struct {
	Layer     types.Layer
	Block     types.BlockID // types.EmptyBlock when it has none
	StateRoot types.Hash32  // after the layer
	Txs       int
}

// Reward is what a smesher earned in a layer, in smidge.
type Reward struct {
	Layer    types.Layer
	ATX      types.ATXID
	Smesher  types.NodeID
	Coinbase types.Address
	Total    uint64 // subsidy and fees
	Subsidy  uint64
}

// Account is a version of an account: what it was after a layer.
type Account struct {
	Address   types.Address
	Layer     types.Layer // that changed it
	Balance   uint64      // in smidge
	NextNonce uint64
	Template  *types.Address // nil until it is spawned
	State     []byte         // of the template
}

// LayerResult is all that applying a layer writes.
type LayerResult struct {
	Layer       types.Layer
	StateRoot   types.Hash32
	Block       *types.Block // nil when the layer is empty
	Certificate *types.Certificate
	Accounts    []Account // those that changed
	Results     []TxResult
	Rewards     []Reward
}

// Apply writes the outcome of a layer in one transaction. Layers are applied
// without a gap; the first one may be any, and carries the genesis accounts.
// If we stop before Apply returns, the next start finds the layer whole or
// not at all, and applies it again from its certificate.
func (db *DB) Apply(l LayerResult) error {
	signed := db.signedSoFar()
	return db.write(func(c *sqlite.Conn) error {
		last, err := lastApplied(c)
		if err == nil && l.Layer != last.Layer+1 {
			return fmt.Errorf("layer %v cannot be applied after layer %v", l.Layer, last.Layer)
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		var block types.BlockID
		if l.Block != nil {
			block = l.Block.ID()
			if err := addBlock(c, l.Block); err != nil {
				return err
			}
		}
		if l.Certificate != nil {
			if err := addCertificate(c, l.Certificate); err != nil {
				return err
			}
		}
		if err := applyAccounts(c, l); err != nil {
			return err
		}
		if err := applyResults(c, l.Layer, l.Results); err != nil {
			return err
		}
		// What local.db had signed by now, so that an older copy is noticed.
		if err := rememberSigned(c, signed); err != nil {
			return err
		}
		return put(c, insert, "layers", int64(l.Layer), block[:], l.StateRoot[:], int64(len(l.Results)))
	})
}

func applyAccounts(c *sqlite.Conn, l LayerResult) error {
	for _, a := range l.Accounts {
		var template []byte
		if a.Template != nil {
			template = a.Template[:]
		}
		err := put(c, insert, "accounts", a.Address[:], int64(l.Layer), int64(a.Balance), int64(a.NextNonce), template, a.State)
		if err != nil {
			return err
		}
	}
	for _, r := range l.Rewards {
		err := put(c, insert, "rewards", int64(l.Layer), r.ATX[:], r.Smesher[:], r.Coinbase[:], int64(r.Total), int64(r.Subsidy))
		if err != nil {
			return err
		}
	}
	return nil
}

func applyResults(c *sqlite.Conn, l types.Layer, results []TxResult) error {
	for i, t := range results {
		seq, err := seqOf(c, t.ID)
		if err != nil {
			return fmt.Errorf("result of transaction %v, which is not stored: %w", t.ID, err)
		}
		var failed int64
		if t.Failed {
			failed = 1
		}
		reason := t.Reason[:min(len(t.Reason), MaxReason)]
		err = put(c, insert, "tx_results", t.ID[:], int64(l), int64(i), t.Block[:], failed, reason, int64(t.Gas), int64(t.Fee))
		if err != nil {
			return err
		}
		if err := exec(c, "DELETE FROM pending WHERE seq = ?", seq); err != nil {
			return err
		}
		if err := addAddresses(c, seq, t.Addresses); err != nil {
			return err
		}
	}
	return nil
}

// Revert undoes the layers after to, in one transaction: their transactions
// are pending again. Blocks and certificates stay, they are what peers said.
func (db *DB) Revert(to types.Layer) error {
	return db.write(func(c *sqlite.Conn) error {
		err := exec(c, `INSERT INTO pending
			SELECT t.seq FROM tx_results AS r JOIN transactions AS t USING (id) WHERE r.layer > ?`, int64(to))
		if err != nil {
			return err
		}
		for _, table := range []string{"tx_results", "rewards", "accounts", "layers"} {
			if err := exec(c, "DELETE FROM "+table+" WHERE layer > ?", int64(to)); err != nil {
				return err
			}
		}
		return nil
	})
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
func (db *DB) LastApplied() (l Layer, err error) {
	err = db.read(func(c *sqlite.Conn) error {
		l, err = lastApplied(c)
		return err
	})
	return l, err
}

// Layer returns the outcome of a layer.
func (db *DB) Layer(n types.Layer) (l Layer, err error) {
	err = db.read(func(c *sqlite.Conn) error {
		return one(c, "layers", "WHERE layer = ?", func(r *row) { l = scanLayer(r) }, int64(n))
	})
	return l, err
}

// Layers returns the outcomes of at most MaxPage layers, from the given one
// upwards.
func (db *DB) Layers(from types.Layer, limit int) (ls []Layer, err error) {
	err = db.read(func(c *sqlite.Conn) error {
		return each(c, "layers", "WHERE layer >= ? ORDER BY layer LIMIT ?", func(r *row) {
			ls = append(ls, scanLayer(r))
		}, int64(from), page(limit))
	})
	return ls, err
}

// AddCertificate stores a layer's certificate. Another decision for the same
// layer is refused with ErrConflict: more than a third of the weight lies.
func (db *DB) AddCertificate(cert *types.Certificate) error {
	return db.write(func(c *sqlite.Conn) error { return addCertificate(c, cert) })
}

func addCertificate(c *sqlite.Conn, cert *types.Certificate) error {
	switch old, err := certificate(c, cert.Decision.Layer); {
	case err == nil && old.Decision != cert.Decision:
		return fmt.Errorf("certificate of layer %v for block %v and state %v: %w: the stored one is for block %v and state %v",
			cert.Decision.Layer, cert.Decision.Block, cert.Decision.StateRoot, ErrConflict, old.Decision.Block, old.Decision.StateRoot)
	case err != nil && !errors.Is(err, ErrNotFound):
		return err
	}
	return put(c, ignore, "certificates", int64(cert.Decision.Layer), codec.Encode(cert))
}

// Certificate returns a layer's certificate.
func (db *DB) Certificate(l types.Layer) (cert *types.Certificate, err error) {
	err = db.read(func(c *sqlite.Conn) error {
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

func scanReward(r *row) (w Reward) {
	w.Layer = types.Layer(r.int())
	r.raw(w.ATX[:])
	r.raw(w.Smesher[:])
	r.raw(w.Coinbase[:])
	w.Total = uint64(r.int())
	w.Subsidy = uint64(r.int())
	return w
}

func (db *DB) rewards(rest string, args ...any) (ws []Reward, err error) {
	err = db.read(func(c *sqlite.Conn) error {
		return each(c, "rewards", rest, func(r *row) { ws = append(ws, scanReward(r)) }, args...)
	})
	return ws, err
}

// LayerRewards returns a layer's rewards, ascending by ATX.
func (db *DB) LayerRewards(l types.Layer) ([]Reward, error) {
	return db.rewards("WHERE layer = ? ORDER BY atx", int64(l))
}

// CoinbaseRewards returns at most MaxPage rewards of a coinbase in the order
// of layers, skipping the first offset.
func (db *DB) CoinbaseRewards(a types.Address, offset, limit int) ([]Reward, error) {
	return db.rewards("WHERE coinbase = ? ORDER BY layer, atx LIMIT ? OFFSET ?", a[:], page(limit), int64(max(offset, 0)))
}

// SmesherRewards returns at most MaxPage rewards of a smesher in the order of
// layers, skipping the first offset.
func (db *DB) SmesherRewards(id types.NodeID, offset, limit int) ([]Reward, error) {
	return db.rewards("WHERE smesher = ? ORDER BY layer, atx LIMIT ? OFFSET ?", id[:], page(limit), int64(max(offset, 0)))
}

func scanAccount(r *row) (a Account) {
	r.raw(a.Address[:])
	a.Layer = types.Layer(r.int())
	a.Balance = uint64(r.int())
	a.NextNonce = uint64(r.int())
	if t := r.blob(); len(t) > 0 {
		a.Template = new(types.Address)
		r.bad = r.bad || copy(a.Template[:], t) != len(t) || len(t) != len(a.Template)
	}
	a.State = r.blob()
	return a
}

// Accounts returns the newest version of every account, ascending by address:
// what the state is rebuilt from at start. The caller checks it against the
// state root of LastApplied.
func (db *DB) Accounts() (as []Account, err error) {
	err = db.read(func(c *sqlite.Conn) error {
		return each(c, "accounts", `WHERE layer = (SELECT max(layer) FROM accounts AS v WHERE v.address = t.address)
			ORDER BY address`, func(r *row) { as = append(as, scanAccount(r)) })
	})
	return as, err
}

// Account returns the newest version of an account.
func (db *DB) Account(a types.Address) (Account, error) {
	return db.AccountAt(a, ^types.Layer(0))
}

// AccountAt returns an account as it was after a layer.
func (db *DB) AccountAt(a types.Address, l types.Layer) (acc Account, err error) {
	err = db.read(func(c *sqlite.Conn) error {
		return one(c, "accounts", "WHERE address = ? AND layer <= ? ORDER BY layer DESC",
			func(r *row) { acc = scanAccount(r) }, a[:], int64(l))
	})
	return acc, err
}
