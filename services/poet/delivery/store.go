package delivery

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"tweedle/base/sealed"
)

// The bucket, and in it two values, sealed JSON: Table, and a list of Record. Both
// are small, so a save writes them whole.
const (
	bucket     = "delivery"
	keyTable   = "gateways"
	keyRecords = "rounds"
)

// DB is where the acknowledgements live: a *bbolt.DB, or what wraps one.
type DB interface {
	// Update runs a transaction that is durable when it returns nil.
	Update(fn func(tx *bbolt.Tx) error) error
}

// Table is the part of the gateways that outlives a restart; how they are is
// found out anew.
type Table struct {
	APISet   bool
	Gateways []Named
}

// Named is a gateway and who named it.
type Named struct {
	Addr   string
	Source Source
}

// Saved is what a Machine continues from.
type Saved struct {
	Table
	Records []Record
}

// unsaved returns the state if some of it is not saved yet, else nil.
func (m *Machine) unsaved() *Saved {
	if !m.dirty {
		return nil
	}
	s := &Saved{Table: Table{APISet: m.apiSet}}
	for _, g := range m.gateways {
		s.Gateways = append(s.Gateways, Named{g.Addr, g.Source})
	}
	for _, it := range m.proofs {
		r := it.Record
		r.Acks = slices.Clone(r.Acks)
		s.Records = append(s.Records, r)
	}
	return s
}

// Persisted tells the machine that what its last step gave to save is durable;
// without it that is part of the next step again.
func (m *Machine) Persisted() { m.dirty = false }

// load reads what was saved, and makes the bucket of a new database. What is
// damaged is left out and told: without the records, what is of use is delivered
// again; without the table, the gateways are to be set again.
func load(db DB) (saved Saved, damaged, err error) {
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		// If we stop before the commit, the next start does it again.
		if err := migrate(b); err != nil {
			return err
		}
		saved = Saved{}
		in := sealed.Top(tx, bucket)
		damaged = errors.Join(get(in, keyTable, &saved.Table), get(in, keyRecords, &saved.Records))
		return nil
	})
	if err != nil {
		return Saved{}, nil, fmt.Errorf("the state of the deliveries cannot be read: %w", err)
	}
	return saved, damaged, nil
}

func get(b sealed.Bucket, key string, into any) error {
	value, err := b.Get([]byte(key))
	if value == nil || err != nil {
		return err
	}
	return json.Unmarshal(value, into)
}

func put(b sealed.Bucket, key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return b.Put([]byte(key), raw)
}

// write puts all of it into the bucket.
func (s *Saved) write(b sealed.Bucket) error {
	return errors.Join(put(b, keyTable, s.Table), put(b, keyRecords, s.Records))
}

// save makes a state durable. If we stop before the commit, load finds the one
// before.
func save(db DB, s *Saved) error {
	return db.Update(func(tx *bbolt.Tx) error { return s.write(sealed.Top(tx, bucket)) })
}
