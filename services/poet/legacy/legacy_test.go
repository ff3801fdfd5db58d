package legacy

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/services/poet/rounds"
	"tweedle/services/poet/work"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// xdrWriter writes what the reference writes.
type xdrWriter struct{ bytes.Buffer }

func (w *xdrWriter) count(n int) { _ = binary.Write(w, binary.BigEndian, uint32(n)) }

func (w *xdrWriter) opaque(b []byte) {
	w.count(len(b))
	w.Write(b)
	w.Write(make([]byte, -len(b)&3))
}

func addNodes[H ~[32]byte](w *xdrWriter, list []H) {
	w.count(len(list))
	for i := range list {
		w.opaque(list[i][:])
	}
}

func (w *xdrWriter) proof(p types.PoetProof, members [][32]byte, service []byte, round string) {
	w.opaque(p.Root[:])
	addNodes(w, p.Leaves)
	addNodes(w, p.Nodes)
	addNodes(w, members)
	_ = binary.Write(w, binary.BigEndian, p.NumLeaves)
	w.opaque(service)
	w.opaque([]byte(round))
}

// madeProof is a real proof over n members.
func madeProof(t testing.TB, round string, n int) ([]byte, types.PoetProof, [][32]byte) {
	t.Helper()
	var members [][32]byte
	for i := range n {
		members = append(members, [32]byte{byte(i), 5})
	}
	var statement []byte
	if n > 0 {
		root := merkle.Root(members)
		statement = root[:]
	}
	const leaves = 200
	p := prove(t, statement, leaves)
	var w xdrWriter
	w.proof(p, members, bytes.Repeat([]byte{7}, 32), round)
	return w.Bytes(), p, members
}

// reference makes a reference server's directories with these proofs.
func reference(t *testing.T, proofs map[string][]byte) (dataDir, dbDir string) {
	t.Helper()
	dataDir, dbDir = filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "db")
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	var w xdrWriter
	w.opaque(ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err := os.WriteFile(filepath.Join(dataDir, stateFile), w.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := leveldb.OpenFile(filepath.Join(dbDir, proofsDir), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for k, v := range proofs {
		if err := db.Put([]byte(k), v, nil); err != nil {
			t.Fatal(err)
		}
	}
	return dataDir, dbDir
}

func TestKeyAndProofsAreTakenOver(t *testing.T) {
	good, p, members := madeProof(t, "12", 3)
	empty, _, _ := madeProof(t, "13", 0)
	wrong := slices.Clone(good)
	wrong[10] ^= 1 // the root
	renamed, _, _ := madeProof(t, "99", 3)
	dataDir, dbDir := reference(t, map[string][]byte{
		"12": good, "13": empty, "14": wrong, "15": good[:len(good)-1], "16": renamed, "pow_challenge": {1, 2, 3},
	})
	key, err := ReadKey(dataDir)
	if err != nil || !key.Equal(ed25519.NewKeyFromSeed(make([]byte, 32))) {
		t.Fatalf("key %x, %v", key, err)
	}
	cfg := rounds.Config{Dir: filepath.Join(t.TempDir(), "poet"), Key: key, Work: work.Config{LeavesPerSecond: 1}, BallastBytes: 1 << 16, Schedule: types.PoetSchedule{
		Genesis: time.Unix(1e9, 0), EpochDuration: time.Hour, PhaseShift: time.Minute, CycleGap: time.Minute}}
	service, err := rounds.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	archive, skipped := OpenArchive(service.Book().DB), map[string]error{}
	if _, err := archive.Proof("12"); !errors.Is(err, poet.ErrNotFound) {
		t.Fatalf("an empty archive: %v", err)
	}
	for range 2 { // may be repeated
		if err := Proofs(dbDir, 2, archive.Put, func(k string, why error) { skipped[k] = why }); err != nil {
			t.Fatal(err)
		}
	}
	if got := slices.Sorted(maps.Keys(skipped)); !slices.Equal(got, []string{"14", "15", "16"}) {
		t.Fatalf("skipped %v", skipped)
	}
	if err := service.Close(); err != nil {
		t.Fatal(err)
	}
	// The server that starts on it serves them, and its own check of the
	// database finds all in order.
	service, err = rounds.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	archive = OpenArchive(service.Book().DB)
	got, err := archive.Proof("12")
	if err != nil || got.Message.Proof.Root != types.Hash32(p.Root) || !slices.Equal(got.Members, members) || got.Message.PoetID[0] != 7 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := archive.Proof("13"); err != nil || len(got.Members) != 0 || len(got.Statement()) != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, round := range []string{"14", "1", "x", "-1", "012"} {
		if _, err := archive.Proof(round); !errors.Is(err, poet.ErrNotFound) {
			t.Errorf("round %s: %v", round, err)
		}
	}
}

func TestDirectoriesOfSomethingElse(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadKey(dir); err == nil {
		t.Error("a key out of nothing")
	}
	for _, content := range [][]byte{nil, []byte("hello"), bytes.Repeat([]byte{1}, 68), make([]byte, maxState+1)} {
		if err := os.WriteFile(filepath.Join(dir, stateFile), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if key, err := ReadKey(dir); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%x gave the key %x, %v", content, key, err)
		}
	}
	never := func(Proof) error { t.Error("a proof out of nothing"); return nil }
	if err := Proofs(dir, 1, never, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no database: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, proofsDir), []byte("file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Proofs(dir, 1, never, nil); err == nil {
		t.Error("a file is no database")
	}
}

// Whatever is stored: no panic, and what is read is all that is there.
func FuzzParse(f *testing.F) {
	good, _, _ := madeProof(f, "12", 3)
	f.Add("12", good)
	f.Add("0", []byte{})
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		p, err := parse(key, value)
		if err != nil {
			return
		}
		var w xdrWriter
		w.proof(p.Message.Proof, p.Members, p.Message.PoetID[:], key)
		if !bytes.Equal(w.Bytes(), value) {
			t.Fatalf("%x is read as %x", value, w.Bytes())
		}
	})
}

