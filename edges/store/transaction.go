package store

import (
	"errors"
	"fmt"
	"strconv"

	"zombiezen.com/go/sqlite"

	"tweedle/protocol/vm"
	"tweedle/values/types"
)

// MaxReason is the longest text of a failure that is stored, in bytes.
const MaxReason = 256

// Tx is a transaction that was applied.
type Tx struct {
	ID     types.TransactionID
	Raw    types.Transaction
	Result vm.Result // without the addresses
}

// addTransaction stores a transaction of a layer that is being applied.
func addTransaction(c *sqlite.Conn, raw types.Transaction) error {
	id := raw.ID()
	if err := addObject(c, KindTransaction, id[:], raw); err != nil {
		return err
	}
	// seq is part of the checksum, so it cannot be left to SQLite.
	var seq int64
	err := query(c, "SELECT ifnull(max(seq), 0) + 1 FROM transactions", func(r *row) error { seq = r.int(); return nil })
	if err != nil {
		return err
	}
	return put(c, insert, "transactions", seq, id[:])
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

// dropTransactions forgets the transactions of the layers after one, which are
// undone.
func dropTransactions(c *sqlite.Conn, to types.Layer) error {
	const undone = "(SELECT t.seq FROM tx_results AS r JOIN transactions AS t USING (id) WHERE r.layer > ?)"
	for _, sql := range []string{
		"DELETE FROM tx_addresses WHERE seq IN " + undone,
		"DELETE FROM objects WHERE kind = " + strconv.Itoa(int(KindTransaction)) + " AND id IN (SELECT id FROM tx_results WHERE layer > ?)",
		"DELETE FROM transactions WHERE seq IN " + undone,
	} {
		if err := run(c, sql, int64(to)); err != nil {
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
	}, args...)
	if err != nil {
		return Tx{}, err
	}
	if tx.Raw, err = object(c, KindTransaction, tx.ID[:]); err != nil {
		return Tx{}, missing(err, "transaction %v", tx.ID)
	}
	err = one(c, "tx_results", "WHERE id = ?", func(r *row) { tx.Result = scanResult(r) }, tx.ID[:])
	return tx, missing(err, "result of transaction %v", tx.ID)
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

// SaveWaiting remembers what waits for a block, in its order, instead of what
// was remembered before.
func (db *DB) SaveWaiting(txs []types.Transaction) error {
	return db.write(func(c *sqlite.Conn) error {
		if err := run(c, "DELETE FROM waiting"); err != nil {
			return err
		}
		for i, raw := range txs {
			if err := put(c, insert, "waiting", int64(i), []byte(raw)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Waiting returns what SaveWaiting remembered.
func (rd *Reader) Waiting() (txs []types.Transaction, err error) {
	err = rd.read(func(c *sqlite.Conn) error {
		return each(c, "waiting", "ORDER BY seq", func(r *row) {
			r.skip()
			txs = append(txs, r.blob())
		})
	})
	return txs, err
}

// TxFilter selects transactions of an address.
type TxFilter struct {
	Address types.Address
	From    types.Layer // leaves out those that had their effect before this layer
}

const addressTxs = " FROM tx_addresses AS a JOIN transactions AS t USING (seq) JOIN tx_results AS r USING (id) WHERE a.address = ? AND r.layer >= ?"

// AddressTransactions returns at most MaxPage transactions that touch an
// address, in the order of their application, skipping the first offset.
func (rd *Reader) AddressTransactions(f TxFilter, offset, limit int) ([]Tx, error) {
	return rd.transactions("SELECT a.seq"+addressTxs+" ORDER BY a.seq LIMIT ? OFFSET ?",
		f.Address[:], int64(f.From), page(limit), int64(max(offset, 0)))
}

// CountAddressTransactions returns how many transactions AddressTransactions
// has in all its pages.
func (rd *Reader) CountAddressTransactions(f TxFilter) (int, error) {
	return rd.count("SELECT count(*)"+addressTxs, f.Address[:], int64(f.From))
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
