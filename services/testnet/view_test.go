package testnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tweedle/base/telemetry"
	"tweedle/values/types"
)

func TestEventsHaveTheirContractInJSON(t *testing.T) {
	at := time.Unix(1_600_000_000, 0).UTC()
	for _, c := range []struct {
		event Event
		want  string
	}{
		{
			Summary{Reasons: []string{"node-2 is down and was not restarted"}, Epochs: 1, Layers: 10, EmptyLayers: 1, TransactionsApplied: 7, ATXs: 3, PoetProofs: 2, StateRoots: 1, LastCommonLayer: 29, StateRoot: "ab"},
			`{"type":"summary","time":"2020-09-13T12:26:40Z","ok":false,"reasons":["node-2 is down and was not restarted"],"epochs":1,"layers":10,"empty_layers":1,"transactions_applied":7,"atxs":3,"poet_proofs":2,"state_roots":1,"last_common_layer":29,"state_root":"ab"}`,
		},
		{
			Summary{OK: true, Reasons: []string{}},
			`{"type":"summary","time":"2020-09-13T12:26:40Z","ok":true,"reasons":[],"epochs":0,"layers":0,"empty_layers":0,"transactions_applied":0,"atxs":0,"poet_proofs":0,"state_roots":0,"last_common_layer":0}`,
		},
		{
			Layer{Layer: 20, Epoch: 2, Block: "b", Txs: 3, Ballots: 4, StateRoot: "r", Agree: 5, Nodes: 5, Outcomes: 1},
			`{"type":"layer","time":"2020-09-13T12:26:40Z","layer":20,"epoch":2,"block":"b","txs":3,"ballots":4,"state_root":"r","agree":5,"nodes":5,"outcomes":1}`,
		},
	} {
		var b bytes.Buffer
		NewJSONView(&b).Event(at, c.event)
		if b.String() != c.want+"\n" {
			t.Errorf("got  %swant %s", b.String(), c.want)
		}
		if !json.Valid(b.Bytes()) {
			t.Error("that is no JSON")
		}
	}
}

