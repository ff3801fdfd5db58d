package smeshing

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tweedle/base/durable"
	"tweedle/edges/store"
	"tweedle/proofs/post"
	"tweedle/values/types"
)

// refused checks that a smesher is refused at start, in one line with all the
// words, and that nothing was changed.
func (r *rig) refused(cfg Config, words ...string) {
	r.t.Helper()
	_, err := New(cfg)
	if err == nil {
		r.t.Errorf("nothing is refused, want %q", words)
		return
	}
	for _, w := range append(words, r.space()) {
		if !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "\n") {
			r.t.Errorf("the error does not say %q in one line: %v", w, err)
		}
	}
}

// smeshed runs the rig until it has published in two epochs, and stops it.
func (r *rig) smeshed(cfg Config) {
	r.t.Helper()
	r.add("poet", 500)
	r.start(cfg)
	r.until(3)
	r.stop()
	if len(r.all()) != 2 {
		r.t.Fatalf("%d ATXs in two epochs\n%s", len(r.all()), r.logged())
	}
}

func TestImpossibleUnitsAreRefusedAtStart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for _, units := range []uint32{1, 5, 1_000_000} {
			cfg := r.config("poet")
			cfg.NumUnits = units
			if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "the network allows 2 to 4") {
				t.Errorf("%d units: %v", units, err)
			}
		}
	})
}

func TestUnitsOfASpaceDoNotChange(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		cfg := r.config("poet")
		cfg.NumUnits = 3
		r.smeshed(cfg)
		for _, units := range []uint32{2, 4} {
			cfg.NumUnits = units
			r.refused(cfg, "was made for 3 units", "--units 3")
		}
		for _, units := range []uint32{3, 0} { // 0 is whatever is there
			cfg.NumUnits = units
			if s, err := New(cfg); err != nil || s.cfg.NumUnits != 3 {
				t.Errorf("%d units: %v", units, err)
			}
		}
	})
}

func TestASpaceOfAnotherIdentityOrNetworkIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.smeshed(r.config("poet"))
		name := filepath.Join(r.space(), post.MetadataFile)
		original, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for field, tc := range map[string]struct {
			value any
			words []string
		}{
			"NodeId":        {make([]byte, 32), []string{"identity", "identity.key"}},
			"LabelsPerUnit": {512, []string{"another network"}},
		} {
			var m map[string]any
			if err := json.Unmarshal(original, &m); err != nil {
				t.Fatal(err)
			}
			m[field] = tc.value
			b, _ := json.Marshal(m)
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			r.refused(r.config("poet"), tc.words...)
		}
	})
}

// The space is lost: that costs no more than the time to fill it again, and it
// is bound to what the identity is bound to.
func TestALostSpaceIsFilledAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.smeshed(r.config("poet"))
		labels, err := os.ReadFile(filepath.Join(r.space(), "postdata_0.bin"))
		if err != nil {
			t.Fatal(err)
		}
		// A file that is cut short, or has gone, is found at start.
		if err := os.Truncate(filepath.Join(r.space(), "postdata_0.bin"), 100); err != nil {
			t.Fatal(err)
		}
		r.refused(r.config("poet"), "postdata_0.bin", "to have it filled again")
		if err := os.Remove(filepath.Join(r.space(), post.MetadataFile)); err != nil {
			t.Fatal(err)
		}
		r.refused(r.config("poet"), post.MetadataFile, "to have it filled again")
		if err := os.RemoveAll(r.space()); err != nil {
			t.Fatal(err)
		}
		r.refused(r.config("poet"), "is gone", "create the empty folder") // maybe it is not mounted
		if err := os.Mkdir(r.space(), 0o700); err != nil {
			t.Fatal(err)
		}
		r.start(r.config("poet"))
		r.until(6)
		if got, err := os.ReadFile(filepath.Join(r.space(), "postdata_0.bin")); err != nil || !slices.Equal(got, labels) {
			t.Errorf("other labels were made: %v", err)
		}
		if n := len(r.all()); n != 4 && n != 5 {
			t.Errorf("%d ATXs in five epochs, of which one may be lost\n%s", n, r.logged())
		}
		r.chained()
	})
}

