package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// playRole is what this test binary does when a test starts it again: it
// writes until it is killed, and says what has been acknowledged.
func playRole(dir string) {
	t := &testing.T{}
	db, err := Open(dir, network)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	next := types.Layer(0)
	if last, err := db.LastApplied(); err == nil {
		next = last.Layer + 1
	}
	for ; ; next++ {
		for _, err := range []error{
			db.Guard(signing.Certify, types.NodeID{}, uint64(next), hash(int(next))),
			db.AddPoetProof(sampleProof(int(next), 10)),
			db.Apply(layerResult(t, db, next, 5)),
		} {
			if err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
		}
		fmt.Println("applied", next)
	}
}

// whole checks that every applied layer is there with all its parts, and
// nothing of a later one.
func whole(t testing.TB, db *DB) (last types.Layer, any bool) {
	t.Helper()
	layers := layersOf(t, db)
	for i, l := range layers {
		if l.Layer != types.Layer(i) {
			t.Fatalf("layer %v at place %d", l.Layer, i)
		}
		txs := got[[]Tx](t)(db.LayerTransactions(l.Layer))
		block := got[*types.Block](t)(db.Block(l.Block))
		cert := got[*types.Certificate](t)(db.Certificate(l.Layer))
		if len(txs) != l.Txs || len(block.Txs) != l.Txs || cert.Decision.StateRoot != l.StateRoot || len(got[[]Reward](t)(db.LayerRewards(l.Layer))) != 1 {
			t.Fatalf("layer %v is in pieces", l.Layer)
		}
		if a := got[Account](t)(db.Account(address(int(l.Layer)))); a.Layer != l.Layer {
			t.Fatalf("account of layer %v is of layer %v", l.Layer, a.Layer)
		}
		last, any = l.Layer, true
	}
	for _, table := range []string{"accounts", "tx_results", "rewards"} {
		must(t, db.read(func(c *sqlite.Conn) error {
			late, err := exists(c, table+" WHERE layer >= ?", int64(len(layers)))
			if late {
				t.Fatalf("%s has rows of a layer that is not applied", table)
			}
			return err
		}))
	}
	return last, any
}

func TestKillingTheProcessLosesNothingThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	acked := -1
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STORE_TEST_ROLE="+dir)
		out := got[*bufio.Scanner](t)(func() (*bufio.Scanner, error) {
			r, err := cmd.StdoutPipe()
			return bufio.NewScanner(r), err
		}())
		must(t, cmd.Start())
		for range 1 + rng.IntN(8) {
			if !out.Scan() {
				t.Fatal("the writer stopped by itself")
			}
			if _, err := fmt.Sscanf(out.Text(), "applied %d", &acked); err != nil {
				t.Fatalf("the writer said %q", out.Text())
			}
		}
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		for out.Scan() { // what it still said before it died
			_, _ = fmt.Sscanf(out.Text(), "applied %d", &acked)
		}

		db := openAt(t, dir)
		if last, ok := whole(t, db); !ok || int(last) < acked || int(last) > acked+1 {
			t.Fatalf("round %d: layer %d was acknowledged, %v is there", round, acked, last)
		}
		for n := range acked + 1 {
			if err := db.Guard(signing.Certify, types.NodeID{}, uint64(n), hash(-1)); !errors.Is(err, ErrConflict) {
				t.Fatalf("round %d: the guard forgot slot %d: %v", round, n, err)
			}
			got[*types.PoetProofMessage](t)(db.PoetProof(sampleProof(n, 10).Proof.Ref()))
		}
		must(t, db.Close())
	}
}

// copyDir copies the files of a directory as the disk would have them if the
// power failed now and wal bytes of the named log had reached it.
func copyDir(t *testing.T, from, log string, wal []byte) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{"state.db", "state.db-wal", "local.db", "local.db-wal"} {
		b := got[[]byte](t)(os.ReadFile(filepath.Join(from, name)))
		if name == log {
			b = wal
		}
		must(t, os.WriteFile(filepath.Join(to, name), b, 0o600))
	}
	return to
}

