package hare

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tweedle/values/signing"
	"tweedle/values/types"
)

var update = flag.Bool("update", false, "write the reactions of testdata/*.txt as they are now")

// The scripts say what one smesher hears and when, and hold what it does. A line that
// begins with $ is a command:
//
//	$ begin {a b}                  a session in which the smesher begins with a set
//	$ slot 3                       the clock is at the start of a slot
//	$ hear N commit/1 {a} 4        somebody says something in a round of an iteration, with 4 seats
//	$ hear N propose {a} 1 lot 7   and with a ticket that begins with 7
//
// The committee has 9 seats, so 5 are enough; the smesher's own 2 come back to it at once,
// with a ticket that begins with 240.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 5 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := perform(want)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, want) {
				t.Errorf("%s is now:\n%s", file, got)
			}
		})
	}
}

// perform repeats the commands and comments of a script, with what comes of them.
func perform(script []byte) []byte {
	s := &stage{names: make(map[types.Hash32]string)}
	lines := bufio.NewScanner(bytes.NewReader(script))
	for lines.Scan() {
		line := lines.Text()
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok && line != "" && !strings.HasPrefix(line, "#") {
			continue // a reaction of before
		}
		fmt.Fprintln(&s.out, line)
		if ok {
			s.do(strings.Fields(command))
		}
	}
	return s.out.Bytes()
}

type stage struct {
	out   bytes.Buffer
	s     *Session
	now   time.Time
	names map[types.Hash32]string // of sets
}

const mine = 2

func (s *stage) do(words []string) {
	switch words[0] {
	case "begin":
		set := s.set(strings.Join(words[1:], " "))
		p := Params{Committee: 9, Leaders: 9, Iterations: 4, Round: round}
		s.now = genesis.Add(-1)
		s.s = NewSession(p, Draw{Layer: 7, Total: 1}, genesis, []Member{{actor("me"), 1}}, func() []types.ProposalID { return set })
		s.step()
	case "slot":
		s.now = genesis.Add(time.Duration(number(words[1])) * round)
		s.step()
	case "hear":
		text := strings.Join(words[3:], " ")
		end := strings.Index(text, "}") + 1
		rest := strings.Fields(text[end:])
		set, lot := s.set(text[:end]), 0
		if len(rest) == 3 {
			lot = number(rest[2])
		}
		seats := uint32(number(rest[0]))
		m := &Message{Layer: 7, Round: roundOf(words[2]), Smesher: actor(words[1]).NodeID(), Proof: lotOf(byte(lot), seats)}
		if m.Round.lists() {
			m.Set = set
		} else {
			m.Ref = SetRef(set)
		}
		s.hear(words[1], m, seats)
	default:
		panic("no command: " + words[0])
	}
}

func (s *stage) step() {
	out := s.s.Step(s.now)
	if out.Result != nil {
		fmt.Fprintln(&s.out, "has the result", s.name(out.Result))
	}
	if out.Coin != nil {
		fmt.Fprintln(&s.out, "has a coin")
	}
	for _, r := range out.Draw {
		s.s.Seat(Seat{actor("me").NodeID(), r, lotOf(240, mine)})
	}
	for _, m := range out.Signed {
		s.name(m.Set)
		fmt.Fprintf(&s.out, "says %s/%d %s\n", m.Round, m.Round.Iteration(), s.names[m.Says()])
		if _, err := s.s.Hear(s.now, m, mine); err != nil {
			panic(err)
		}
	}
	if out.Ended {
		fmt.Fprintln(&s.out, "ends")
	}
}

func (s *stage) hear(name string, m *Message, seats uint32) {
	switch twice, err := s.s.Hear(s.now, m, seats); {
	case twice != nil:
		fmt.Fprintf(&s.out, "passes it on; %s said %s and %s\n", name, s.names[twice.A.Says()], s.names[twice.B.Says()])
	case errors.Is(err, ErrHeard):
		fmt.Fprintln(&s.out, "ignores it")
	case err != nil:
		fmt.Fprintln(&s.out, err)
	}
}

func (s *stage) set(text string) []types.ProposalID {
	set := []types.ProposalID{}
	for _, f := range strings.Fields(strings.Trim(text, "{}")) {
		set = append(set, types.ProposalID{f[0]})
	}
	s.name(set)
	return set
}

// name remembers how a set is written, and returns it.
func (s *stage) name(set []types.ProposalID) string {
	var letters []string
	for _, id := range set {
		letters = append(letters, string(id[:1]))
	}
	text := "{" + strings.Join(letters, " ") + "}"
	s.names[SetRef(set)] = text
	return text
}

func roundOf(text string) Round {
	name, iteration, _ := strings.Cut(text, "/")
	for r := range roundsOf + 1 {
		if r.String() == name {
			if iteration == "" {
				return r
			}
			return r.In(number(iteration))
		}
	}
	panic("no round: " + text)
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}

// actor is somebody in a script.
type actor string

func (a actor) NodeID() (id types.NodeID)                     { copy(id[:], a); return id }
func (actor) Sign(signing.Domain, []byte) (s types.Signature) { return s }

// lotOf finds a random value whose lowest ticket begins with a byte.
func lotOf(lot byte, seats uint32) (v types.VRFSignature) {
	for n := uint64(0); ; n++ {
		binary.BigEndian.PutUint64(v[:], n)
		if ticket(v, seats)[0] == lot {
			return v
		}
	}
}

// A smesher's chance to lead is that of its weight, in how many identities it is cut.
func TestATicketIsForASeat(t *testing.T) {
	const draws = 4000
	whole := 0
	for i := range uint64(draws) {
		var list []*heard
		add := func(n int, seats uint32) {
			k := keyOf(i, n)
			list = append(list, &heard{&Message{Smesher: k.NodeID(), Proof: k.VRF(nil)}, seats})
		}
		add(0, 10) // one smesher with ten seats
		for n := range 10 {
			add(1+n, 1) // another one in ten identities
		}
		if byTicket(list); list[0].Smesher == keyOf(i, 0).NodeID() {
			whole++
		}
	}
	if whole < draws*45/100 || whole > draws*55/100 {
		t.Errorf("who has half of the seats leads in %d of %d draws", whole, draws)
	}
}

func TestRoundsAndSlots(t *testing.T) {
	var slots []int
	for slot := range 16 {
		r := roundAt(slot)
		if r.slot() != slot || r.Kind().In(r.Iteration()) != r {
			t.Errorf("slot %d is %s of iteration %d", slot, r, r.Iteration())
		}
		slots = append(slots, int(r.Kind()))
	}
	if want := []int{0, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 1, 2}; !slices.Equal(slots, want) {
		t.Errorf("rounds are %v, not %v", slots, want)
	}
}
