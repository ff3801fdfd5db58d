package delivery

import (
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"tweedle/base/sealed"
)

// The bucket, and in it two values, sealed JSON: the fields of Saved. Both are
// small, so a save writes them whole.
const (
	bucket      = "delivery"
	keyGateways = "gateways"
	keyRecords  = "rounds"
)

// DB is where the state of the deliveries lives: a *bbolt.DB, or what wraps one.
type DB interface {
	// Update runs a transaction that is durable when it returns nil.
	Update(fn func(tx *bbolt.Tx) error) error
}

// Saved is what a Machine continues from. How the gateways are is found out anew.
type Saved struct {
	Gateways []string // as the API set them; nil: it did not
	Records  []Record
}

// saved returns all that is to be saved.
func (m *Machine) saved() (s Saved) {
	if m.source == FromAPI {
		s.Gateways = m.addresses()
	}
	for _, it := range m.proofs {
		s.Records = append(s.Records, it.Record)
	}
	return s
}

// load reads what was saved, and makes the bucket of a new database. What is
// damaged is left out and told: without the records, what is of use is delivered
// again; without the gateways, those of the command line count.
func load(db DB) (saved Saved, damaged, err error) {
	err = db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists([]byte(bucket)); err != nil {
			return err
		}
		b := sealed.Top(tx, bucket)
		saved = Saved{}
		damaged = errors.Join(get(b, keyGateways, &saved.Gateways), get(b, keyRecords, &saved.Records))
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

// save makes a state durable. If we stop before the commit, load finds the one
// before.
func save(db DB, s Saved) error {
	return db.Update(func(tx *bbolt.Tx) error {
		b := sealed.Top(tx, bucket)
		return errors.Join(put(b, keyGateways, s.Gateways), put(b, keyRecords, s.Records))
	})
}