func TestPowerLossTakesWholeLayersFromTheEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openAt(t, dir)
	walSize := func() int { return len(got[[]byte](t)(os.ReadFile(filepath.Join(dir, "state.db-wal")))) }
	var ends []int // of the log after each layer
	for l := range types.Layer(6) {
		must(t, db.Apply(layerResult(t, db, l, 3)))
		ends = append(ends, walSize())
	}
	wal := got[[]byte](t)(os.ReadFile(filepath.Join(dir, "state.db-wal")))
	rng := rand.New(rand.NewPCG(3, 4))
	for cut := ends[0]; cut <= len(wal); cut += 1 + rng.IntN(len(wal)/12) {
		torn := append([]byte{}, wal[:cut]...)
		switch rng.IntN(3) {
		case 0: // the rest was allocated, never written
			torn = append(torn, make([]byte, len(wal)-cut)...)
		case 1: // the last block was half written
			for i := max(ends[0], cut-100); i < cut; i++ {
				torn[i] = byte(rng.Uint32())
				cut = min(cut, i)
			}
		}
		want := -1
		for _, end := range ends {
			if end <= cut {
				want++
			}
		}
		copied := openAt(t, copyDir(t, dir, "state.db-wal", torn))
		last, _ := whole(t, copied)
		if int(last) < want {
			t.Fatalf("log cut at %d: layer %d was in it, %v is left", cut, want, last)
		}
		must(t, copied.Apply(layerResult(t, copied, last+1, 1))) // and it goes on
		must(t, copied.Close())
	}
}

func TestTheGuardNeedsNoByteThatIsWrittenAfterItReturned(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openAt(t, dir)
	for slot := range uint64(8) {
		must(t, db.Guard(signing.Hare, types.NodeID{}, slot, hash(int(slot))))
		wal := got[[]byte](t)(os.ReadFile(filepath.Join(dir, "local.db-wal")))
		copied := openAt(t, copyDir(t, dir, "local.db-wal", append(wal, make([]byte, 512)...)))
		if err := copied.Guard(signing.Hare, types.NodeID{}, slot, hash(-1)); !errors.Is(err, ErrConflict) {
			t.Fatalf("slot %d: %v", slot, err)
		}
		must(t, copied.Close())
	}
}

// The disk fills up at every page that Apply and Guard need, one after the
// other.
func TestAFullDiskChangesNothing(t *testing.T) {
	t.Parallel()
	db := openAt(t, t.TempDir())
	genesis(t, db, 0)
	limit := func(c *sqlite.Conn, pages int) {
		must(t, sqlitex.ExecuteTransient(c, fmt.Sprintf("PRAGMA max_page_count = %d", pages), nil))
	}
	pages := func(c *sqlite.Conn) int { return got[int](t)(pragmaInt(c, "page_count")) }
	l := layerResult(t, db, 1, 150)
	refused := 0
	for now := pages(db.state); ; refused++ {
		limit(db.state, now+refused)
		err := db.Apply(l)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "state.db") {
			t.Fatalf("got %v", err)
		}
		equal(t, got[Layer](t)(db.LastApplied()).Layer, types.Layer(0))
	}
	if refused < 5 {
		t.Fatalf("only %d writes were refused", refused)
	}
	equal(t, len(got[[]Tx](t)(db.LayerTransactions(1))), 150)

	limit(db.local, pages(db.local))
	slot := uint64(0)
	for ; db.Guard(signing.Hare, types.NodeID{}, slot, hash(1)) == nil; slot++ {
	}
	if err := db.Guard(signing.Hare, types.NodeID{}, slot, hash(1)); !errors.Is(err, ErrFull) {
		t.Fatalf("got %v", err)
	}
	limit(db.local, 1<<20)
	must(t, db.Guard(signing.Hare, types.NodeID{}, slot, hash(2))) // the refused one was not recorded
	if got[bool](t)(db.RolledBack(types.NodeID{})) {
		t.Fatal("a refused signature was counted")
	}
}

