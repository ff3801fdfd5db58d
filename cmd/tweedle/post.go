package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tweedle/base/durable"
	"tweedle/edges/preset"
	"tweedle/edges/smeshing"
	"tweedle/proofs/post"
	"tweedle/values/signing"
	"tweedle/values/types"
)

func postCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "post",
		Short: "Fill, check and repair a smesher's space",
		Example: "  tweedle post init --network network.json --dir ~/node/post --key ~/node/identity.key --units 4\n" +
			"  tweedle post verify --network network.json --dir ~/node/post --fraction 0.01",
	}
	cmd.AddCommand(postInit(), postVerify(), postRepair(), postInfo(), postProfile())
	return cmd
}

// spaceFlags are those of all commands that compute labels of a space.
type spaceFlags struct {
	dir, network, kernel string
	workers              int
	json                 bool
}

func (f *spaceFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	pathVar(fl, &f.dir, "dir", "", "", "folder of the space (required)")
	pathVar(fl, &f.network, "network", "", "", "network file (required)")
	fl.IntVar(&f.workers, "workers", runtime.NumCPU(), "cores to use")
	fl.BoolVar(&f.json, "json", false, "print JSON, one event a line")
	registerKernel(cmd, &f.kernel)
}

// open returns the network and its rules.
func (f *spaceFlags) open() (preset.Network, post.Params, error) {
	var none post.Params
	if f.dir == "" || f.network == "" {
		return preset.Network{}, none, usageError{errors.New("--dir, the folder of the space, and --network are needed")}
	}
	if f.workers < 1 || f.workers > post.MaxWorkers {
		return preset.Network{}, none, usageError{fmt.Errorf("--workers %d: must be 1 to %d", f.workers, post.MaxWorkers)}
	}
	if err := useKernel(f.kernel); err != nil {
		return preset.Network{}, none, err
	}
	n, err := preset.Load(f.network)
	if err != nil {
		return n, none, err
	}
	p, err := n.Params()
	if err == nil {
		err = p.Post.Provable()
	}
	return n, p.Post, err
}

// lock keeps a node and other commands out of a folder while it is written.
func (f *spaceFlags) lock() (io.Closer, error) {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	return durable.Lock(f.dir)
}

// meter tells progress: in a terminal on one line that is written over, else, and as
// JSON, as a line now and then.
type meter struct {
	out      io.Writer
	what     string
	json     bool
	terminal bool
	begun    time.Time
	told     time.Time
}

func (f *spaceFlags) meter(cmd *cobra.Command, what string) *meter {
	m := &meter{out: cmd.ErrOrStderr(), what: what, json: f.json, begun: time.Now()}
	if f.json {
		m.out = cmd.OutOrStdout()
	} else if file, ok := m.out.(*os.File); ok {
		m.terminal = term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb"
	}
	return m
}

// progress is a line of a long work on a space.
type progress struct {
	Type    string  `json:"type"` // initializing, verifying, repairing
	Done    uint64  `json:"labels_done"`
	Labels  uint64  `json:"labels"` // in all
	Rate    float64 `json:"labels_per_second"`
	Seconds int64   `json:"seconds_left"`
}

// tell is called often. resumed labels were there at the start.
func (m *meter) tell(done, total, resumed uint64) {
	every := 10 * time.Second
	if m.terminal || m.json {
		every = time.Second
	}
	now := time.Now()
	if now.Sub(m.told) < every || m.told.IsZero() && now.Sub(m.begun) < time.Second {
		return
	}
	m.told = now
	rate := float64(done-min(done, resumed)) / now.Sub(m.begun).Seconds()
	left := time.Duration(0)
	if rate > 0 && total > done {
		left = time.Duration(min(float64(total-done)/rate*float64(time.Second), math.MaxInt64/2)).Round(time.Second)
	}
	if m.json {
		json.NewEncoder(m.out).Encode(progress{m.what, done, total, math.Round(rate), int64(left.Seconds())}) //nolint:errcheck // the end tells
		return
	}
	line := fmt.Sprintf("%s  %.1f %%: %d of %d labels, %.0f a second, %v left", m.what, 100*float64(done)/float64(max(total, 1)), done, total, rate, left)
	if done > total {
		line = fmt.Sprintf("%s  seeking a VRF nonce beyond the space, at label %d, %.0f a second", m.what, done, rate)
	}
	if m.terminal {
		fmt.Fprintf(m.out, "\r\x1b[K%s", line)
		return
	}
	fmt.Fprintln(m.out, line)
}

