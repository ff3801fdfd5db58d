package main

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"tweedle/services/poet/legacy"
	"tweedle/services/poet/rounds"
)

// importReport is what `tweedle poet import` tells.
type importReport struct {
	PoetID     string            `json:"poet_id"` // hexadecimal
	Proofs     []uint32          `json:"proofs"`  // rounds taken over
	Skipped    map[string]string `json:"skipped"` // rounds that were not, and why
	Unfinished []string          `json:"unfinished"`
}

func poetImport() *cobra.Command {
	f := &poetFlags{}
	var from, fromDB string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Take over a reference server's key and proofs",
		Long: `Takes over the key and the stored proofs of a reference PoET server that has
stopped, into the data directory of a server that does not run yet. Each proof
is verified first. Nothing of the reference server is changed, and an import
may be repeated. Rounds that have no proof yet are named; only the reference
server can finish them.`,
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

func (f *poetFlags) takeOver(from, fromDB string) (report importReport, err error) {
	key, err := legacy.ReadKey(from)
	if err != nil {
		return report, err
	}
	report.PoetID = fmt.Sprintf("%x", key.Public().(ed25519.PublicKey))
	if report.Unfinished, err = legacy.Unfinished(from); err != nil {
		return report, err
	}
	f.cfg.Poet.Dir, f.cfg.Poet.Key = f.dir, key
	// If we stop after this, the key is there and the import can be repeated.
	service, err := rounds.Open(f.cfg.Poet)
	if err != nil {
		return report, fmt.Errorf("%w (the data directory must be new, or have this key)", err)
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	archive := legacy.OpenArchive(service)
	report.Skipped = map[string]string{}
	err = legacy.Proofs(fromDB, runtime.GOMAXPROCS(0), func(p legacy.Proof) error {
		if err := archive.Put(p); err != nil {
			return err
		}
		report.Proofs = append(report.Proofs, p.Round)
		return nil
	}, func(round string, why error) { report.Skipped[round] = why.Error() })
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s has no proofs: give the folder that has %s", fromDB, filepath.Join(fromDB, "proofs"))
	}
	slices.Sort(report.Proofs)
	return report, err
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
	for round, why := range r.Skipped {
		fmt.Fprintf(w, "round %s was not taken over: %s\n", round, why)
	}
	for _, round := range r.Unfinished {
		fmt.Fprintf(w, "round %s has no proof yet: only the reference server can finish it\n", round)
	}
	return nil
}
