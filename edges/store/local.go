package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"

	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// MaxStepSize is the largest value of a smesher's step, in bytes.
const MaxStepSize = 1 << 20

// SaveStep keeps an encoded value of an identity under a name, durable when
// it returns. If we stop before that, the next start finds the old value.
func (db *DB) SaveStep(identity types.NodeID, name string, v codec.Encodable) error {
	b := codec.Encode(v)
	if len(b) > MaxStepSize {
		return fmt.Errorf("step %q has %d bytes, more than the limit", name, len(b))
	}
	return db.writeLocal(func(c *sqlite.Conn) error {
		return put(c, replace, "steps", identity[:], name, b)
	})
}

// LoadStep reads back what SaveStep kept.
func (db *DB) LoadStep(identity types.NodeID, name string, v codec.Decodable) error {
	return db.writeLocal(func(c *sqlite.Conn) error {
		var b []byte
		err := one(c, "steps", "WHERE identity = ? AND name = ?", func(r *row) {
			r.skip()
			r.skip()
			b = r.blob()
		}, identity[:], name)
		if err != nil {
			return err
		}
		if err := codec.Decode(b, v); err != nil {
			return fmt.Errorf("table steps, row %v %q: %w (%v)", identity, name, ErrCorrupt, err)
		}
		return nil
	})
}

// signedCounter counts what the guard has let pass. local.db has it exactly;
// state.db remembers it from time to time.
const signedCounter = "signed"

// Slot is one place of the guard: the message of a domain that an identity signs for a layer
// or an epoch.
type Slot struct {
	Domain   signing.Domain
	Identity types.NodeID
	Slot     uint64
	Hash     types.Hash32
}

// Guard must be asked before an identity signs: it records that this is the
// message of the domain for the slot, a layer or an epoch. It is durable when
// Guard returns nil. Asking again for the same message is allowed; another one
// is refused with ErrConflict, for ever, and so is every message for a slot
// that ForgetSigned has closed. If we stop inside Guard, nothing was
// signed, and the next start may sign this message or another.
func (db *DB) Guard(d signing.Domain, identity types.NodeID, slot uint64, hash types.Hash32) error {
	refused, err := db.GuardAll([][]Slot{{{Domain: d, Identity: identity, Slot: slot, Hash: hash}}})
	if err != nil {
		return err
	}
	return refused[0]
}

// GuardAll asks Guard for messages of several identities in one transaction, since its sync costs as
// much as all the rest. A message has a slot or more, or none if there cannot be two of it, and may be
// signed if its refusal is nil: all of them are its own. After an err none may be.
func (db *DB) GuardAll(messages [][]Slot) (refused []error, err error) {
	db.localMu.Lock()
	defer db.localMu.Unlock()
	signed := db.signed
	err = db.writeLocalLocked(func(c *sqlite.Conn) error {
		refused, signed = make([]error, len(messages)), db.signed
		for i, m := range messages {
			for _, s := range m {
				known, err := db.claim(c, s)
				if errors.Is(err, ErrConflict) || errors.Is(err, ErrRolledBack) {
					refused[i] = err
					break
				}
				if err != nil {
					return err
				}
				if !known {
					signed++
				}
			}
		}
		if signed == db.signed {
			return nil
		}
		return putCounter(c, signedCounter, signed)
	})
	if err == nil {
		db.signed = signed
	}
	return refused, err
}