func TestAStatusThatIsNotKnownIsNull(t *testing.T) {
	s := Status{Nodes: []NodeStatus{{Name: "node-1", State: Crashed}}, Poets: []PoetStatus{{Name: "poet-1", State: Stopped}}}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"page":null`, `"alerts":null`, `"layer":0`, `"epoch":0`,
		`"name":"node-1","pid":0,"state":"crashed","applied_layer":null,"state_root":null,"peers":null,"atx_epoch":null,"grpc":"","rest":"","metrics":""`,
		`"name":"poet-1","pid":0,"state":"stopped","rest":"","grpc":"","admin":"","metrics":"","round":null`, `"undelivered":null,"gateways":null`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
}

func TestPlainLinesAreForPeople(t *testing.T) {
	at := time.Date(2020, 9, 13, 8, 26, 40, 0, time.FixedZone("New York", -4*3600)) // whatever zone the machine has
	for _, c := range []struct {
		event Event
		want  string
	}{
		{
			Layer{Layer: 20, Block: "0123456789abcdef", Txs: 12, StateRoot: "fedcba9876543210", Agree: 5, Nodes: 5, Outcomes: 1},
			"12:26:40Z  layer 20    block 0123456789   12 txs  state fedcba9876  5/5 agree\n",
		},
		{
			Layer{Layer: 21, StateRoot: "fedcba9876543210", Agree: 3, Nodes: 5, Outcomes: 2},
			"12:26:40Z  layer 21    empty               0 txs  state fedcba9876  3/5 agree  DIVERGED: 2 different outcomes\n",
		},
		{
			Crash{Name: "node-1", PID: 7, Exit: "exit status 2", Log: []string{"panic: oh\x1b[2J"}},
			"12:26:40Z  node-1   CRASHED: exit status 2 (pid 7); it stays down until `tweedle testnet restart node-1`. Its last words:\n    panic: oh[2J\n",
		},
		{Smesher{"node-1", telemetry.SmesherStep{Step: "initializing", Progress: 0.5}}, "12:26:40Z  node-1   initializing PoST  50 %\n"},
		{Smesher{"node-1", telemetry.SmesherStep{Step: "waiting"}}, ""},
		{PoetRound{Name: "poet-1", Round: "3", State: "finished", Members: 5, Leaves: 900}, "12:26:40Z  poet-1   round 3 finished, 5 members, 900 leaves\n"},
	} {
		if line, _, _ := strings.Cut(c.want, "\n"); len(line) > 80 && !strings.Contains(line, "CRASHED") && !strings.Contains(line, "DIVERGED") {
			t.Errorf("%d characters, a terminal has 80: %s", len(line), line)
		}
		var b bytes.Buffer
		NewPlainView(&b).Event(at, c.event)
		if b.String() != c.want {
			t.Errorf("got  %qwant %q", b.String(), c.want)
		}
	}
}

// screen is as much of a terminal as the view uses.
type screen struct {
	lines []string
	row   int
}

func (s *screen) Write(p []byte) (int, error) {
	text := string(p)
	text = strings.ReplaceAll(strings.ReplaceAll(text, beginUpdate, ""), endUpdate, "")
	for text != "" {
		switch {
		case strings.HasPrefix(text, "\r\x1b["):
			var up int
			fmt.Sscanf(text, "\r\x1b[%dA", &up)
			s.row -= up
			_, text, _ = strings.Cut(text, "A")
		case strings.HasPrefix(text, clearBelow):
			s.lines = s.lines[:s.row]
			text = text[len(clearBelow):]
		default:
			line, rest, ok := strings.Cut(text, clearLine+"\n")
			if !ok {
				return 0, fmt.Errorf("a line that does not clear its rest: %q", text)
			}
			s.lines = append(s.lines[:s.row], append([]string{line}, s.lines[min(s.row+1, len(s.lines)):]...)...)
			s.row++
			text = rest
		}
	}
	return len(p), nil
}

func TestTheTerminalKeepsTheStatusBelowTheEvents(t *testing.T) {
	scr := &screen{}
	width, height := 60, 40
	v := &terminalView{w: scr, size: func() (int, int) { return width, height }}
	status := &Status{Network: "local-1", Running: true, Started: true, Layer: 25, Nodes: []NodeStatus{{Name: "node-1", State: Running}}}
	v.Status(status)
	v.Event(time.Now(), Note{Text: "first"})
	v.Status(status)
	v.Event(time.Now(), Note{Text: "second"})
	if len(scr.lines) < 6 || !strings.HasSuffix(scr.lines[0], "first") || !strings.HasSuffix(scr.lines[1], "second") ||
		!strings.HasPrefix(scr.lines[2], "─") || !strings.HasPrefix(scr.lines[3], "network local-1: epoch 0, layer 25") {
		t.Fatalf("screen:\n%s", strings.Join(scr.lines, "\n"))
	}
	for _, line := range scr.lines[2:] {
		if utf8.RuneCountInString(line) >= width {
			t.Errorf("line of %d characters in a terminal of %d: %q", utf8.RuneCountInString(line), width, line)
		}
	}
	for i := range 60 {
		status.Nodes = append(status.Nodes, NodeStatus{Name: fmt.Sprint("node-", i+2)})
	}
	v.Status(status)
	if len(scr.lines) > height || !strings.HasPrefix(scr.lines[len(scr.lines)-1], "… ") {
		t.Errorf("%d lines in a terminal of %d; the last is %q", len(scr.lines), height, scr.lines[len(scr.lines)-1])
	}
	v.Event(time.Now(), Summary{OK: true})
	if got := strings.Join(scr.lines, "\n"); strings.Contains(got, "node-1") || !strings.Contains(got, "ok") {
		t.Errorf("after the summary:\n%s", got)
	}
}

// A terminal of 80 columns breaks long lines between words, and one that became narrower leaves
// nothing of the old block on the screen.
func TestATerminalMayBeNarrow(t *testing.T) {
	line := "12:26:40Z  epoch 2 begins at layer 20: 5 of 5 smeshers have an ATX for it; 123456 transactions sent so far"
	want := []string{"12:26:40Z  epoch 2 begins at layer 20: 5 of 5 smeshers have an ATX for it;", "           123456 transactions sent so far"}
	if got := wrap(line, 80); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for _, whole := range []string{strings.Repeat("x", 200), "short", ""} {
		if got := wrap(whole, 80); len(got) != 1 || got[0] != whole {
			t.Errorf("%q becomes %q", whole, got)
		}
	}
	for width := 40; width < 100; width++ {
		for _, part := range wrap(line, width) {
			if len(part) > width {
				t.Errorf("%d characters in %d columns: %q", len(part), width, part)
			}
		}
	}
	var out bytes.Buffer
	width := 140
	v := &terminalView{w: &out, size: func() (int, int) { return width, 40 }}
	v.draw(nil, []string{strings.Repeat("a", 139), "b"})
	out.Reset()
	width = 70
	v.draw(nil, []string{"c"})
	if !strings.Contains(out.String(), "\r\x1b[3A") { // two rows of the first line, one of the second
		t.Errorf("%q", out.String())
	}
}

// NO_COLOR is about colours, of which the view has none.
func TestATerminalWithoutColoursHasTheLiveView(t *testing.T) {
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("NOT CHECKED: no pseudo terminal: %v", err)
	}
	defer tty.Close()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	if _, live := NewView(tty).(*terminalView); !live {
		t.Error("no live view")
	}
	t.Setenv("TERM", "dumb")
	if _, plain := NewView(tty).(*plainView); !plain {
		t.Error("a terminal that cannot move its cursor has one")
	}
}

func TestWhyAProcessDidNotAnswerIsSaidInWords(t *testing.T) {
	refused := fmt.Errorf("Get %q: %w", "http://127.0.0.1:1/status", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)})
	for want, errs := range map[string][]error{
		"it does not take connections: see its log": {refused, status.Error(codes.Unavailable, "connection error: desc = \"transport: Error while dialing\"")},
		"it does not answer within 2s":              {fmt.Errorf("Get: %w", context.DeadlineExceeded), status.Error(codes.DeadlineExceeded, "context deadline exceeded")},
		"wrong token":                               {status.Error(codes.Unauthenticated, "wrong token")},
		"x answered 500":                            {errors.New("x answered 500")},
		"":                                          {nil},
	} {
		for _, err := range errs {
			if got := trouble(err); got != want {
				t.Errorf("%v: %q, want %q", err, got, want)
			}
		}
	}
}

func TestWhatWasNotJudgedIsNotCalledOK(t *testing.T) {
	if got := (Summary{OK: true}).text(); !strings.Contains(got, "nothing was judged") || strings.Contains(got, "state root") {
		t.Error(got)
	}
	if got := (Summary{OK: true, Epochs: 1, Layers: 10, ATXs: 5, StateRoots: 1}).text(); !strings.Contains(got, "1 epoch, 10 layers (0 empty)") || !strings.Contains(got, "1 state root at") {
		t.Error(got)
	}
	if got := epochList([]types.Epoch{3}) + "; " + epochList([]types.Epoch{5, 6, 7, 9, 11, 12}); got != "epoch 3; epochs 5-7, 9, 11-12" {
		t.Error(got)
	}
}

func TestAFileGetsPlainLines(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, plain := NewView(f).(*plainView); !plain {
		t.Error("a file is no terminal")
	}
}