// Files of the right size with the wrong labels are named when the node is about to prove
// them, each of them, and cost no epoch while enough is left.
func TestWrongFilesAreNamedBeforeTheyAreProved(t *testing.T) {
	for what, tc := range map[string]struct {
		change func(file func(int) string) error
		named  []int
	}{
		"swapped": {func(file func(int) string) error {
			return errors.Join(os.Rename(file(1), file(9)), os.Rename(file(2), file(1)), os.Rename(file(9), file(2)))
		}, []int{1, 2}},
		"flipped": {func(file func(int) string) error {
			b, err := os.ReadFile(file(3))
			for i := range b {
				b[i] ^= 1
			}
			return errors.Join(err, os.WriteFile(file(3), b, 0o600))
		}, []int{3}},
		"unreadable": {func(file func(int) string) error { // an error of the disk, to who reads it
			return errors.Join(os.Rename(file(0), file(9)), os.Mkdir(file(0), 0o700))
		}, []int{0}},
	} {
		inBubble(t, func(t *testing.T, r *rig) {
			rules := r.network.Activation(r.params)
			setup := post.Setup{NodeID: r.id.NodeID(), CommitmentATX: rules.Golden, NumUnits: 2, MaxFileSize: 1024}
			_, err := post.Init(r.space(), rules.Post, setup, post.InitOptions{})
			must(t, err)
			r.add("poet", 500)
			r.start(r.config("poet"))
			r.until(2)
			if strings.Contains(r.logged(), "space is damaged") {
				t.Fatalf("%s: nothing was, yet\n%s", what, r.logged())
			}
			before := len(r.all())
			must(t, tc.change(func(n int) string { return filepath.Join(r.space(), fmt.Sprintf("postdata_%d.bin", n)) }))
			r.until(4)
			logged := r.logged()
			for n := range 4 {
				said := false
				for line := range strings.Lines(logged) {
					said = said || strings.Contains(line, "space is damaged") && strings.Contains(line, fmt.Sprintf("postdata_%d.bin", n))
				}
				if said != slices.Contains(tc.named, n) {
					t.Errorf("%s: postdata_%d.bin is named: %t\n%s", what, n, said, logged)
				}
			}
			if what != "unreadable" && len(r.all()) == before {
				t.Errorf("%s: no ATX any more\n%s", what, logged)
			}
		})
	}
}

// chained checks that every ATX but the first builds on the one before it.
func (r *rig) chained() {
	r.t.Helper()
	for i, a := range r.all()[1:] {
		if a.Initial != nil || len(a.PreviousATXs) != 1 || a.PreviousATXs[0] != r.all()[i].ID() {
			r.t.Errorf("the ATX of epoch %d does not build on the one of epoch %d", a.PublishEpoch, r.all()[i].PublishEpoch)
		}
	}
}

// local.db is lost: the space says what it is, and the network what we were.
func TestALostRecordCostsAnEpochAndNotTheSpace(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		cfg := r.config("poet")
		cfg.NumUnits = 4
		r.smeshed(cfg)
		if err := r.db.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"local.db", "local.db-wal", "local.db-shm"} {
			_ = os.Remove(filepath.Join(r.dir, "node", name))
		}
		before, err := os.Stat(filepath.Join(r.space(), "postdata_0.bin"))
		if err != nil {
			t.Fatal(err)
		}
		r.open()
		r.start(r.config("poet")) // nobody remembers the units
		r.until(6)
		if after, err := os.Stat(filepath.Join(r.space(), "postdata_0.bin")); err != nil || !after.ModTime().Equal(before.ModTime()) {
			t.Errorf("the space was touched: %v", err)
		}
		if n := len(r.all()); n != 4 && n != 5 {
			t.Errorf("%d ATXs in five epochs, of which one may be lost\n%s", n, r.logged())
		}
		for _, a := range r.all() {
			if units := a.NIPosts[0].Posts[0].NumUnits; units != 4 {
				t.Errorf("the ATX of epoch %d has %d units", a.PublishEpoch, units)
			}
		}
		r.chained()
	})
}

// A space that is bound to an ATX which nobody knows is not smeshed with, and
// the reason is told.
func TestASpaceBoundToAnUnknownATXIsNamed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		rules := r.network.Activation(r.params)
		setup := post.Setup{NodeID: r.id.NodeID(), CommitmentATX: types.ATXID{9}, NumUnits: 2}
		if _, err := post.Init(r.space(), rules.Post, setup, post.InitOptions{}); err != nil {
			t.Fatal(err)
		}
		r.add("poet", 500)
		r.start(r.config("poet"))
		time.Sleep(time.Minute)
		if st := r.Status(); !strings.Contains(st.Error, "which is not known here") {
			t.Errorf("status %+v", st)
		}
	})
}