// claim records a slot, or tells that it was recorded before.
func (db *DB) claim(c *sqlite.Conn, s Slot) (known bool, err error) {
	doubt, err := db.distrusted(c, s.Identity)
	if err != nil {
		return false, err
	}
	if doubt {
		return false, fmt.Errorf("%w: it was restored from a copy, so what was signed since is unknown; wait for the end of the next epoch", ErrRolledBack)
	}
	floor, err := getCounter(c, signedFloor(s.Domain))
	if err != nil {
		return false, err
	}
	if s.Slot < floor {
		return false, fmt.Errorf("slot %d of domain %d is closed, nothing is signed before %d: %w", s.Slot, s.Domain, floor, ErrConflict)
	}
	var old types.Hash32
	err = one(c, "guard", "WHERE domain = ? AND identity = ? AND slot = ?", func(r *row) {
		r.skip()
		r.skip()
		r.skip()
		r.raw(old[:])
	}, int64(s.Domain), s.Identity[:], int64(s.Slot))
	switch {
	case err == nil && old == s.Hash:
		return true, nil
	case err == nil:
		return false, fmt.Errorf("identity %s has signed %s in slot %d of domain %d, and will not sign %s: %w",
			s.Identity.Short(), old.Short(), s.Slot, s.Domain, s.Hash.Short(), ErrConflict)
	case !errors.Is(err, ErrNotFound):
		return false, err
	}
	return false, put(c, insert, "guard", int64(s.Domain), s.Identity[:], int64(s.Slot), s.Hash[:])
}

// nameCounter is, in local.db, a number by which it is told from others, and in state.db that of the
// local.db beside it: one of another node may have counted as much as ours.
const nameCounter = "name of local.db"

// know looks whether local.db is the one that state.db knows. Where nothing was signed before it
// is; a new state.db, or one from before there were names, gets to know it.
func (db *DB) know() error {
	name, err := getCounter(db.local, nameCounter)
	if err == nil && name == 0 {
		var b [8]byte
		rand.Read(b[:]) //nolint:errcheck // it never fails
		name = binary.BigEndian.Uint64(b[:]) | 1
		err = db.writeLocal(func(c *sqlite.Conn) error { return putCounter(c, nameCounter, name) })
	}
	if err != nil {
		return localFile.explain(db.dir, err)
	}
	known, err := getCounter(db.state, nameCounter)
	if db.known = known; err == nil && known != name {
		if db.foreign = known != 0 && db.remembered > 0; !db.foreign {
			err = db.write(func(c *sqlite.Conn) error { return putCounter(c, nameCounter, name) })
		}
	}
	if err != nil {
		return stateFile.explain(db.dir, err)
	}
	return nil
}

// signedFloor names the counter of the lowest slot that is open in a domain.
func signedFloor(d signing.Domain) string { return fmt.Sprintf("floor %d", d) }

// ForgetSigned closes the slots of a domain before one: nothing is signed for
// them any more, so what was signed for them need not be remembered. It is
// durable when it returns.
func (db *DB) ForgetSigned(d signing.Domain, before uint64) error {
	return db.writeLocal(func(c *sqlite.Conn) error {
		floor, err := getCounter(c, signedFloor(d))
		if err != nil || before <= floor {
			return err
		}
		if err := putCounter(c, signedFloor(d), before); err != nil {
			return err
		}
		return run(c, "DELETE FROM guard WHERE domain = ? AND slot < ?", int64(d), int64(before))
	})
}

// distrustCounter is, in local.db, the epoch in which an identity may sign again, and 0 if
// there is no doubt; followed by nothing, it is of all of them that have none of their own.
const distrustCounter = "distrust"

func distrustOf(identity types.NodeID) string {
	return fmt.Sprintf("%s %x", distrustCounter, identity[:])
}

// distrustIn returns the epoch in which an identity may sign again, 0 if there is no doubt.
func distrustIn(c *sqlite.Conn, identity types.NodeID) (uint64, error) {
	epoch, err := getCounter(c, distrustOf(identity))
	if err == nil && epoch == 0 {
		epoch, err = getCounter(c, distrustCounter)
	}
	return epoch, err
}

// distrusted tells whether local.db is older than what an identity signed.
func (db *DB) distrusted(c *sqlite.Conn, identity types.NodeID) (bool, error) {
	epoch, err := distrustIn(c, identity)
	return db.signed < db.remembered || db.foreign || db.seen[identity] || epoch != 0, err
}

// RolledBack tells whether local.db was found older than it should be: than
// state.db remembers, which is of all identities, or than what others have of this
// one (Seen). Guard refuses it everything until TrustLocal.
func (db *DB) RolledBack(identity types.NodeID) (doubt bool, err error) {
	err = db.writeLocal(func(c *sqlite.Conn) error {
		doubt, err = db.distrusted(c, identity)
		return err
	})
	return doubt, err
}

