package store

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/zeebo/blake3"
	"zombiezen.com/go/sqlite"
)

// What put does with a row whose key is there already.
const (
	insert  = "INSERT"           // it is an error
	ignore  = "INSERT OR IGNORE" // the old row stays
	replace = "INSERT OR REPLACE"
)

// sumSize is the length of a row's checksum in bytes: against accidents, not
// against an adversary, who could write checksums too.
const sumSize = 8

// put writes one row: the given columns in the table's order, and their
// checksum. A column is an int64, []byte or string.
func put(c *sqlite.Conn, verb, table string, cols ...any) error {
	s, err := c.Prepare(verb + " INTO " + table + " VALUES (" + strings.Repeat("?,", len(cols)) + "?)")
	if err != nil {
		return err
	}
	bind(s, cols)
	sum := newRowSum(table)
	for _, v := range cols {
		switch v := v.(type) {
		case int64:
			sum.int(v)
		case []byte:
			sum.bytes(v)
		case string:
			sum.bytes([]byte(v))
		}
	}
	s.BindBytes(len(cols)+1, sum.done())
	return finish(s)
}

func bind(s *sqlite.Stmt, args []any) {
	for i, v := range args {
		switch v := v.(type) {
		case int64:
			s.BindInt64(i+1, v)
		case []byte:
			s.BindBytes(i+1, v)
		case string:
			s.BindText(i+1, v)
		default:
			panic(fmt.Sprintf("store: cannot bind a %T", v))
		}
	}
}

// finish runs a statement that returns no rows.
func finish(s *sqlite.Stmt) error {
	_, err := s.Step()
	if reset := s.Reset(); err == nil {
		err = reset
	}
	return err
}

// run executes a statement that returns no rows.
func run(c *sqlite.Conn, sql string, args ...any) error {
	s, err := c.Prepare(sql)
	if err != nil {
		return err
	}
	bind(s, args)
	return finish(s)
}

// each reads the whole rows of a table that match, and checks each of them
// before scan sees it. The rest of the query may use t for the table.
func each(c *sqlite.Conn, table, rest string, scan func(*row), args ...any) error {
	return query(c, "SELECT t.* FROM "+table+" AS t "+rest, func(r *row) error {
		if err := r.verify(table); err != nil {
			return err
		}
		scan(r)
		if r.bad {
			return r.damaged(table)
		}
		return nil
	}, args...)
}

// one is each for a query whose first row is the answer. It returns
// ErrNotFound when there is none.
func one(c *sqlite.Conn, table, rest string, scan func(*row), args ...any) error {
	found := false
	err := each(c, table, rest+" LIMIT 1", func(r *row) {
		found = true
		scan(r)
	}, args...)
	if err == nil && !found {
		return ErrNotFound
	}
	return err
}

// query runs a statement and calls scan for each row of the result.
func query(c *sqlite.Conn, sql string, scan func(*row) error, args ...any) (err error) {
	s, err := c.Prepare(sql)
	if err != nil {
		return err
	}
	defer func() {
		if reset := s.Reset(); err == nil {
			err = reset
		}
	}()
	bind(s, args)
	for {
		more, err := s.Step()
		if err != nil || !more {
			return err
		}
		if err := scan(&row{s: s}); err != nil {
			return err
		}
	}
}

// row reads the columns of one result from left to right. A value of the
// wrong size marks the row as bad.
type row struct {
	s   *sqlite.Stmt
	col int
	bad bool
}

func (r *row) next() int { r.col++; return r.col - 1 }

func (r *row) int() int64   { return r.s.ColumnInt64(r.next()) }
func (r *row) text() string { return r.s.ColumnText(r.next()) }
func (r *row) skip()        { r.col++ }

func (r *row) blob() []byte { return columnBytes(r.s, r.next()) }

// raw fills dst from a column that must be exactly as long.
func (r *row) raw(dst []byte) {
	col := r.next()
	if r.s.ColumnLen(col) != len(dst) {
		r.bad = true
		return
	}
	r.s.ColumnBytes(col, dst)
}

// keyColumns is how many columns make the key of a table, where not one.
var keyColumns = map[string]int{"objects": 2, "accounts": 2, "rewards": 2, "steps": 2, "guard": 3}

// damaged names a row that is not as it was written.
func (r *row) damaged(table string) error {
	var key []string
	for i := range max(1, keyColumns[table]) {
		key = append(key, columnText(r.s, i))
	}
	return fmt.Errorf("table %s, row %s: %w", table, strings.Join(key, " "), ErrCorrupt)
}

// verify compares the last column with the checksum of the others.
func (r *row) verify(table string) error {
	last := r.s.ColumnCount() - 1
	sum := newRowSum(table)
	for i := range last {
		if r.s.ColumnType(i) == sqlite.TypeInteger {
			sum.int(r.s.ColumnInt64(i))
		} else {
			sum.bytes(columnBytes(r.s, i))
		}
	}
	if string(columnBytes(r.s, last)) != string(sum.done()) {
		return r.damaged(table)
	}
	return nil
}

func columnBytes(s *sqlite.Stmt, col int) []byte {
	n := s.ColumnLen(col)
	if n == 0 {
		return nil
	}
	b := make([]byte, n)
	s.ColumnBytes(col, b)
	return b
}

func columnText(s *sqlite.Stmt, col int) string {
	if s.ColumnType(col) == sqlite.TypeBlob {
		return hex.EncodeToString(columnBytes(s, col))
	}
	return s.ColumnText(col)
}

// rowSum hashes the columns of a row. The table is part of it, and every
// column's kind and length, so that no two rows have the same input.
type rowSum struct{ h *blake3.Hasher }

func newRowSum(table string) rowSum {
	s := rowSum{blake3.New()}
	s.bytes([]byte(table))
	return s
}

func (s rowSum) int(v int64) { s.write('i', uint64(v)) }

func (s rowSum) bytes(b []byte) {
	s.write('b', uint64(len(b)))
	_, _ = s.h.Write(b) // a hash never fails to write
}

func (s rowSum) write(kind byte, v uint64) {
	var b [9]byte
	b[0] = kind
	binary.LittleEndian.PutUint64(b[1:], v)
	_, _ = s.h.Write(b[:])
}

func (s rowSum) done() []byte { return s.h.Sum(nil)[:sumSize] }
