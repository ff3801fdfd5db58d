package delivery

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/bbolt"

	"tweedle/values/types"
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
	// Damaged tells what was found damaged and left out. A proof that is left
	// out is added again by whoever holds the proofs; the pool begins anew.
	Damaged []string
}

// sumSize is the length of the checksum behind each value, in bytes; the
// database has none of its own.
const sumSize = 8

func seal(key, value []byte) []byte {
	sum := types.Sum(key, value)
	return append(slices.Clone(value), sum[:sumSize]...)
}

func unseal(key, sealed []byte) ([]byte, bool) {
	if len(sealed) < sumSize {
		return nil, false
	}
	value := sealed[:len(sealed)-sumSize]
	sum := types.Sum(key, value)
	return value, bytes.Equal(sum[:sumSize], sealed[len(value):])
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
	var saved Saved
	err := db.Update(func(tx *bbolt.Tx) error {
		saved = Saved{Data: map[uint64][]byte{}}
		root, err := tx.CreateBucketIfNotExists(bucketRoot)
		if err != nil {
			return err
		}
		data, err := root.CreateBucketIfNotExists(bucketData)
		if err != nil {
			return err
		}
		records, err := root.CreateBucketIfNotExists(bucketRecords)
		if err != nil {
			return err
		}
		if raw := root.Get(keyPool); raw != nil && !saved.open(keyPool, raw, &saved.Pool) {
			saved.Pool = Pool{}
		}
		return records.ForEach(func(k, v []byte) error {
			saved.add(k, v, data.Get(k))
			return nil
		})
	})
	if err != nil {
		return Saved{}, fmt.Errorf("the outbox cannot be read: %w", err)
	}
	return saved, nil
}

// open decodes a sealed value, or notes that it is damaged.
func (s *Saved) open(key, sealed []byte, into any) bool {
	value, ok := unseal(key, sealed)
	if ok && json.Unmarshal(value, into) == nil {
		return true
	}
	s.Damaged = append(s.Damaged, fmt.Sprintf("entry %x of the outbox", key))
	return false
}

func (s *Saved) add(key, record, data []byte) {
	var r Record
	if !s.open(key, record, &r) {
		return
	}
	if len(key) != 8 || binary.BigEndian.Uint64(key) != r.Seq {
		s.Damaged = append(s.Damaged, fmt.Sprintf("entry %x of the outbox", key))
		return
	}
	if r.State == Pending {
		value, ok := unseal(key, data)
		if !ok || len(value) != r.Size {
			s.Damaged = append(s.Damaged, fmt.Sprintf("the waiting proof of round %s", r.Round))
			return
		}
		s.Data[r.Seq] = slices.Clone(value)
	}
	s.Proofs = append(s.Proofs, r)
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
			if err := root.Put(keyPool, seal(keyPool, raw)); err != nil {
				return err
			}
		}
		records, data := root.Bucket(bucketRecords), root.Bucket(bucketData)
		for _, r := range c.Records {
			raw, err := json.Marshal(r)
			if err != nil {
				return err
			}
			if err := records.Put(key(r.Seq), seal(key(r.Seq), raw)); err != nil {
				return err
			}
		}
		for _, seq := range slices.Sorted(maps.Keys(c.Data)) {
			if err := data.Put(key(seq), seal(key(seq), c.Data[seq])); err != nil {
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