// Every fault has its class, ends up with whoever waits for faults, and says in
// one line what to do. Answers do not.
func TestFaultsAreToldFromAnswers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openAt(t, dir)
	told := func() error {
		select {
		case err := <-db.Failed():
			return err
		default:
			return nil
		}
	}
	_, missing := db.Block(types.BlockID{1})
	must(t, db.Guard(signing.Hare, types.NodeID{}, 1, hash(1)))
	for _, err := range []error{missing, db.Guard(signing.Hare, types.NodeID{}, 1, hash(2))} {
		if err == nil || Fatal(err) || told() != nil {
			t.Errorf("an answer is a fault: %v", err)
		}
	}
	code := func(c sqlite.ResultCode) error { return c.ToError() }
	for _, tc := range []struct {
		err, class error
		words      string
	}{
		{code(sqlite.ResultFull), ErrFull, "free some"},
		{code(sqlite.ResultIOErrFsync), ErrBroken, "system's log"},
		{code(sqlite.ResultBusySnapshot), ErrBusy, "a shell or a backup"},
		{code(sqlite.ResultCantOpen), ErrAccess, "give the node's user access"},
		{code(sqlite.ResultReadOnlyDBMoved), ErrAccess, "give the node's user access"},
		{code(sqlite.ResultPerm), ErrAccess, "give the node's user access"},
		{code(sqlite.ResultCorrupt), ErrCorrupt, "delete state.db"},
		{code(sqlite.ResultMisuse), nil, "state.db"}, // and whatever else we have not thought of
		{errors.New("layer 7 cannot extend layer 5"), nil, "layer 7"},
	} {
		err := db.write(func(*sqlite.Conn) error { return tc.err })
		if !Fatal(err) || tc.class != nil && !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.words) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v", tc.err, err)
		}
		if told() == nil {
			t.Errorf("%v: nobody is told", tc.err)
		}
		if err := db.read(func(*sqlite.Conn) error { return tc.err }); !Fatal(err) || told() == nil {
			t.Errorf("%v while reading: %v", tc.err, err)
		}
	}
}

// An operator's shell holds the file: the call waits, and then says so.
func TestAFileThatSomebodyElseHoldsIsNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openAt(t, dir)
	db.state.SetBusyTimeout(50 * time.Millisecond)
	shell := got[*sqlite.Conn](t)(sqlite.OpenConn(filepath.Join(dir, "state.db"), sqlite.OpenReadWrite))
	must(t, sqlitex.ExecuteTransient(shell, "BEGIN IMMEDIATE", nil))
	err := db.Apply(LayerResult{Layer: 1})
	must(t, shell.Close())
	if !errors.Is(err, ErrBusy) || !Fatal(err) || !strings.Contains(err.Error(), "state.db") {
		t.Fatalf("got %v", err)
	}
	must(t, db.Apply(LayerResult{Layer: 1}))
}

// The limit of open files is one of the whole process, so another process plays.
func TestTooFewFilesAreNamed(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	named := 0
	for limit := 10; limit <= 24; limit++ { // each is met at another file
		cmd := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf("ulimit -n %d; exec %s", limit, os.Args[0]))
		cmd.Env = append(os.Environ(), "STORE_TEST_ROLE="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if said := string(out); strings.Contains(said, "too many open files") && strings.Contains(said, fmt.Sprintf("the limit is %d", limit)) && strings.Contains(said, "ulimit -n") {
			named++
		} else if strings.Contains(said, "error") || err != nil {
			t.Errorf("%d files: %v, %q", limit, err, said)
		}
	}
	if named < 3 {
		t.Errorf("only %d limits were met", named)
	}
}

func TestAFullDiskAtStartIsOneLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("NOT CHECKED: mounting a small disk needs root: %v", err)
	}
	defer func() { must(t, syscall.Unmount(dir, 0)) }()
	_, err := Open(filepath.Join(dir, "node"), network)
	if !errors.Is(err, ErrFull) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v", err)
	}
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=8m"))
	must(t, openAt(t, filepath.Join(dir, "node")).Close())
}