// end clears the line that was written over.
func (m *meter) end() {
	if m.terminal && !m.told.IsZero() {
		fmt.Fprint(m.out, "\r\x1b[K")
	}
}

func cancelled(ctx context.Context) func() bool { return func() bool { return ctx.Err() != nil } }

// parseFiles reads numbers of data files like "0-7" or "1,5-7".
func parseFiles(text string) (ranges []post.Part, err error) {
	for _, part := range strings.Split(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 32)
		to, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 32)
		if err1 != nil || err2 != nil || to < from {
			return nil, usageError{fmt.Errorf("--files %s: write numbers of data files and ranges of them, such as 1,5-7 for postdata_1.bin and postdata_5.bin to postdata_7.bin", text)}
		}
		ranges = append(ranges, post.Part{From: from, To: to + 1})
	}
	return ranges, nil
}

// fileNumbers are those of some ranges.
func fileNumbers(text string) (numbers []uint64, err error) {
	if text == "" {
		return nil, nil
	}
	ranges, err := parseFiles(text)
	const most = 1 << 20
	for _, r := range ranges {
		if r.To-r.From > most {
			return nil, usageError{fmt.Errorf("--files %s: that is more than %d files", text, most)}
		}
		for n := r.From; n < r.To; n++ {
			numbers = append(numbers, n)
		}
	}
	return numbers, err
}

func postInit() *cobra.Command {
	var f spaceFlags
	var key, id, commitment, files string
	var units uint32
	var fileSize uint64
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Fill space with labels, for a node here or elsewhere",
		Long: `Fills a folder with the labels of an identity, as a node with --smeshing does. It
goes on where it was stopped, whatever stopped it, and deletes nothing. A node
that finds the folder as DIR/post, beside the identity.key that it was made for,
uses it as it is.

Several machines can share the work: each fills some data files (--files) of the
same space, with --id instead of the secret key. Copy what they made into one
folder, all files of it, and run the command there without --files: it takes what
is finished, chooses the best VRF nonce, and fills what is missing.`,
		Example: "  tweedle post init --network network.json --dir ~/node/post --key ~/node/identity.key --units 4\n" +
			"  tweedle post init --network network.json --dir /mnt/a --id 5f0c... --units 64 --files 0-31",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, p, err := f.open()
			if err != nil {
				return err
			}
			setup := post.Setup{NumUnits: units, MaxFileSize: fileSize, CommitmentATX: n.Golden()}
			if units == 0 {
				setup.NumUnits = p.MinUnits
			}
			if setup.NodeID, err = spaceOwner(f.dir, key, id); err != nil {
				return err
			}
			if commitment != "" {
				if setup.CommitmentATX, err = parseHash("--commitment", commitment); err != nil {
					return err
				}
			}
			if files != "" {
				ranges, err := parseFiles(files)
				if err != nil {
					return err
				}
				if len(ranges) != 1 {
					return usageError{fmt.Errorf("--files %s: one range at a time", files)}
				}
				setup.Part = ranges[0]
			}
			return f.init(cmd, p, setup)
		},
	}
	f.register(cmd)
	fl := cmd.Flags()
	pathVar(fl, &key, "key", "", "", "identity.key of the smesher; made if it is not there")
	fl.StringVar(&id, "id", "", "the smesher's public id in hex, where the key is elsewhere")
	fl.Uint32Var(&units, "units", 0, "units of space (default the least that the network allows)")
	fl.StringVar(&commitment, "commitment", "", "ATX that the labels are bound to, in hex (default what stands before the network's first)")
	fl.StringVar(&files, "files", "", "fill only these data files, such as 0-31")
	fl.Uint64Var(&fileSize, "file-size", 0, "bytes of a data file (default 4 GiB, or what the folder has)")
	return cmd
}

