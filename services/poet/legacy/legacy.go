// Package legacy takes over what a reference PoET server leaves behind: its
// key, its stored proofs, and the registrations of rounds that have none yet
// (reference/poet.md 1.9).
//
// It promises: nothing in the reference's directories is changed; a proof is
// taken over only after it was verified, with its members; whatever cannot be
// taken over is named. It leaves to the caller that the reference server has
// stopped, where proofs are served from, which rounds still have time, and that no
// server starts on half an import.
package legacy

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// The reference's files, inside its data and database directories.
const (
	stateFile = "state.bin"
	proofsDir = "proofs"
	roundsDir = "rounds"
)

// maxState bounds the state file, in bytes.
const maxState = 1 << 10

// ReadKey reads the server's key from the reference's data directory.
func ReadKey(dataDir string) (ed25519.PrivateKey, error) {
	path := filepath.Join(dataDir, stateFile)
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("no key of a reference server: %w", err)
	}
	if info.Size() > maxState {
		return nil, fmt.Errorf("%s has %d bytes: it is not a reference server's state", path, info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := xdr{b: b}
	key := ed25519.PrivateKey(d.opaque(ed25519.PrivateKeySize))
	if d.end() != nil || len(key) != ed25519.PrivateKeySize || !key.Equal(ed25519.NewKeyFromSeed(key.Seed())) {
		return nil, fmt.Errorf("%s does not hold a server's key", path)
	}
	return key, nil
}

// Proof is a verified proof of a reference server, in the form in which it was
// stored there. It is of use until who is given it returns.
type Proof struct {
	Round uint32
	XDR   []byte
}

// Proofs reads and verifies every stored proof below the reference's database
// directory, in no order, and gives each to take. What cannot be taken over is
// given to skip with the reason. workers bounds the cores used.
func Proofs(dbDir string, workers int, take func(Proof) error, skip func(key string, why error)) error {
	path := filepath.Join(dbDir, proofsDir)
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("no proofs of a reference server: %w", err)
	}
	return each(path, "proofs", func(key, value []byte) error {
		round, err := strconv.ParseUint(string(key), 10, 32)
		if err != nil {
			return nil // a setting of the registration's proof of work
		}
		p, err := parse(string(key), value)
		if err == nil {
			err = posw.Verify(p.Statement(), &p.Message.Proof, workers)
		}
		if err != nil {
			skip(string(key), err)
			return nil
		}
		return take(Proof{uint32(round), value})
	})
}

// each gives every entry of one of the reference's databases to do, by key. They are
// of use until it returns.
func each(path, what string, do func(key, value []byte) error) (err error) {
	db, err := leveldb.OpenFile(path, &opt.Options{ReadOnly: true, ErrorIfMissing: true, Strict: opt.StrictAll})
	if err != nil {
		return fmt.Errorf("%s of a reference server: %w (has it stopped?)", what, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	it := db.NewIterator(nil, nil)
	defer it.Release()
	for it.Next() {
		if err := do(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("%s of a reference server: %w", what, err)
	}
	return nil
}

// Registration is what the reference keeps of one.
type Registration struct{ NodeID, Challenge [32]byte }

// batchSize is the number of registrations that are taken at a time.
const batchSize = 4096

// Rounds lists the rounds of which the reference's database directory has
// registrations, lowest first: the open one, those that execute, and all that
// have a proof. What is no round is given to skip.
func Rounds(dbDir string, skip func(name string, why error)) (numbers []uint32, err error) {
	entries, err := os.ReadDir(filepath.Join(dbDir, roundsDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		n, err := poet.ParseRoundID(e.Name())
		if err != nil || !e.IsDir() {
			skip(e.Name(), errors.New("it is no round"))
			continue
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers, err
}

// Registrations reads those of a round, ascending by key, and gives them to take,
// some thousand at a time. What is none is given to skip.
func Registrations(dbDir string, round uint32, take func([]Registration) error, skip func(why error)) error {
	path := filepath.Join(dbDir, roundsDir, poet.RoundID(round))
	// The reference leaves such a folder behind when it only looks for a round.
	names, err := filepath.Glob(filepath.Join(path, "*[0-9].*"))
	if _, missing := os.Stat(filepath.Join(path, "CURRENT")); err == nil && len(names) == 0 && errors.Is(missing, os.ErrNotExist) {
		return nil
	}
	var batch []Registration
	err = each(path, "registrations of round "+poet.RoundID(round), func(key, value []byte) error {
		if len(key) != 32 || len(value) != 32 {
			skip(fmt.Errorf("key %x has a challenge of %d bytes, and not 32: no node has such a one", key, len(value)))
			return nil
		}
		batch = append(batch, Registration{[32]byte(key), [32]byte(value)})
		if len(batch) < batchSize {
			return nil
		}
		full := batch
		batch = batch[:0]
		return take(full)
	})
	if err != nil || len(batch) == 0 {
		return err
	}
	return take(batch)
}

// Limits of a stored proof.
const (
	maxMembers = 1 << 26 // what fits into a value at all
	maxRoundID = types.MaxPoetRoundID
)

var errForm = errors.New("the stored proof is damaged or of another version")

// parse decodes the reference's stored form: XDR of {{root, leaves, nodes},
// members, leaf count, service key, round id}.
func parse(key string, value []byte) (p poet.ProofRecord, err error) {
	d := xdr{b: value}
	root := d.opaque(32)
	p.Message.Proof.Leaves = nodes[types.Hash32](&d, types.MaxPoetLeaves)
	p.Message.Proof.Nodes = nodes[types.Hash32](&d, types.MaxPoetNodes)
	p.Members = nodes[[32]byte](&d, maxMembers)
	p.Message.Proof.NumLeaves = d.uint64()
	service := d.opaque(32)
	p.Message.RoundID = string(d.opaque(maxRoundID))
	if d.end() != nil || len(root) != 32 || len(service) != 32 || p.Message.RoundID != key {
		return p, errForm
	}
	if _, err := poet.ParseRoundID(key); err != nil {
		return p, errForm
	}
	p.Message.PoetID, p.Message.Proof.Root = types.NodeID(service), types.Hash32(root)
	if len(p.Members) > 0 {
		p.Message.Statement = merkle.Root(p.Members)
	}
	return p, nil
}
