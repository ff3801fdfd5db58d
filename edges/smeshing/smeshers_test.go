package smeshing

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/base/telemetry"
	"tweedle/proofs/post"
	"tweedle/values/types"
)

// folder makes the folder of an identity with a key, as "tweedle post init" does.
func (r *rig) folder(name string) string {
	r.t.Helper()
	dir := filepath.Join(r.dir, name)
	must(r.t, os.MkdirAll(dir, 0o700))
	if _, err := Key(filepath.Join(dir, IdentityFile), filepath.Join(dir, PostFolder)); err != nil {
		r.t.Fatal(err)
	}
	return dir
}

// several runs smeshers of some folders until the end of the test.
func (r *rig) several(cfg Config, dirs ...string) *Smeshers {
	r.t.Helper()
	ids, err := Identities(r.network.ID(), dirs...)
	must(r.t, err)
	s, err := NewSmeshers(cfg, ids)
	must(r.t, err)
	r.stored = s.Stored
	var ctx context.Context
	ctx, r.end = context.WithCancel(r.t.Context())
	go func() { r.done <- s.Run(ctx) }()
	return s
}

// by tells in which epochs an identity has published.
func (r *rig) by(id types.NodeID) (epochs []types.Epoch) {
	for _, a := range r.all() {
		if a.SmesherID == id {
			epochs = append(epochs, a.PublishEpoch)
		}
	}
	return epochs
}

func TestIdentitiesSmeshSideBySideAndKeepTheirRecords(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add("poet", 500)
		dirs := []string{r.folder("one"), r.folder("two"), r.folder("three")}
		cfg := r.config("poet")
		cfg.NumUnits = 3                          // of the first
		for e := types.Epoch(3); e <= 5; e += 2 { // with a restart between
			s := r.several(cfg, dirs...)
			r.until(e)
			for i, m := range s.all {
				if got := r.by(m.Signer.NodeID()); len(got) != int(e)-1 || got[len(got)-1] != e-1 {
					t.Errorf("identity %d has published in %v up to epoch %d\n%s", i, got, e-1, r.logged())
				}
				if m.cfg.Evidence != filepath.Join(dirs[i], "evidence") { // the names in it are of PoET and round
					t.Errorf("identity %d keeps its evidence in %s", i, m.cfg.Evidence)
				}
				units := r.params.Post.MinUnits
				if i == 0 {
					units = 3
				}
				if meta, err := post.ReadMetadata(filepath.Join(dirs[i], PostFolder)); err != nil || meta.NumUnits != units {
					t.Errorf("identity %d has %d units, %v", i, meta.NumUnits, err)
				}
			}
			own, others := s.Status()
			if own.ATXEpoch == nil || *own.ATXEpoch != uint32(e)-1 || len(others) != 2 || others[0].Dir != dirs[1] || others[1].NodeID != s.all[2].Signer.NodeID().String() {
				t.Errorf("%+v, %+v", own, others)
			}
			r.stop()
		}
	})
}

// What is wrong with one space at start is named and keeps no other; when it is mended, it goes on.
func TestASpaceThatCannotBeUsedKeepsNoOther(t *testing.T) {
	for name, spoil := range map[string]func(r *rig, dir string) (mend func()){
		"its metadata is damaged": func(r *rig, dir string) func() {
			path := filepath.Join(dir, PostFolder, post.MetadataFile)
			good, err := os.ReadFile(path)
			must(r.t, err)
			must(r.t, os.WriteFile(path, good[:len(good)/2], 0o600))
			return func() { must(r.t, os.WriteFile(path, good, 0o600)) }
		},
		"its folder cannot be read": func(r *rig, dir string) func() {
			path := filepath.Join(dir, PostFolder)
			must(r.t, os.Rename(path, path+".away"))
			must(r.t, os.Symlink(path, path)) // ELOOP, also for root
			return func() {
				must(r.t, os.Remove(path))
				must(r.t, os.Rename(path+".away", path))
			}
		},
	} {
		for bad := range 2 {
			t.Run(name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					r.add("poet", 500)
					dirs := []string{r.folder("one"), r.folder("two")}
					r.several(r.config("poet"), dirs...)
					r.until(3)
					r.stop()
					mend := spoil(r, dirs[bad])
					s := r.several(r.config("poet"), dirs...)
					r.until(5)
					well, ill := s.all[1-bad].Signer.NodeID(), s.all[bad].Signer.NodeID()
					if got := r.by(well); len(got) != 4 {
						t.Errorf("the other has published in %v\n%s", got, r.logged())
					}
					if got := r.by(ill); len(got) != 2 {
						t.Errorf("without its space it has published in %v", got)
					}
					screen, ok, err := s.Screen(time.Now())
					if err != nil || !ok || len(screen.Others) != 1 {
						t.Fatalf("%+v, %v", screen, err)
					}
					all := []telemetry.Smesher{screen, screen.Others[0]}
					if all[bad].NodeID != ill.String() || all[bad].Step.Error == "" || all[bad].Dir != dirs[bad] || all[1-bad].Step.Error != "" {
						t.Errorf("it shows %+v", all)
					}
					if log := r.logged(); strings.Count(log, "an identity cannot smesh") == 0 || !strings.Contains(log, dirs[bad]) || !strings.Contains(log, ill.Short()) {
						t.Errorf("the log does not name it:\n%s", log)
					}
					mend()
					r.until(8)
					if got := r.by(ill); len(got) < 4 || got[len(got)-1] != 7 {
						t.Errorf("mended, it has published in %v\n%s", got, r.logged())
					}
				})
			})
		}
	}
}