// spaceOwner returns the public id for which labels are made.
func spaceOwner(dir, key, id string) (types.NodeID, error) {
	if (key == "") == (id == "") {
		return types.NodeID{}, usageError{errors.New("give --key, the identity.key of the smesher, or --id, its public id")}
	}
	if id != "" {
		return parseHash("--id", id)
	}
	if err := os.MkdirAll(filepath.Dir(key), 0o700); err != nil {
		return types.NodeID{}, fmt.Errorf("--key: %w", err)
	}
	seed, err := smeshing.Key(key, dir)
	if err != nil {
		return types.NodeID{}, err
	}
	signer, err := signing.NewSigner(seed, types.GenesisID{})
	if err != nil {
		return types.NodeID{}, err
	}
	return signer.NodeID(), nil
}

func parseHash(flag, text string) (h [32]byte, err error) {
	b, err := hex.DecodeString(strings.TrimPrefix(text, "0x"))
	if err != nil || len(b) != len(h) {
		return h, usageError{fmt.Errorf("%s %s: must be %d bytes in hex", flag, text, len(h))}
	}
	return [32]byte(b), nil
}

func (f *spaceFlags) init(cmd *cobra.Command, p post.Params, setup post.Setup) error {
	lock, err := f.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	err = post.Room(f.dir, p, setup)
	if full := (*post.NoRoomError)(nil); errors.As(err, &full) {
		return fmt.Errorf("%w, or choose another one", err)
	}
	if err != nil {
		return err
	}
	m := f.meter(cmd, "initializing")
	meta, err := post.Init(f.dir, p, setup, post.InitOptions{
		Workers: f.workers, Cancel: cancelled(cmd.Context()),
		Progress: func(p post.InitProgress) { m.tell(p.Done, p.Total, p.Resumed) },
	})
	m.end()
	if errors.Is(err, post.ErrCancelled) {
		return fmt.Errorf("stopped: the same command goes on where it was")
	}
	if err != nil {
		return err
	}
	if setup.Part != (post.Part{}) {
		return f.print(cmd, initialized{Type: "end", Dir: f.dir, Files: setup.Part.To - setup.Part.From, Metadata: setup.Part.MetadataName()},
			"files %d to %d are full: copy them and %s to the folder of the whole space\n", setup.Part.From, setup.Part.To-1, setup.Part.MetadataName())
	}
	return f.print(cmd, initialized{Type: "end", Dir: f.dir, Files: meta.NumFiles(), Labels: meta.NumLabels(), Nonce: meta.Nonce},
		"%s is full: %d units, %s in %d files, VRF nonce %d\n", f.dir, meta.NumUnits, post.Bytes(meta.NumLabels()*post.LabelSize), meta.NumFiles(), *meta.Nonce)
}

// initialized is the last line of "post init".
type initialized struct {
	Type     string  `json:"type"` // end
	Dir      string  `json:"dir"`
	Files    uint64  `json:"files"`               // that are full
	Metadata string  `json:"metadata,omitempty"`  // of a part: the file that belongs to it
	Labels   uint64  `json:"labels,omitempty"`    // of a whole space
	Nonce    *uint64 `json:"vrf_nonce,omitempty"` // of a whole space
}

// print writes the result as JSON or in words.
func (f *spaceFlags) print(cmd *cobra.Command, v any, format string, args ...any) error {
	if f.json {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format, args...)
	return err
}
