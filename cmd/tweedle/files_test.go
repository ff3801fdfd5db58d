package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tweedle/base/telemetry"
	"tweedle/base/words"
	"tweedle/edges/preset"
	"tweedle/edges/smeshing"
	"tweedle/edges/store"
	"tweedle/services/node"
	"tweedle/services/poet/server"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// What is done to one file of a folder, each time to another copy of the folder.
type damage struct {
	name string
	do   func(path, other, old string) error // other is the file of another folder, old an older copy of this one
}

func harms() []damage {
	replace := func(path, by string) error {
		b, err := os.ReadFile(by)
		if err != nil {
			return err
		}
		return os.WriteFile(path, b, 0o600)
	}
	return []damage{
		{"deleted", func(path, _, _ string) error { return os.Remove(path) }},
		{"emptied", func(path, _, _ string) error { return os.Truncate(path, 0) }},
		{"unreadable", func(path, _, _ string) error { // also for root: a link to itself
			return errors.Join(os.Remove(path), os.Symlink(path, path))
		}},
		{"another's", func(path, other, _ string) error { return replace(path, other) }},
		{"an old copy", func(path, _, old string) error { return replace(path, old) }},
	}
}

// seen is what a start did with a folder.
type seen struct {
	refused  string   // why it did not start; else
	identity string   // under which it did
	facts    []string // what was lost, in words
	warnings []string // what it said
}

// words is a cell of the table.
func (s seen) words(before seen, dir string) string {
	if s.refused != "" {
		return "**refused**: " + plain(s.refused, dir)
	}
	out := []string{"starts"}
	if s.identity != before.identity {
		out = append(out, "as another")
	}
	out = append(out, s.facts...)
	for _, w := range s.warnings {
		if !slices.Contains(before.warnings, w) {
			out = append(out, "says: "+plain(w, dir))
		}
	}
	return strings.Join(slices.Compact(out), "; ")
}

// plain is a message without what differs from run to run.
func plain(text, dir string) string {
	text = strings.ReplaceAll(text, dir, "DIR")
	text = regexp.MustCompile(`\b(0x)?[0-9a-f]{8,}\b(\.\.\.)?`).ReplaceAllString(text, "X")
	return strings.ReplaceAll(strings.ReplaceAll(text, "\n", "; "), "|", "/")
}

// warnings keeps what is said at level warn or above.
type warnings struct {
	mu   sync.Mutex
	said []string
}

func (*warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (w *warnings) WithAttrs([]slog.Attr) slog.Handler         { return w }
func (w *warnings) WithGroup(string) slog.Handler              { return w }

func (w *warnings) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "err" || a.Key == "error" {
			text += ": " + words.Plain(a.Value.String()) // as telemetry.NewLog does
		}
		return true
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.said, text) {
		w.said = append(w.said, text)
	}
	return nil
}

