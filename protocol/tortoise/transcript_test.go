package tortoise

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tweedle/values/types"
)

var update = flag.Bool("update", false, "write the transcripts anew")

// The scripts of testdata say what happens, and under each line how the network
// looks then: by opinion of one layer after another, oldest first, with a bar
// after the last that is verified. A letter is a block, a dot none, a question
// mark no opinion. -update writes what is under the lines.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d transcripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("%s: what happens is another thing:\n%s", file, got)
			}
		})
	}
}

// play runs the lines of a script that begin with "> " and returns it with what
// happened.
func play(t *testing.T, script string) string {
	var out strings.Builder
	s := &stage{t: t}
	for line := range strings.Lines(script) {
		command, is := strings.CutPrefix(line, "> ")
		switch {
		case is:
			out.WriteString(line)
			for range s.times(strings.Fields(command)) {
				out.WriteString(s.view())
			}
		case strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "":
			out.WriteString(line)
		}
	}
	return out.String()
}

type stage struct {
	t *testing.T
	n *network
}

// times runs a command and yields after each layer.
func (s *stage) times(words []string) func(yield func() bool) {
	return func(yield func() bool) {
		switch words[0] {
		case "nodes": // COUNT LAYERS-PER-EPOCH
			p := Params{
				LayersPerEpoch: uint32(number(s.t, words[2])), Hdist: 3, Zdist: 2, Window: 6, BadBeaconDelay: 4,
				MaxExceptions: 100, MaxLayers: 60, MaxBallots: 20, MaxBlocks: 4, MaxOpinions: 1 << 14,
			}
			s.n = newNetwork(s.t, p, number(s.t, words[1]), rand.New(rand.NewPCG(1, 1)))
		case "evil": // NODES LIE
			for _, k := range s.named(words[1]) {
				k.evil = map[string]lie{"balances": balances, "flips": flips}[words[2]]
			}
		case "split": // NODES: they are one side
			for _, k := range s.named(words[1]) {
				k.side = 1
			}
		case "heal":
			for _, k := range s.n.nodes {
				k.side = 0
			}
		case "hare": // LAYER BLOCK NODES: it comes now
			for _, k := range s.named(words[3]) {
				s.n.tell(k, types.Layer(number(s.t, words[1])), types.BlockID{words[2][0], byte(number(s.t, words[1]))})
			}
		case "layers": // COUNT [BLOCK=NODES...] [heads|tails]
			for range number(s.t, words[1]) {
				s.layer(words[2:])
				if !yield() {
					return
				}
			}
		default:
			s.t.Fatalf("unknown command %q", words)
		}
	}
}

// layer lets a layer pass in which Hare gives some their results.
func (s *stage) layer(words []string) {
	s.n.begin()
	s.n.vote()
	for _, w := range words {
		name, to, is := strings.Cut(w, "=")
		if !is {
			for _, k := range s.n.nodes {
				k.Coin(s.n.layer, w == "heads")
			}
			continue
		}
		id := types.EmptyBlock
		if name != "-" {
			id = s.n.block(name[0])
		}
		for _, k := range s.named(to) {
			s.n.tell(k, s.n.layer, id)
		}
	}
	s.n.end()
}

func (s *stage) named(names string) (out []*member) {
	for _, k := range s.n.nodes {
		if names == "all" || strings.Contains(names, k.name) {
			out = append(out, k)
		}
	}
	return out
}

// view has a line for all honest members who see the same.
func (s *stage) view() string {
	var out strings.Builder
	seen := map[string]bool{}
	for _, k := range s.n.nodes {
		if v := k.view(); k.evil == honest && !seen[v] {
			names := ""
			for _, o := range s.n.nodes {
				if o.evil == honest && o.view() == v {
					names += o.name
				}
			}
			seen[v] = true
			fmt.Fprintf(&out, "%4d  %-10s %s\n", s.n.layer, names, v)
		}
	}
	return out.String()
}

func number(t *testing.T, word string) int {
	n, err := strconv.Atoi(word)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