// Seen is told of every valid message of one of our identities that comes from
// elsewhere. One that the guard does not know was signed by another copy of us:
// local.db, or all of the directory, was restored, or the identity runs twice.
// Then it returns ErrRolledBack, and this identity signs nothing until TrustLocal; the
// others are as safe as if each had a node of its own, whose messages tell of it alone.
func (db *DB) Seen(d signing.Domain, identity types.NodeID, slot uint64, hash types.Hash32) error {
	db.localMu.Lock()
	defer db.localMu.Unlock()
	known := false
	err := db.writeLocalLocked(func(c *sqlite.Conn) error {
		floor, err := getCounter(c, signedFloor(d))
		if err != nil {
			return err
		}
		known, err = exists(c, "guard WHERE domain = ? AND identity = ? AND slot = ? AND hash = ?", int64(d), identity[:], int64(slot), hash[:])
		known = known || slot < floor // long ago: it binds nobody any more
		return err
	})
	if err != nil || known {
		return err
	}
	db.seen[identity] = true
	return fmt.Errorf("identity %s has signed %s in slot %d of domain %d, which this copy does not know: %w", identity.Short(), hash.Short(), slot, d, ErrRolledBack)
}

// DistrustUntil notes in which epoch an identity may sign again, after local.db
// was found to be old, and returns it: the first answer holds, so that a restart
// does not begin to wait anew. It is durable when it returns.
func (db *DB) DistrustUntil(identity types.NodeID, epoch types.Epoch) (types.Epoch, error) {
	err := db.writeLocal(func(c *sqlite.Conn) error {
		first, err := distrustIn(c, identity)
		if err != nil {
			return err
		}
		if first != 0 && first != aCopy {
			epoch = types.Epoch(first)
		}
		return putCounter(c, distrustOf(identity), uint64(epoch))
	})
	return epoch, err
}

// TrustLocal lets the guard work again for an identity after a rollback. The caller has
// waited until nothing that may have been signed can conflict any more: the end of the
// epoch after the one in which the rollback was found, and has noted by DistrustUntil
// for each other identity until when it has to wait.
func (db *DB) TrustLocal(identity types.NodeID) error {
	db.localMu.Lock()
	defer db.localMu.Unlock()
	to := max(db.signed, db.remembered)
	err := db.writeLocalLocked(func(c *sqlite.Conn) error {
		if db.foreign { // from now on it is the one that state.db knows
			if err := putCounter(c, nameCounter, db.known); err != nil {
				return err
			}
		}
		for _, key := range []string{distrustOf(identity), distrustCounter} {
			if err := putCounter(c, key, 0); err != nil {
				return err
			}
		}
		return putCounter(c, signedCounter, to)
	})
	if err == nil {
		db.signed, db.foreign = to, false
		delete(db.seen, identity)
	}
	return err
}

func (db *DB) signedSoFar() uint64 {
	db.localMu.Lock()
	defer db.localMu.Unlock()
	return db.signed
}

// rememberSigned notes in state.db how often the guard has been used. It only
// grows, so that a rollback is not forgotten.
func rememberSigned(c *sqlite.Conn, signed uint64) error {
	known, err := getCounter(c, signedCounter)
	if err != nil || signed <= known {
		return err
	}
	return putCounter(c, signedCounter, signed)
}

// checkLocal reads all of local.db: a row of the guard that is lost without
// notice would let us sign against it. The file is small.
func checkLocal(c *sqlite.Conn) error {
	for _, table := range []string{"meta", "steps", "guard"} {
		if err := each(c, table, "", func(*row) {}); err != nil {
			return err
		}
	}
	return query(c, "PRAGMA integrity_check(1)", func(r *row) error {
		if said := r.text(); said != "ok" {
			return fmt.Errorf("%w: %s", ErrCorrupt, said)
		}
		return nil
	})
}