func TestADirectoryThatIsNotOursIsRefused(t *testing.T) {
	t.Parallel()
	other := types.NetworkID(time.Unix(1_800_000_000, 0), "other")
	for name, tc := range map[string]struct {
		spoil func(dir string) string // returns the directory to open
		want  []string
	}{
		"another network": {
			func(dir string) string { must(t, got[*DB](t)(Open(dir, other)).Close()); return dir },
			[]string{other.String(), network.String(), "choose another directory"},
		},
		"a newer schema": {
			func(dir string) string {
				db := got[*DB](t)(Open(dir, network))
				must(t, sqlitex.ExecuteTransient(db.state, "PRAGMA user_version = 99", nil))
				must(t, db.Close())
				return dir
			},
			[]string{"state.db", "schema 99", "newer version"},
		},
		"a schema that is too old": {
			func(dir string) string {
				db := got[*DB](t)(Open(dir, network))
				must(t, sqlitex.ExecuteTransient(db.state, "PRAGMA user_version = 5", nil))
				must(t, db.Close())
				return dir
			},
			[]string{"state.db", "schema 5", "delete state.db"},
		},
		"another program's file": {
			func(dir string) string {
				c := got[*sqlite.Conn](t)(sqlite.OpenConn(dir + "/local.db"))
				must(t, sqlitex.ExecuteScript(c, "CREATE TABLE x (y); PRAGMA user_version = 1;", nil))
				must(t, c.Close())
				return dir
			},
			[]string{"local.db", "another program"},
		},
		"no database at all": {
			func(dir string) string {
				must(t, os.WriteFile(dir+"/state.db", []byte(strings.Repeat("not a database", 100)), 0o600))
				return dir
			},
			[]string{"state.db", "corrupt", "delete state.db"},
		},
		"a file in the way": {
			func(dir string) string {
				must(t, os.WriteFile(dir+"/file", nil, 0o600))
				return dir + "/file"
			},
			[]string{"cannot be written", "not a directory"},
		},
		"nowhere to write": {
			func(string) string { return "/proc/tweedle" },
			[]string{"/proc/tweedle", "cannot be written"},
		},
		"in use": {
			func(dir string) string { openAt(t, dir); return dir },
			[]string{"in use by another process"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := Open(tc.spoil(t.TempDir()), network)
			if err == nil {
				_ = db.Close()
				t.Fatal("it was opened")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q has more than one line", err)
			}
		})
	}
}

// fill puts something into every table.
func fill(t testing.TB, db *DB) LayerResult {
	genesis(t, db, 0)
	l := layerResult(t, db, 1, 4)
	must(t, db.Apply(l))
	must(t, db.AddPoetProof(sampleProof(1, 10)))
	must(t, db.AddBallot(&types.Ballot{Layer: 1, EpochData: &types.EpochData{}}))
	must(t, db.AddActiveSet(types.ActiveSet{types.ATXID(hash(1))}))
	must(t, db.SaveWaiting([]types.Transaction{raw(1)}))
	must(t, db.SaveStep(types.NodeID{}, "step", sampleATX(1, 1, 1)))
	must(t, db.Guard(signing.Hare, types.NodeID{}, 1, hash(1)))
	return l
}

// answers reads everything that fill wrote, in every way there is.
func answers(db *DB, l LayerResult) map[string]func() (any, error) {
	ballot := (&types.Ballot{Layer: 1, EpochData: &types.EpochData{}}).ID()
	proof := sampleProof(1, 10)
	wrap := func(v any, err error) (any, error) { return v, err }
	return map[string]func() (any, error){
		"atx":       func() (any, error) { return wrap(db.ATX(smesher1.ID())) },
		"record":    func() (any, error) { return wrap(db.ATXRecord(smesher1.ID())) },
		"epoch":     func() (any, error) { return wrap(db.EpochATXRecords(1)) },
		"highest":   func() (any, error) { return wrap(db.HighestATX(5)) },
		"proof":     func() (any, error) { return wrap(db.PoetProof(proof.Proof.Ref())) },
		"statement": func() (any, error) { return wrap(db.PoetProofOf(proof.Statement)) },
		"ids":       func() (any, error) { return wrap(db.EpochATXs(1)) },
		"ballot":    func() (any, error) { return wrap(db.Ballot(ballot)) },
		"ballots":   func() (any, error) { return wrap(db.LayerBallots(1)) },
		"set":       func() (any, error) { return wrap(db.ActiveSet(types.ActiveSet{types.ATXID(hash(1))}.Hash())) },
		"block":     func() (any, error) { return wrap(db.Block(l.Block.ID())) },
		"layer":     func() (any, error) { return wrap(db.LastApplied()) },
		"cert":      func() (any, error) { return wrap(db.Certificate(1)) },
		"txs":       func() (any, error) { return wrap(db.LayerTransactions(1)) },
		"rewards":   func() (any, error) { return wrap(db.CoinbaseRewards(address(3), 0, 9)) },
		"earned":    func() (any, error) { return wrap(db.Earned(types.NodeID{}, address(3))) },
		"waiting":   func() (any, error) { return wrap(db.Waiting()) },
		"accounts":  func() (any, error) { return wrap(db.Accounts()) },
		"account 1": func() (any, error) { return wrap(db.Account(address(1))) },
		"step":      func() (any, error) { var a types.ATX; err := db.LoadStep(types.NodeID{}, "step", &a); return a, err },
	}
}