func prove(t testing.TB, statement []byte, leaves uint64) types.PoetProof {
	t.Helper()
	const k = 2
	p := posw.NewProver(statement, k)
	kept := p.Advance(leaves, nil)
	proof, err := p.Prove(bytes.NewReader(kept), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

// A round's registrations come in order, whole, and what no node can have sent is
// named. Not a byte of the reference's is changed.
func TestRegistrationsAreRead(t *testing.T) {
	dbDir := t.TempDir()
	want := map[[32]byte][32]byte{}
	write := func(round string, put func(*leveldb.DB) error) {
		t.Helper()
		db, err := leveldb.OpenFile(filepath.Join(dbDir, roundsDir, round), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(put(db), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	write("17", func(db *leveldb.DB) error {
		for i := range 2*batchSize + 100 {
			key, challenge := [32]byte{byte(i), byte(i >> 8), 1}, [32]byte{byte(i >> 8), byte(i), 2}
			want[key] = challenge
			if err := db.Put(key[:], challenge[:], nil); err != nil {
				return err
			}
		}
		return errors.Join(db.Put(make([]byte, 32), []byte("short"), nil), db.Put([]byte("x"), make([]byte, 32), nil))
	})
	write("4", func(*leveldb.DB) error { return nil })
	if err := os.MkdirAll(filepath.Join(dbDir, roundsDir, "04"), 0o700); err != nil {
		t.Fatal(err)
	}
	var odd []string
	looked := filepath.Join(dbDir, roundsDir, "18") // the reference looked for it, and there was none
	if err := os.MkdirAll(looked, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(looked, "LOCK"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	numbers, err := Rounds(dbDir, func(name string, _ error) { odd = append(odd, name) })
	if err != nil || !slices.Equal(numbers, []uint32{4, 17, 18}) || !slices.Equal(odd, []string{"04"}) {
		t.Fatalf("rounds %v, odd %v, %v", numbers, odd, err)
	}
	got, skipped, last := map[[32]byte][32]byte{}, 0, [32]byte{}
	err = Registrations(dbDir, 17, func(batch []Registration) error {
		for _, r := range batch {
			if bytes.Compare(last[:], r.NodeID[:]) >= 0 {
				t.Fatalf("%x comes after %x", r.NodeID, last)
			}
			last, got[r.NodeID] = r.NodeID, r.Challenge
		}
		return nil
	}, func(error) { skipped++ })
	if err != nil || skipped != 2 || !maps.Equal(got, want) {
		t.Fatalf("%d of %d registrations, %d skipped, %v", len(got), len(want), skipped, err)
	}
	for _, empty := range []uint32{4, 18} {
		if err := Registrations(dbDir, empty, func([]Registration) error { return errors.New("none") }, nil); err != nil {
			t.Fatalf("round %d, which is empty: %v", empty, err)
		}
	}
	if err := os.Remove(filepath.Join(dbDir, roundsDir, "17", "CURRENT")); err != nil {
		t.Fatal(err)
	}
	if err := Registrations(dbDir, 17, func([]Registration) error { return nil }, nil); err == nil {
		t.Fatal("a damaged round is taken for an empty one")
	}
	if none, err := Rounds(t.TempDir(), nil); err != nil || none != nil {
		t.Fatalf("no rounds: %v, %v", none, err)
	}
}