// While "tweedle post" works on the folder, the node waits, and uses what it made.
func TestSpaceThatIsFilledByAnotherProcessIsWaitedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		rules := r.network.Activation(r.params)
		must(t, os.MkdirAll(r.space(), 0o700))
		lock, err := durable.Lock(r.space())
		must(t, err)
		r.add("poet", 500)
		r.start(r.config("poet"))
		time.Sleep(5 * time.Minute)
		if st := r.Status(); !strings.Contains(st.Error, "another process uses this directory") {
			t.Errorf("status %+v", st)
		}
		setup := post.Setup{NodeID: r.id.NodeID(), CommitmentATX: rules.Golden, NumUnits: 2, Part: post.Part{From: 0, To: 1}, MaxFileSize: 2048}
		_, err = post.Init(r.space(), rules.Post, setup, post.InitOptions{})
		must(t, err)
		must(t, lock.Close())
		r.until(13)
		if len(r.all()) == 0 {
			t.Errorf("it does not go on\n%s", r.logged())
		}
		if m, err := post.ReadMetadata(r.space()); err != nil || m.MaxFileSize != 2048 {
			t.Errorf("files of %d bytes, %v: the part was not taken", m.MaxFileSize, err)
		}
	})
}

// Labels are not begun that do not fit, and it goes on when there is room.
func TestASpaceThatDoesNotFitWaitsForRoom(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("SKIPPED: mounting a small disk needs root: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	inBubble(t, func(t *testing.T, r *rig) {
		r.add("poet", 500)
		cfg := r.config("poet")
		cfg.Dir, cfg.NumUnits = filepath.Join(dir, "post"), 4 // 8 KiB of labels, and their metadata
		r.start(cfg)
		time.Sleep(10 * time.Minute)
		if st := r.Status(); !strings.Contains(st.Error, "needs 136.0 KiB more, its disk has 64.0 KiB free") || !strings.Contains(st.Error, "it goes on by itself") {
			t.Errorf("status %+v", st)
		}
		if files, err := os.ReadDir(cfg.Dir); err != nil || len(files) != 0 {
			t.Errorf("something was begun: %v, %v", files, err)
		}
		if n := strings.Count(r.logged(), "it goes on by itself"); n > 11 {
			t.Errorf("%d lines in ten minutes", n)
		}
		must(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=1m"))
		r.until(13)
		if len(r.all()) == 0 {
			t.Errorf("it does not go on\n%s", r.logged())
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheSpreadOfFetchesIsEven(t *testing.T) {
	const n, gap = 10_000, 500 * time.Second
	var tenths [10]int
	for i := range n {
		d := fetchDelay(types.NodeID(types.Sum(fmt.Append(nil, i))), gap)
		tenths[d*10/(gap/50)]++
	}
	for i, k := range tenths {
		if k < n/10*8/10 || k > n/10*12/10 {
			t.Errorf("%d of %d smeshers are in tenth %d", k, n, i)
		}
	}
}

// The record is durable before the work that follows from it: whenever we stop,
// the same ATX is made.
func TestARestartAtAnyMomentPublishesOneATXForAnEpoch(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add("poet", 500)
		for range 24 {
			r.start(r.config("poet"))
			time.Sleep(11 * time.Second)
			r.stop()
			if err := r.db.Close(); err != nil {
				t.Fatal(err)
			}
			r.open()
		}
		seen := make(map[types.Epoch]types.ATXID)
		for _, a := range r.all() {
			if id, ok := seen[a.PublishEpoch]; ok && id != a.ID() {
				t.Errorf("two ATXs in epoch %d", a.PublishEpoch)
			}
			seen[a.PublishEpoch] = a.ID()
		}
		if len(seen) < 2 {
			t.Errorf("published in %d epochs\n%s", len(seen), r.logged())
		}
		var err error
		if _, err = r.db.LastATX(r.id.NodeID()); err == store.ErrNotFound {
			t.Error(err)
		}
	})
}