// A column of any row changes behind our back.
func TestEveryChangedColumnIsNoticed(t *testing.T) {
	t.Parallel()
	db := openAt(t, t.TempDir())
	l := fill(t, db)
	for _, tc := range []struct{ table, answer string }{
		{"objects WHERE kind = 1", "atx"}, {"objects WHERE kind = 2", "proof"}, {"objects WHERE kind = 3", "set"},
		{"objects WHERE kind = 4", "ballot"}, {"objects WHERE kind = 5", "block"}, {"objects WHERE kind = 6", "txs"},
		{"atxs", "record"}, {"atxs", "epoch"}, {"atxs", "highest"}, {"atxs", "ids"}, {"poet_proofs", "statement"}, {"ballots", "ballots"},
		{"layers", "layer"}, {"certificates", "cert"}, {"tx_results", "txs"}, {"transactions", "txs"},
		{"rewards", "rewards"}, {"accounts", "accounts"}, {"steps", "step"},
	} {
		t.Run(tc.table+" "+tc.answer, func(t *testing.T) {
			conn := db.state
			if tc.table == "steps" {
				conn = db.local
			}
			table, where, _ := strings.Cut(tc.table, " ")
			var columns []string
			must(t, query(conn, "SELECT name, pk FROM pragma_table_info('"+table+"')", func(r *row) error {
				name := r.text()
				// A key that changes makes the row another one; that case is
				// the test of flipped bits.
				if r.int() == 0 && name != "seq" && name != "id" && name != "layer" && name != "publish_epoch" && name != "statement" && name != "leaves" && name != "coinbase" {
					columns = append(columns, name)
				}
				return nil
			}))
			if len(columns) == 0 {
				t.Fatal("nothing to change")
			}
			read := answers(db, l)[tc.answer]
			if _, err := read(); err != nil {
				t.Fatal(err)
			}
			for _, column := range columns {
				change := fmt.Sprintf("%s = CASE typeof(%[1]s) WHEN 'integer' THEN %[1]s + 1 WHEN 'text' THEN %[1]s || 'x' ELSE CAST(%[1]s || x'00' AS BLOB) END", column)
				must(t, run(conn, "UPDATE "+table+" SET "+change+" "+where))
				if _, err := read(); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "table "+table) {
					t.Errorf("column %s: %v", column, err)
				}
				restore := strings.ReplaceAll(change, column+" + 1", column+" - 1")
				restore = strings.ReplaceAll(restore, column+" || 'x'", fmt.Sprintf("substr(%s, 1, length(%[1]s) - 1)", column))
				restore = strings.ReplaceAll(restore, fmt.Sprintf("CAST(%s || x'00' AS BLOB)", column), fmt.Sprintf("substr(%s, 1, length(%[1]s) - 1)", column))
				must(t, run(conn, "UPDATE "+table+" SET "+restore+" "+where))
				if _, err := read(); err != nil {
					t.Fatalf("column %s was not restored: %v", column, err)
				}
			}
		})
	}
}

