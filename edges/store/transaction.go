package store

import (
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"

	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// MaxReason is the longest text of a failure that is stored, in bytes.
const MaxReason = 256

// Tx is a transaction, and its result once it has one.
type Tx struct {
	ID       types.TransactionID
	Raw      types.Transaction
	Received time.Time
	Result   *vm.Result // nil while it is pending; without the addresses
}

// AddTransaction stores a transaction as pending, to be found under the given
// addresses, and tells whether it was new.
func (db *DB) AddTransaction(raw types.Transaction, addresses []types.Address, received time.Time) (added bool, err error) {
	err = db.write(func(c *sqlite.Conn) error {
		added, err = addTransaction(c, raw, addresses, received)
		return err
	})
	return added, err
}

func addTransaction(c *sqlite.Conn, raw types.Transaction, addresses []types.Address, received time.Time) (added bool, err error) {
	id := raw.ID()
	if err := addObject(c, KindTransaction, id[:], raw); err != nil {
		return false, err
	}
	if c.Changes() == 0 {
		return false, nil
	}
	// seq is part of the checksum, so it cannot be left to SQLite.
	var seq int64
	err = query(c, "SELECT ifnull(max(seq), 0) + 1 FROM transactions", func(r *row) error { seq = r.int(); return nil })
	if err != nil {
		return false, err
	}
	if err := put(c, insert, "transactions", seq, id[:], received.UnixNano()); err != nil {
		return false, err
	}
	if err := run(c, "INSERT INTO pending VALUES (?)", seq); err != nil {
		return false, err
	}
	return true, addAddresses(c, seq, addresses)
}

func addAddresses(c *sqlite.Conn, seq int64, addresses []types.Address) error {
	for _, a := range addresses {
		if err := run(c, "INSERT OR IGNORE INTO tx_addresses VALUES (?, ?)", a[:], seq); err != nil {
			return err
		}
	}
	return nil
}

func seqOf(c *sqlite.Conn, id types.TransactionID) (seq int64, err error) {
	err = one(c, "transactions", "WHERE id = ?", func(r *row) { seq = r.int() }, id[:])
	return seq, err
}

// DropTransactions forgets transactions that will never be applied. Those
// that have a result, or are unknown, are left as they are.
func (db *DB) DropTransactions(ids []types.TransactionID) error {
	return db.write(func(c *sqlite.Conn) error { return dropTransactions(c, ids) })
}

func dropTransactions(c *sqlite.Conn, ids []types.TransactionID) error {
	for _, id := range ids {
		seq, err := seqOf(c, id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if done, err := exists(c, "tx_results WHERE id = ?", id[:]); err != nil || done {
			if err != nil {
				return err
			}
			continue
		}
		for _, table := range []string{"pending", "tx_addresses", "transactions"} {
			if err := run(c, "DELETE FROM "+table+" WHERE seq = ?", seq); err != nil {
				return err
			}
		}
		if err := run(c, "DELETE FROM objects WHERE kind = ? AND id = ?", int64(KindTransaction), id[:]); err != nil {
			return err
		}
	}
	return nil
}

// scanTx reads a row of transactions, then what belongs to it.
func scanTx(c *sqlite.Conn, where string, args ...any) (tx Tx, err error) {
	err = one(c, "transactions", where, func(r *row) {
		r.skip()
		r.raw(tx.ID[:])
		tx.Received = time.Unix(0, r.int()).UTC()
	}, args...)
	if err != nil {
		return Tx{}, err
	}
	if tx.Raw, err = object(c, KindTransaction, tx.ID[:]); err != nil {
		return Tx{}, missing(err, "transaction %v", tx.ID)
	}
	var result vm.Result
	switch err := one(c, "tx_results", "WHERE id = ?", func(r *row) { result = scanResult(r) }, tx.ID[:]); {
	case err == nil:
		tx.Result = &result
	case !errors.Is(err, ErrNotFound):
		return Tx{}, err
	}
	return tx, nil
}

// missing turns the absence of something that another row names into damage.
func missing(err error, format string, args ...any) error {
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf(format+" is named but not there: %w", append(args, ErrCorrupt)...)
	}
	return err
}

func scanResult(r *row) (t vm.Result) {
	r.raw(t.ID[:])
	t.Layer = types.Layer(r.int())
	r.skip()
	t.Status = vm.Status(r.int())
	t.Reason = r.text()
	t.Gas = uint64(r.int())
	t.Fee = uint64(r.int())
	return t
}

// Transaction returns a transaction by id.
func (rd *Reader) Transaction(id types.TransactionID) (tx Tx, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		tx, err = scanTx(c, "WHERE id = ?", id[:])
		return err
	})
	return tx, err
}

// transactions returns those whose seq a query yields, in its order.
func (rd *Reader) transactions(sql string, args ...any) (txs []Tx, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		var seqs []int64
		if err := query(c, sql, func(r *row) error { seqs = append(seqs, r.int()); return nil }, args...); err != nil {
			return err
		}
		for _, seq := range seqs {
			tx, err := scanTx(c, "WHERE seq = ?", seq)
			if err != nil {
				return missing(err, "transaction number %d", seq)
			}
			txs = append(txs, tx)
		}
		return nil
	})
	return txs, err
}

// PendingTransactions returns at most MaxPage transactions without a result
// in the order of their arrival, skipping the first offset.
func (rd *Reader) PendingTransactions(offset, limit int) ([]Tx, error) {
	return rd.transactions("SELECT seq FROM pending ORDER BY seq LIMIT ? OFFSET ?", page(limit), int64(max(offset, 0)))
}

// TxFilter selects transactions of an address.
type TxFilter struct {
	Address types.Address
	From    types.Layer // leaves out those that had their effect before this layer
	Applied bool        // leaves out those that are pending
}

const addressTxs = ` FROM tx_addresses AS a JOIN transactions AS t USING (seq) LEFT JOIN tx_results AS r USING (id)
	WHERE a.address = ? AND (r.layer >= ? OR (r.layer IS NULL AND ?))`

func (f TxFilter) args() []any {
	var pending int64 = 1
	if f.Applied {
		pending = 0
	}
	return []any{f.Address[:], int64(f.From), pending}
}

// AddressTransactions returns at most MaxPage transactions that touch an
// address, in the order of their arrival, skipping the first offset.
func (rd *Reader) AddressTransactions(f TxFilter, offset, limit int) ([]Tx, error) {
	return rd.transactions("SELECT a.seq"+addressTxs+" ORDER BY a.seq LIMIT ? OFFSET ?",
		append(f.args(), page(limit), int64(max(offset, 0)))...)
}

// CountAddressTransactions returns how many transactions AddressTransactions
// has in all its pages.
func (rd *Reader) CountAddressTransactions(f TxFilter) (int, error) {
	return rd.count("SELECT count(*)"+addressTxs, f.args()...)
}

func (rd *Reader) count(sql string, args ...any) (n int, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return query(c, sql, func(r *row) error { n = int(r.int()); return nil }, args...)
	})
	return n, err
}

// LayerTransactions returns the transactions that had an effect in a layer, in
// the order of its block.
func (rd *Reader) LayerTransactions(l types.Layer) ([]Tx, error) {
	return rd.transactions("SELECT t.seq FROM tx_results AS r JOIN transactions AS t USING (id) WHERE r.layer = ? ORDER BY r.position", int64(l))
}
