package store

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"zombiezen.com/go/sqlite"

	"tweedle/base/durable/durabletest"
	"tweedle/edges/store/storetest"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// SQLite copies its log into its file at a commit, and would not tell that the
// disk failed meanwhile.
func TestACheckpointThatFailsIsTold(t *testing.T) {
	t.Parallel()
	step := types.ActiveSet(make([]types.ATXID, 8000))
	for file, write := range map[string]func(db *DB, n int) error{
		"state.db": func(db *DB, n int) error {
			return db.write(func(c *sqlite.Conn) error { h := hash(n); return addObject(c, KindActiveSet, h[:], codec.Encode(step)) })
		},
		"local.db": func(db *DB, n int) error { return db.SaveStep(types.NodeID{}, "step", step) },
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			// play writes until the log has been copied, or a write fails.
			play := func(fault durabletest.Fault) (done []string, err, told error) {
				dir := filepath.Join(t.TempDir(), "node")
				disk := got[*storetest.Disk](t)(storetest.Watch(dir))
				db := openAt(t, dir)
				disk.Writes.Set(fault)
				for n := 0; err == nil && !slices.Contains(done, "sync "+file); n++ {
					err = write(db, n)
					done = disk.Writes.Done()
				}
				select {
				case told = <-db.Failed():
				default:
				}
				return done, err, told
			}
			done, err, _ := play(durabletest.Fault{})
			must(t, err)
			first := slices.Index(done, "write "+file)
			if first < 2 || done[first-1] != "sync "+file+"-wal" {
				t.Fatalf("the log was not synced before it was copied: %v", done)
			}
			for _, at := range []int{first - 1, first, len(done) - 2, len(done) - 1} {
				if _, err, told := play(durabletest.Fault{At: at + 1, Err: syscall.EIO}); !errors.Is(err, ErrBroken) || told == nil {
					t.Errorf("operation %d (%s) fails: %v, and told is %v", at+1, done[at], err, told)
				}
			}
		})
	}
}

// A disk that fails and one that loses power do what package storetest says.
func TestTheDiskOfTheTestsFails(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "node")
	disk := got[*storetest.Disk](t)(storetest.Watch(dir))
	db := openAt(t, dir)
	guard := func(slot uint64) error { return db.Guard(signing.Hare, types.NodeID{}, slot, hash(int(slot))) }
	must(t, guard(1))
	for _, tc := range []struct {
		fault durabletest.Fault
		class error
	}{
		{durabletest.Fault{At: 1, Err: syscall.ENOSPC}, ErrFull},
		{durabletest.Fault{At: 1, Err: syscall.ENOSPC, How: durabletest.Torn}, ErrFull},
		{durabletest.Fault{At: 1, Err: syscall.EIO}, ErrBroken},
		{durabletest.Fault{At: 1}, ErrBroken},
	} {
		disk.Writes.Set(tc.fault)
		if err := guard(2); !errors.Is(err, tc.class) {
			t.Errorf("%+v: %v", tc.fault, err)
		}
	}
	disk.Writes.Set(durabletest.Fault{})
	must(t, guard(3))
	for _, loss := range storetest.Losses() {
		left := t.TempDir()
		must(t, disk.AfterLoss(left, loss, rand.New(rand.NewPCG(1, 2))))
		after := openAt(t, left)
		if err := after.Guard(signing.Hare, types.NodeID{}, 3, hash(4)); !errors.Is(err, ErrConflict) {
			t.Errorf("loss %d: what was durable is gone: %v", loss, err)
		}
	}
}