// What was signed for one slot turns into another slot's: asking for the first
// would find nothing.
func TestALostRowOfTheGuardIsNoticedAtOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openAt(t, dir)
	must(t, db.Guard(signing.Hare, types.NodeID{}, 1, hash(1)))
	must(t, run(db.local, "UPDATE guard SET slot = 9"))
	must(t, db.Close())
	_, err := Open(dir, network)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "table guard") || !strings.Contains(err.Error(), "newest backup") {
		t.Fatalf("got %v", err)
	}
}

// An object whose row is sound but whose bytes belong to another name.
func TestAnObjectUnderAWrongNameIsNoticed(t *testing.T) {
	t.Parallel()
	db := openAt(t, t.TempDir())
	fill(t, db)
	for _, k := range []Kind{KindATX, KindPoetProof, KindActiveSet, KindBallot, KindBlock, KindTransaction} {
		var body []byte
		must(t, query(db.state, "SELECT body FROM objects WHERE kind = ? LIMIT 1", func(r *row) error { body = r.blob(); return nil }, int64(k)))
		wrong := hash(12345)
		must(t, db.write(func(c *sqlite.Conn) error { return addObject(c, k, wrong[:], body) }))
		_, err := db.Object(k, wrong[:])
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), wrong.String()) {
			t.Errorf("%v: %v", k, err)
		}
	}
	must(t, db.write(func(c *sqlite.Conn) error {
		return put(c, insert, "certificates", int64(9), codec.Encode(&types.Certificate{}))
	}))
	if _, err := db.Certificate(9); !errors.Is(err, ErrCorrupt) {
		t.Errorf("certificate of another layer: %v", err)
	}
}

// Bits flip, or a page turns to zeros, in the files of a stopped node. It may
// refuse to open, or fail to read; it must not answer anything else than what
// was written. Missing is allowed in state.db, which is fetched again, and not
// in local.db.
func TestFlippedBitsAreNeverAnsweredFrom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openAt(t, dir)
	l := fill(t, db)
	want := map[string]any{}
	for name, read := range answers(db, l) {
		want[name] = got[any](t)(read())
	}
	must(t, db.Close())
	rng := rand.New(rand.NewPCG(5, 6))
	noticed := 0
	for range 40 {
		spoilt := t.TempDir()
		file := []string{"state.db", "local.db"}[rng.IntN(2)]
		for _, name := range []string{"state.db", "local.db"} {
			b := got[[]byte](t)(os.ReadFile(filepath.Join(dir, name)))
			if name == file {
				spoil(rng, b)
			}
			must(t, os.WriteFile(filepath.Join(spoilt, name), b, 0o600))
		}
		db, err := Open(spoilt, network)
		if err != nil {
			noticed++
			continue
		}
		for name, read := range answers(db, l) {
			answer, err := read()
			switch {
			case err != nil:
				noticed++
			case reflect.DeepEqual(answer, want[name]):
			case file == "state.db" && shorter(answer, want[name]):
			default:
				t.Errorf("%s: %+v was answered instead of %+v", name, answer, want[name])
			}
		}
		if err := db.Guard(signing.Hare, types.NodeID{}, 1, hash(2)); err == nil {
			t.Error("a damaged guard let a second message pass")
		}
		_ = db.Close() // may fail: the file is damaged
	}
	if noticed == 0 {
		t.Fatal("no damage was noticed")
	}
}

// shorter tells whether a list lost some of its elements.
func shorter(answer, want any) bool {
	switch a := answer.(type) {
	case []ATXRecord:
		return len(a) < len(want.([]ATXRecord))
	case []types.BallotID:
		return len(a) < len(want.([]types.BallotID))
	case []Tx:
		return len(a) < len(want.([]Tx))
	case []Reward:
		return len(a) < len(want.([]Reward))
	case []vm.Entry:
		return len(a) < len(want.([]vm.Entry))
	case Layer:
		return a.Layer < want.(Layer).Layer
	}
	return false
}

func spoil(rng *rand.Rand, b []byte) {
	if rng.IntN(4) == 0 {
		page := rng.IntN(len(b)/4096) * 4096
		clear(b[page : page+4096])
		return
	}
	for range 1 << rng.IntN(7) {
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
	}
}
