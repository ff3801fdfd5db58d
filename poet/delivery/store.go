package delivery

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/bbolt"
)

// The buckets, all inside bucketRoot: Record as JSON and the proof's bytes,
// both by Seq in big-endian order, so that the outbox is read in order.
var (
	bucketRoot    = []byte("delivery")
	bucketRecords = []byte("records")
	bucketData    = []byte("data")
	keyPool       = []byte("pool")
)

// DB is where the outbox lives: a *bbolt.DB, or what wraps one.
type DB interface {
	// Update runs a transaction that is durable when it returns nil.
	Update(fn func(tx *bbolt.Tx) error) error
}

// Pool is the part of the gateway pool that outlives a restart.
type Pool struct {
	APISet     bool
	Slots      []GatewayStatus
	Candidates []GatewayStatus
	Banned     []string
}

// Saved is what a Machine continues from.
type Saved struct {
	Pool   Pool
	Proofs []Record // by Seq
	Data   map[uint64][]byte
}

// Changes is what must be made durable in one transaction.
type Changes struct {
	Pool    *Pool // nil: as before
	Records []Record
	Data    map[uint64][]byte // new proofs
	Drop    []uint64          // whose data is not needed any more
	Forget  []uint64          // proofs of which nothing is kept
}

// changes collects what is not saved yet; nil when there is nothing.
func (m *Machine) changes() *Changes {
	if !m.poolDirty && len(m.dirty) == 0 {
		return nil
	}
	c := &Changes{Data: map[uint64][]byte{}}
	if m.poolDirty {
		c.Pool = &Pool{APISet: m.apiSet, Banned: slices.Clone(m.banned)}
		for _, s := range m.slots {
			c.Pool.Slots = append(c.Pool.Slots, s.GatewayStatus)
		}
		for _, cand := range m.candidates {
			c.Pool.Candidates = append(c.Pool.Candidates, cand.GatewayStatus)
		}
	}
	for _, seq := range slices.Sorted(maps.Keys(m.dirty)) {
		it := m.find(seq)
		if it == nil {
			c.Forget = append(c.Forget, seq)
			continue
		}
		c.Records = append(c.Records, it.Record)
		switch {
		case it.data == nil:
			c.Drop = append(c.Drop, seq)
		case it.fresh:
			c.Data[seq] = it.data
		}
	}
	return c
}

// Persisted tells the machine that the changes of its last step are durable;
// without it they are part of the next step again.
func (m *Machine) Persisted(c *Changes) {
	m.poolDirty = false
	for _, r := range c.Records {
		delete(m.dirty, r.Seq)
		if it := m.find(r.Seq); it != nil {
			it.fresh = false
		}
	}
	for _, seq := range c.Forget {
		delete(m.dirty, seq)
	}
}

func key(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// load reads what was saved, and makes the buckets of a new database.
func load(db DB) (Saved, error) {
	saved := Saved{Data: map[uint64][]byte{}}
	err := db.Update(func(tx *bbolt.Tx) error {
		root, err := tx.CreateBucketIfNotExists(bucketRoot)
		if err != nil {
			return err
		}
		if raw := root.Get(keyPool); raw != nil {
			if err := json.Unmarshal(raw, &saved.Pool); err != nil {
				return fmt.Errorf("gateway pool: %w", err)
			}
		}
		data, err := root.CreateBucketIfNotExists(bucketData)
		if err != nil {
			return err
		}
		records, err := root.CreateBucketIfNotExists(bucketRecords)
		if err != nil {
			return err
		}
		return records.ForEach(func(k, v []byte) error {
			var r Record
			if err := json.Unmarshal(v, &r); err != nil {
				return fmt.Errorf("delivery record %x: %w", k, err)
			}
			saved.Proofs = append(saved.Proofs, r)
			if r.State == Pending {
				saved.Data[r.Seq] = append([]byte{}, data.Get(k)...)
			}
			return nil
		})
	})
	if err != nil {
		return Saved{}, fmt.Errorf("the outbox cannot be read: %w", err)
	}
	return saved, nil
}

// save makes changes durable. If we stop before the commit, load finds the
// state before; after it, the state with all of them.
func save(db DB, c *Changes) error {
	return db.Update(func(tx *bbolt.Tx) error {
		root := tx.Bucket(bucketRoot)
		if c.Pool != nil {
			raw, err := json.Marshal(c.Pool)
			if err != nil {
				return err
			}
			if err := root.Put(keyPool, raw); err != nil {
				return err
			}
		}
		records, data := root.Bucket(bucketRecords), root.Bucket(bucketData)
		for _, r := range c.Records {
			raw, err := json.Marshal(r)
			if err != nil {
				return err
			}
			if err := records.Put(key(r.Seq), raw); err != nil {
				return err
			}
		}
		for _, seq := range slices.Sorted(maps.Keys(c.Data)) {
			if err := data.Put(key(seq), c.Data[seq]); err != nil {
				return err
			}
		}
		for _, seq := range slices.Concat(c.Drop, c.Forget) {
			if err := data.Delete(key(seq)); err != nil {
				return err
			}
		}
		for _, seq := range c.Forget {
			if err := records.Delete(key(seq)); err != nil {
				return err
			}
		}
		return nil
	})
}