// Of a space whose disk is full, and of one whose files are lost while it runs, the others hear nothing.
func TestAFaultWhileItRunsKeepsNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add("poet", 500)
		dirs := []string{r.folder("one"), r.folder("two"), r.folder("full")}
		must(t, os.WriteFile(filepath.Join(dirs[2], "file"), nil, 0o600))
		must(t, os.Symlink(filepath.Join(dirs[2], "file", "no"), filepath.Join(dirs[2], PostFolder))) // no folder can be made there
		s := r.several(r.config("poet"), dirs...)
		r.until(3)
		files, err := filepath.Glob(filepath.Join(dirs[0], PostFolder, "postdata_*.bin"))
		must(t, err)
		for _, f := range files {
			must(t, os.Truncate(f, 16))
		}
		r.until(6)
		if got := r.by(s.all[0].Signer.NodeID()); len(got) != 2 {
			t.Errorf("with its space cut off it has published in %v", got)
		}
		if got := r.by(s.all[1].Signer.NodeID()); len(got) != 5 {
			t.Errorf("the other has published in %v\n%s", got, r.logged())
		}
		own, others := s.Status()
		if own.Smesher.Error == "" || others[0].Smesher.Error != "" || others[1].Smesher.Error == "" {
			t.Errorf("it shows %+v, %+v", own, others)
		}
	})
}

func TestTheSameKeyTwiceIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		one, two, copied := r.folder("one"), r.folder("two"), filepath.Join(r.dir, "copied")
		must(t, os.Mkdir(copied, 0o700))
		key, err := os.ReadFile(filepath.Join(one, IdentityFile))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(copied, IdentityFile), key, 0o600))
		for _, dirs := range [][]string{{one, one}, {one, two, copied}, {two, copied, one}, {one, one + "/../one"}} {
			if _, err := Identities(r.network.ID(), dirs...); err == nil || !strings.Contains(err.Error(), "have the same key") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v: %v", dirs, err)
			}
		}
	})
}

func TestTooManyIdentitiesAreRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		dirs := []string{r.folder("0")}
		for i := 1; i < MaxIdentities; i++ {
			dirs = append(dirs, r.folder(strconv.Itoa(i)))
		}
		if all, err := Identities(r.network.ID(), dirs...); err != nil || len(all) != MaxIdentities {
			t.Errorf("%d, %v", len(all), err)
		}
		if _, err := Identities(r.network.ID(), append(dirs, r.folder("more"))...); err == nil || !strings.Contains(err.Error(), "start another node") {
			t.Errorf("one more: %v", err)
		}
	})
}

// Only the folder of the node itself gets a key: another without is a disk that is not there.
func TestNoKeyIsMadeForAnother(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		one := r.folder("one")
		gone, empty, loop := filepath.Join(r.dir, "gone"), filepath.Join(r.dir, "empty"), filepath.Join(r.dir, "loop")
		must(t, os.Mkdir(empty, 0o700))
		must(t, os.Symlink(loop, loop))
		ids, err := Identities(r.network.ID(), one, gone, empty, loop)
		must(t, err)
		for _, id := range ids[1:] {
			if id.Signer != nil || id.Err == nil || !strings.Contains(id.Err.Error(), id.Dir) || strings.Contains(id.Err.Error(), "\n") {
				t.Errorf("%s: %v", id.Dir, id.Err)
			}
		}
		if left, err := os.ReadDir(empty); err != nil || len(left) != 0 {
			t.Errorf("%v, %v", left, err)
		}
		if _, err := os.Stat(gone); !os.IsNotExist(err) {
			t.Error(err)
		}
		r.add("poet", 500)
		s := r.several(r.config("poet"), one, gone, empty, loop)
		r.until(3)
		if got := r.by(ids[0].Signer.NodeID()); len(got) != 2 {
			t.Errorf("it has published in %v", got)
		}
		if _, others := s.Status(); len(others) != 3 || others[0].Dir != gone || others[0].Smesher.Error == "" || others[0].NodeID != "" {
			t.Errorf("%+v", others)
		}
	})
}