// filesTable does each damage to each file of a folder and returns the rows of the table.
func filesTable(t *testing.T, base, other, old string, start func(dir string) seen, judge func(what string, before, after seen)) string {
	t.Helper()
	copyOf := func() string {
		dir := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(dir, os.DirFS(base)); err != nil {
			t.Fatal(err)
		}
		modes(t, base, dir)
		return dir
	}
	before := start(copyOf())
	if before.refused != "" || len(before.facts) > 0 {
		t.Fatalf("undamaged: %+v", before)
	}
	var rows strings.Builder
	err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(base, path)
		var cells [][2]string // outcome, damages
		for _, damage := range harms() {
			dir := copyOf()
			err := damage.do(filepath.Join(dir, name), filepath.Join(other, name), filepath.Join(old, name))
			if errors.Is(err, fs.ErrNotExist) {
				continue // others have no such file
			}
			if err != nil {
				t.Fatal(err)
			}
			after := start(dir)
			judge(name+" "+damage.name, before, after)
			words := after.words(before, dir)
			if i := slices.IndexFunc(cells, func(c [2]string) bool { return c[0] == words }); i >= 0 {
				cells[i][1] += ", " + damage.name
				continue
			}
			cells = append(cells, [2]string{words, damage.name})
		}
		for _, c := range cells {
			fmt.Fprintf(&rows, "| `%s` | %s | %s |\n", name, c[1], c[0])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows.String()
}

// modes makes those of a copy: os.CopyFS forgets who may not read.
func modes(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(from, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.Chmod(filepath.Join(to, name), info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

func cloneDir(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	modes(t, dir, to)
	return to
}

// The table of docs/files.md is what happens. "make generate" writes it.
func TestEachFileOfANodeAndAPoet(t *testing.T) {
	text := filesHead + "\n## A node\n\n" + tableHead + nodeFiles(t) + "\n## A PoET\n\n" + tableHead + poetFiles(t) + filesTail
	path := filepath.Join(repository, "docs", "files.md")
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, have := strings.Split(text, "\n"), strings.Split(string(doc), "\n")
	for i := range max(len(want), len(have)) {
		if i >= len(want) || i >= len(have) || want[i] != have[i] {
			t.Fatalf("docs/files.md says\n%s\nand what happens is\n%s\n(\"make generate\" writes it anew)", strings.Join(have[min(i, len(have)):min(i+1, len(have))], ""), strings.Join(want[min(i, len(want)):min(i+1, len(want))], ""))
		}
	}
}

const tableHead = "| file | is | what the next start does |\n|---|---|---|\n"

const filesHead = `# What the loss of a file costs

A test does this to each file of a node and of a PoET, one file at a time, starts the program on it, and writes down what happens
("make generate"). Of none of it comes another identity without a word, nor a second signature for what was signed, nor a registration
that is lost without a word, but by an old copy of ` + "`poet.db`" + `, of which only the smeshers' receipts tell. Unreadable is a file that nobody can read, as on a broken disk; another's is that of another node or PoET of
the same network; an old copy is from before the last signature or registration. DIR is the folder, X a number that differs each time.
`

const filesTail = `
A whole folder that is restored from an old copy looks like a program that was off. What that means is in the [README](../README.md#keys-and-data-and-who-trusts-them):
for a node, wait until the epoch after the next begins before you start one. Damage inside labels is found when the space is proved, and before that by "tweedle post verify".
`

// nodeFiles is the table of a node that smeshes and has signed.
func nodeFiles(t *testing.T) string {
	at := t.TempDir()
	network := filepath.Join(at, "network.json")
	mustTweedle(t, "network", "new", "--preset", "test", "--genesis", "+30m", "--out", network)
	second := filepath.Join(at, "second")
	space := func(dir string) {
		mustTweedle(t, "post", "init", "--network", network, "--dir", filepath.Join(dir, "post"), "--key", filepath.Join(dir, "identity.key"))
	}
	space(second)
	const firstSlot = 3
	peer := "" // its name among them
	start := func(dir string) (s seen) {
		cfg, err := smeshingNode(network, dir, second)
		if err != nil {
			t.Fatal(err)
		}
		said := &warnings{}
		cfg.Log = slog.New(said)
		n, err := node.Open(cfg)
		if err != nil {
			return seen{refused: err.Error()}
		}
		st, e := n.Status(), n.Endpoints()
		n.Close()
		s.identity, s.warnings = st.NodeID, said.said
		for _, o := range append([]telemetry.IdentityStatus{{Smesher: st.Smesher}}, st.Others...) {
			if e := o.Smesher.Error; e != "" && !slices.ContainsFunc(s.warnings, func(w string) bool { return strings.Contains(w, e) }) {
				s.warnings = append(s.warnings, o.Smesher.Error)
			}
		}
		_, name, _ := strings.Cut(e.P2P, "/p2p/")
		if _, err := tweedle(t, "post", "verify", "--network", network, "--dir", filepath.Join(dir, "post")); err != nil && len(s.warnings) == 0 {
			s.facts = append(s.facts, "`tweedle post verify` names it")
		}
		if peer == "" {
			peer = name
		} else if peer != name {
			s.facts = append(s.facts, "under another name among peers")
		}
		return s
	}
	signed := func(dir string, slots ...uint64) {
		db, err := store.Open(dir, networkID(t, network))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for _, slot := range slots {
			if err := db.Guard(signing.ATX, keyOf(t, dir), slot, types.Hash32{byte(slot)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	live := func(dir string, slots ...uint64) {
		if err := os.Remove(filepath.Join(dir, "state.db")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		signed(dir, slots...)
		if s := start(dir); s.refused != "" { // a new state remembers how much was signed
			t.Fatal(s.refused)
		}
	}
	base, other := filepath.Join(at, "node"), filepath.Join(at, "other")
	for _, dir := range []string{base, other} {
		space(dir)
	}
	live(other, firstSlot, firstSlot+1, firstSlot+2)
	peer = ""
	live(base, firstSlot)
	old := cloneDir(t, base)
	live(base, firstSlot+1)
	me := keyOf(t, base)
	withFacts := func(dir string) seen {
		s := start(dir)
		if s.refused != "" {
			return s
		}
		// Nothing of it may let us sign against what we have signed.
		db, err := store.Open(dir, networkID(t, network))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for _, slot := range []uint64{firstSlot, firstSlot + 1} {
			if err := db.Guard(signing.ATX, me, slot, types.Hash32{99}); !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrRolledBack) {
				t.Errorf("%s: it signs twice in slot %d: %v", dir, slot, err)
			}
		}
		if old, err := db.RolledBack(me); err != nil || old {
			s.facts = append(s.facts, "signs nothing until the end of the next epoch")
		}
		return s
	}
	return filesTable(t, base, other, old, withFacts, func(what string, before, after seen) {
		if after.refused == "" && after.identity != before.identity && len(after.warnings) == 0 {
			t.Errorf("%s: another identity, and not a word", what)
		}
		if strings.Contains(after.refused, "\n") || len(after.refused) > 400 {
			t.Errorf("%s: not one line: %s", what, after.refused)
		}
	})
}

// poetFiles is the table of a PoET that executes a round with a member.
func poetFiles(t *testing.T) string {
	at := t.TempDir()
	genesis := time.Now().UTC().Truncate(time.Second)
	const shift = 12 * time.Second // until the round with the member starts
	run := func(dir string, while func(telemetry.Endpoints) error) ([]string, error) {
		fl := &poetFlags{}
		cmd := poetCommand()
		cmd.ResetFlags()
		fl.registerTime(cmd)
		fl.registerReference(cmd)
		fl.registerOurs(cmd)
		if err := cmd.ParseFlags([]string{"--dir", dir, "--genesis-time", genesis.Format(time.RFC3339), "--epoch-duration=48h", "--phase-shift", shift.String(), "--cycle-gap=1m",
			"-r", "127.0.0.1:0", "-w", "127.0.0.1:0", "--adminlisten=127.0.0.1:0", "--ballast-bytes=65536", "--max-leaves-per-second=1000"}); err != nil {
			t.Fatal(err)
		}
		if err := fl.complete(cmd); err != nil {
			t.Fatal(err)
		}
		said := &warnings{}
		fl.cfg.Log = slog.New(said)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		announce, failed := fl.cfg.Announce, error(nil)
		fl.cfg.Announce = func(e telemetry.Endpoints) (func(), error) {
			remove, err := announce(e)
			go func() { // it serves once this has returned
				defer cancel()
				failed = while(e)
			}()
			return remove, err
		}
		err := server.Run(ctx, fl.cfg)
		if err == nil && failed != nil {
			t.Errorf("%s: %v", dir, failed)
		}
		return said.said, err
	}
	base, other, old := filepath.Join(at, "poet"), filepath.Join(at, "other"), ""
	for _, dir := range []string{other, base} {
		if _, err := run(dir, func(telemetry.Endpoints) error { return nil }); err != nil {
			t.Fatal(err)
		}
		old = cloneDir(t, dir) // in the end, of base
		_, err := run(dir, func(e telemetry.Endpoints) error {
			_ = register(t, "http://"+e.REST)
			for end := time.Now().Add(40 * time.Second); dir == base && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if r, err := poetRoundOf(dir); err != nil || r.Leaves > 5000 {
					return err
				}
			}
			if dir == base {
				return errors.New("no round begins")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	leaves := uint64(0) // of the round, when it was stopped
	start := func(dir string) (s seen) {
		var err error
		s.warnings, err = run(dir, func(e telemetry.Endpoints) error {
			res, err := http.Get("http://" + e.REST + "/v1/info")
			if err != nil {
				return err
			}
			defer res.Body.Close()
			var info struct{ ServicePubkey string }
			if err := json.NewDecoder(res.Body).Decode(&info); err != nil {
				return err
			}
			s.identity = info.ServicePubkey
			var r poetRound
			for end := time.Now().Add(5 * time.Second); r.Leaves == 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				if r, err = poetRoundOf(dir); err != nil {
					return err
				}
				if r.Members == 0 {
					s.facts = append(s.facts, "its registrations are lost")
					return nil
				}
			}
			switch {
			case leaves == 0:
				leaves = r.Leaves
			case r.Leaves == 0:
				s.facts = append(s.facts, "its round waits")
			case r.Leaves < leaves*4/5:
				s.facts = append(s.facts, "its round begins anew, for the time that is left")
			}
			return nil
		})
		if err != nil {
			return seen{refused: err.Error()}
		}
		s.warnings = slices.DeleteFunc(s.warnings, func(w string) bool { return strings.Contains(w, "gateway") }) // it has none here
		return s
	}
	return filesTable(t, base, other, old, start, func(what string, before, after seen) {
		lost := slices.Contains(after.facts, "its registrations are lost") && !strings.HasSuffix(what, "an old copy") // an old database has none
		if after.refused == "" && (after.identity != before.identity || lost) && len(after.warnings) == 0 {
			t.Errorf("%s: %v, another identity: %v, and not a word", what, after.facts, after.identity != before.identity)
		}
		if strings.Contains(after.refused, "\n") || len(after.refused) > 400 {
			t.Errorf("%s: not one line: %s", what, after.refused)
		}
	})
}

// poetRound is the round with members.
type poetRound struct {
	Members, Leaves uint64
}

func poetRoundOf(dir string) (poetRound, error) {
	root, out := rootCommand(), &strings.Builder{}
	root.SetArgs([]string{"poet", "rounds", "--dir", dir, "--json"})
	root.SetOut(out)
	if err := root.Execute(); err != nil {
		return poetRound{}, err
	}
	var list struct {
		Rounds []struct {
			Members, Leaves uint64
		}
	}
	err := json.Unmarshal([]byte(out.String()), &list)
	for _, r := range list.Rounds {
		if r.Members > 0 {
			return poetRound{r.Members, r.Leaves}, err
		}
	}
	return poetRound{}, err
}

func keyOf(t *testing.T, dir string) types.NodeID {
	t.Helper()
	id := smeshing.Other(types.GenesisID{}, dir)
	if id.Err != nil {
		t.Fatal(id.Err)
	}
	return id.Signer.NodeID()
}

func networkID(t *testing.T, file string) types.GenesisID {
	t.Helper()
	n, err := preset.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return n.ID()
}
