package main

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"tweedle/base/words"
	"tweedle/services/poet"
	"tweedle/services/poet/book"
	"tweedle/services/poet/legacy"
	"tweedle/services/poet/rounds"
)

// importReport is what `tweedle poet import` tells.
type importReport struct {
	PoetID  string            `json:"poet_id"` // hexadecimal
	Proofs  []uint32          `json:"proofs"`  // rounds taken over
	Skipped map[string]string `json:"skipped"` // rounds whose proof was not, and why
	// Members are the registrations taken over, by round: of rounds that have no
	// proof and time left.
	Members map[uint32]int `json:"members"`
	// Restarted are those of these rounds whose execution had begun: it starts
	// anew, for the time that is left.
	Restarted []uint32 `json:"restarted"`
	// Lost is what only the reference server can serve.
	Lost []string `json:"lost"`
}

func poetImport() *cobra.Command {
	f := &poetFlags{}
	var from, fromDB string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Take over a reference server's key, proofs and registrations",
		Long: `Takes over what a reference PoET server that has stopped leaves behind: its
key, its stored proofs, each of which is verified first, and the registrations
of the open round, and of a round that executes: its work starts anew, for the
time that is left. Whatever cannot be taken over is named. Nothing of the
reference server is changed, and an import may be repeated; until it has ended no
server starts on the data directory, which may be the reference's own.`,
		Example: `  tweedle poet import --from-datadir ~/.cache/poet/data --from-dbdir ~/.cache/poet/db \
    --network network.json --dir ~/poet`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from == "" || fromDB == "" || f.dir == "" {
				return usageError{errors.New("an import needs --from-datadir, --from-dbdir and --dir")}
			}
			if err := useKernel(""); err != nil { // it verifies every proof
				return err
			}
			if err := f.placeInTime(cmd); err != nil {
				return err
			}
			report, err := f.takeOver(from, fromDB)
			if err != nil {
				return err
			}
			return report.print(cmd, asJSON)
		},
	}
	fl := cmd.Flags()
	pathVar(fl, &from, "from-datadir", "", "", "data directory of the reference server")
	pathVar(fl, &fromDB, "from-dbdir", "", "", "database directory of the reference server")
	pathVar(fl, &f.dir, "dir", "", "", "data directory to import into")
	fl.BoolVar(&asJSON, "json", false, "print JSON")
	f.registerTime(cmd)
	return cmd
}

// takeOver does the whole import. If we stop anywhere in it, it can be repeated,
// and no server starts before.
func (f *poetFlags) takeOver(from, fromDB string) (report importReport, err error) {
	key, err := legacy.ReadKey(from)
	if err != nil {
		return report, err
	}
	report = importReport{
		PoetID: fmt.Sprintf("%x", key.Public().(ed25519.PublicKey)), Proofs: []uint32{}, Skipped: map[string]string{},
		Members: map[uint32]int{}, Restarted: []uint32{}, Lost: []string{},
	}
	f.cfg.Poet.Dir, f.cfg.Poet.Key, f.cfg.Poet.Importing = f.dir, key, true
	service, err := rounds.Open(f.cfg.Poet)
	if err != nil {
		return report, fmt.Errorf("%w (the data directory must be new, or have this key)", err)
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	archive := legacy.OpenArchive(service.Book().DB)
	err = legacy.Proofs(fromDB, runtime.GOMAXPROCS(0), func(p legacy.Proof) error {
		report.Proofs = append(report.Proofs, p.Round)
		return archive.Put(p)
	}, func(round string, why error) { report.Skipped[round] = words.Of(why) })
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s has no proofs: give the folder that has %s", fromDB, filepath.Join(fromDB, "proofs"))
	}
	if err != nil {
		return report, err
	}
	slices.Sort(report.Proofs)
	numbers, err := legacy.Rounds(fromDB, func(name string, why error) { report.lose("%s: %v", name, why) })
	if err != nil {
		return report, err
	}
	for _, round := range numbers {
		if err := report.takeMembers(service, fromDB, round, f.cfg.Poet.Schedule.Start(round), f.cfg.Poet.Schedule.End(round)); err != nil {
			return report, err
		}
	}
	return report, service.Imported()
}