// The only one, and what all share, is wrong: that is an error at start.
func TestWhatIsWrongWithAllIsAnErrorAtStart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		one, two := r.folder("one"), r.folder("two")
		for _, dir := range []string{one, two} {
			must(t, os.Mkdir(filepath.Join(dir, PostFolder), 0o700))
			must(t, os.WriteFile(filepath.Join(dir, PostFolder, post.MetadataFile), []byte("{"), 0o600))
		}
		units := r.config("poet")
		units.NumUnits = 99
		for name, c := range map[string]struct {
			cfg  Config
			dirs []string
			says string
		}{
			"the only one": {r.config("poet"), []string{one}, one},
			"both":         {r.config("poet"), []string{one, two}, one},
			"no PoET":      {r.config(), []string{one, two}, "--poet"},
			"units":        {units, []string{one, two}, "the network allows 2 to 4"},
		} {
			ids, err := Identities(r.network.ID(), c.dirs...)
			must(t, err)
			if _, err := NewSmeshers(c.cfg, ids); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// With one identity the series have no label, with several each has its own, and there are no others.
func TestMetricsNameTheIdentityIfThereAreSeveral(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		one, two := r.folder("one"), r.folder("two")
		for _, dirs := range [][]string{{one}, {one, two, filepath.Join(r.dir, "gone")}} {
			ids, err := Identities(r.network.ID(), dirs...)
			must(t, err)
			s, err := NewSmeshers(r.config("poet"), ids)
			must(t, err)
			r.elsewhere = ids[len(ids)/2].Signer.NodeID()
			registry := telemetry.NewRegistry()
			s.Register(registry, time.Now)
			families, err := registry.Gather()
			must(t, err)
			var text bytes.Buffer
			for _, f := range families {
				if name := f.GetName(); strings.Contains(name, "timestamp") {
					continue
				}
				for _, m := range f.Metric {
					for _, l := range m.Label {
						text.WriteString(strings.ReplaceAll(l.GetValue(), r.dir+"/", "") + " ")
					}
					text.WriteString(strings.TrimPrefix(f.GetName(), "tweedle_node_") + ":")
					text.WriteString(map[float64]string{-1: "none ", 0: "no ", 1: "yes "}[m.GetGauge().GetValue()])
				}
			}
			a := ids[0].Signer.NodeID().Short() + " "
			want := "identity_elsewhere:yes smesher_atx_epoch:none smesher_trouble:no "
			if len(dirs) > 1 {
				b := ids[1].Signer.NodeID().Short() + " "
				lines := []string{a + "X:no ", b + "X:yes ", "gone X:no ", a + "Y:none ", b + "Y:none ", "gone Y:none ", a + "Z:no ", b + "Z:no ", "gone Z:yes "}
				for _, l := range lines {
					l = strings.NewReplacer("X", "identity_elsewhere", "Y", "smesher_atx_epoch", "Z", "smesher_trouble").Replace(l)
					if !strings.Contains(text.String(), l) {
						t.Errorf("%q is not in %q", l, text.String())
					}
				}
				if got := strings.Count(text.String(), ":"); got != len(lines) {
					t.Errorf("%d series", got)
				}
			} else if text.String() != want {
				t.Errorf("%q, want %q", text.String(), want)
			}
		}
	})
}

// Who fills makes room for who proves, who has the next turn, before others that fill; then the
// first goes on. A holder that is stuck keeps nobody.
func TestWhoProvesHasTheNextTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := &turn{stuck: 10 * time.Second}
		var mu sync.Mutex
		var order []string
		begins := func(name string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
		}
		smesher := func() *Smesher { return &Smesher{turn: turns} }
		fill := func(name string, steps int) {
			done := 0
			err := smesher().atTurn(t.Context(), false, func(cancel func() bool) error {
				begins(name)
				for ; done < steps; done++ {
					if cancel() {
						return post.ErrCancelled
					}
					time.Sleep(time.Second)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		prove := func(name string, d time.Duration) {
			if err := smesher().atTurn(t.Context(), true, func(func() bool) error {
				begins(name)
				time.Sleep(d)
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
		begin := time.Now()
		go fill("fills", 100)
		synctest.Wait()
		go fill("waits", 10)
		time.Sleep(20 * time.Second)
		go prove("proves", 5*time.Second)
		synctest.Wait()
		go prove("proves too", 5*time.Second)
		time.Sleep(12 * time.Second)
		mu.Lock()
		if got := strings.Join(order, ", "); got != "fills, proves, proves too, waits" {
			t.Errorf("in order %s", got)
		}
		mu.Unlock()
		prove("last", 0)
		if took := time.Since(begin); took > 34*time.Second {
			t.Errorf("proving waits until %v", took)
		}
		time.Sleep(200 * time.Second)
		go prove("stuck", time.Hour) // as one that reads of a disk that does not answer
		synctest.Wait()
		begin = time.Now()
		prove("goes on", time.Second)
		if took := time.Since(begin); took < 10*time.Second || took > 15*time.Second {
			t.Errorf("one that is stuck keeps others for %v", took)
		}
		fill("goes on too", 3)
		ctx, cancel := context.WithCancel(t.Context())
		held, _ := turns.enter(ctx, true)
		cancel()
		if _, ok := turns.enter(ctx, true); ok || len(turns.queue) != 0 {
			t.Error("who does not wait any more stays in the queue")
		}
		turns.leave(held)
		time.Sleep(2 * time.Hour)
	})
}