func (r *importReport) lose(format string, args ...any) {
	r.Lost = append(r.Lost, fmt.Sprintf(format, args...))
}

// takeMembers takes over the registrations of a round, if it has no proof.
func (r *importReport) takeMembers(service *rounds.Service, fromDB string, round uint32, start, end time.Time) error {
	_, skipped := r.Skipped[poet.RoundID(round)]
	if _, err := service.Book().Proof(round); skipped || err == nil || slices.Contains(r.Proofs, round) {
		return nil
	}
	now, count := time.Now(), 0
	over := !now.Before(end)
	err := legacy.Registrations(fromDB, round, func(batch []legacy.Registration) error {
		count += len(batch)
		if over {
			return nil
		}
		entries := make([]*book.Entry, len(batch))
		for i, m := range batch {
			entries[i] = &book.Entry{NodeID: m.NodeID, Member: book.Member{Challenge: m.Challenge}}
		}
		if err := service.Import(round, entries); err != nil {
			return err
		}
		for _, e := range entries {
			if e.Err != nil {
				count--
				r.lose("round %d, smesher %x: %v", round, e.NodeID, e.Err)
			}
		}
		return nil
	}, func(why error) { r.lose("round %d: %v", round, why) })
	switch {
	case err != nil || count == 0:
		return err
	case over:
		r.lose("round %d with %d members: its time is over and it has no proof, which only the reference server can make", round, count)
		return nil
	}
	r.Members[round] = count
	if !now.Before(start) {
		r.Restarted = append(r.Restarted, round)
	}
	return nil
}

func (r importReport) print(cmd *cobra.Command, asJSON bool) error {
	w := cmd.OutOrStdout()
	if asJSON {
		b, err := json.MarshalIndent(r, "", "  ")
		if err == nil {
			_, err = fmt.Fprintln(w, string(b))
		}
		return err
	}
	fmt.Fprintf(w, "took over the key of PoET %s and %d proofs\n", r.PoetID, len(r.Proofs))
	for _, round := range slices.Sorted(maps.Keys(r.Members)) {
		note := ""
		if slices.Contains(r.Restarted, round) {
			note = ", whose work starts anew for the time that is left"
		}
		fmt.Fprintf(w, "took over %d members of round %d%s\n", r.Members[round], round, note)
	}
	for _, round := range slices.Sorted(maps.Keys(r.Skipped)) {
		fmt.Fprintf(w, "round %s was not taken over: %s\n", round, r.Skipped[round])
	}
	for _, what := range r.Lost {
		fmt.Fprintf(w, "not taken over: %s\n", what)
	}
	return nil
}

// referenceState is the file by which a reference server's data directory is
// known; our own has a database.
const referenceState = "state.bin"

// refuseReference keeps us from being another server, with another key and without
// the registrations, in a directory that a reference server used until now.
func (f *poetFlags) refuseReference() error {
	dir := f.cfg.Poet.Dir
	if _, err := os.Stat(filepath.Join(dir, referenceState)); err != nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, book.DatabaseName)); err == nil {
		return nil
	}
	db := f.dbDir
	if db == "" {
		db = filepath.Join(f.poetDir, "db")
	}
	s := f.cfg.Poet.Schedule
	command := []string{"tweedle", "poet", "import", "--from-datadir", dir, "--from-dbdir", db, "--dir", dir}
	if f.network != "" {
		command = append(command, "--network", f.network)
	} else {
		command = append(command, "--genesis-time", f.genesis, "--epoch-duration", s.EpochDuration.String(), "--phase-shift", s.PhaseShift.String(), "--cycle-gap", s.CycleGap.String())
	}
	for i, word := range command {
		command[i] = shellWord(word)
	}
	return fmt.Errorf("%s is the data directory of a reference server: once that one has stopped, take over its key, proofs and registrations with `%s`, then start again", dir, strings.Join(command, " "))
}

// shellWord quotes a word for a shell, if it must be.
func shellWord(word string) string {
	odd := func(r rune) bool {
		return !strings.ContainsRune("/.:=@%+-_,", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}
	if word != "" && !strings.ContainsFunc(word, odd) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
