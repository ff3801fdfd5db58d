package rounds

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/services/poet/work"
)

// Environment of the crash tests. With killsEnv a person or a nightly run asks for
// more than the few kills of a plain go test; with childEnv the test binary is the
// server that gets killed, in that data directory.
const (
	killsEnv   = "POET_KILLS"
	childEnv   = "POET_TEST_CHILD"
	genesisEnv = "POET_TEST_GENESIS" // unix milliseconds
	firstEnv   = "POET_TEST_FIRST"   // number of the first member to register
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		runChild(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func envInt(name string, otherwise int64) int64 {
	if v := os.Getenv(name); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			panic(name + " is not a number: " + v)
		}
		return n
	}
	return otherwise
}

// childConfig is that of the killed server: short rounds, in which opening,
// executing and proving take about as long as each other.
func childConfig(dir string, genesis int64) Config {
	cfg := Config{
		Dir: dir, BallastBytes: 1 << 16, SubmitFlush: 5 * time.Millisecond,
		Work: work.Config{MaxLeavesPerSecond: 20_000, LeavesPerSecond: 20_000, K: 4, CheckpointInterval: 20 * time.Millisecond},
	}
	cfg.Schedule.Genesis = time.UnixMilli(genesis)
	cfg.Schedule.EpochDuration = 600 * time.Millisecond
	cfg.Schedule.PhaseShift = 100 * time.Millisecond
	cfg.Schedule.CycleGap = 300 * time.Millisecond
	return cfg
}

// runChild serves and registers members until it is killed. Each line it prints is
// something that must still be true afterwards.
func runChild(dir string) {
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(os.Stdout, format+"\n", args...)
	}
	cfg := childConfig(dir, envInt(genesisEnv, 0))
	var s *Service
	cfg.OnProof = func(round string) {
		p, err := s.Proof(context.Background(), round)
		if err != nil {
			say("error proof of round %s: %v", round, err)
			return
		}
		say("proof %s %x %d", round, p.Message.Proof.Root[:], p.Message.Proof.NumLeaves)
	}
	cfg.OnEvent = func(e poet.Event) {
		switch e.Kind {
		case poet.EventResumed:
			say("resumed %s %s", e.Round, e.Text[strings.LastIndexByte(e.Text, ' ')+1:])
		case poet.EventDamage, poet.EventWriteFailed, poet.EventDiskFull, poet.EventJournalPaused:
			say("error %s: %s: %v", e.Kind, e.Text, e.Err)
		}
	}
	s, err := Open(cfg)
	if err != nil {
		say("error open: %v", err)
		os.Exit(1)
	}
	say("ready")
	ctx := context.Background()
	go func() {
		for i := int(envInt(firstEnv, 0)); ; i++ {
			r, err := s.Submit(ctx, request(s.PowParams(), i))
			if err != nil {
				// The challenge of the work may rotate twice meanwhile.
				continue
			}
			say("ack %s %d", r.Round, i)
		}
	}()
	go func() {
		for {
			time.Sleep(5 * time.Millisecond)
			for _, r := range s.Rounds() {
				if r.State == poet.StateExecuting && r.Checkpoint > 0 {
					say("saved %s %d", r.Round, r.Checkpoint)
				}
			}
		}
	}()
	if err := s.Run(ctx); err != nil {
		say("error run: %v", err)
	}
	os.Exit(1)
}

// truth is what children said.
type truth struct {
	acks    map[int]string    // member -> round
	proofs  map[string]string // round -> root and leaves
	saved   map[string]uint64 // round -> leaves that must survive
	resumed int
	slowest time.Duration // start-up
}

// live runs a child for a time, then kills it, and takes down what it said. With
// started the time counts from when it is ready: else a slow machine never comes to
// do anything.
func (tr *truth) live(t *testing.T, dir string, genesis int64, first int, life time.Duration, started bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir, fmt.Sprintf("%s=%d", genesisEnv, genesis), fmt.Sprintf("%s=%d", firstEnv, first))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() { cmd.Process.Kill() }
	timer := time.AfterFunc(30*time.Second, kill)
	defer timer.Stop()
	if !started {
		timer.Reset(life)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch {
		case f[0] == "ready":
			tr.slowest = max(tr.slowest, time.Since(begin))
			if started {
				timer.Reset(life)
			}
		case f[0] == "error":
			t.Errorf("child: %s", lines.Text())
		case f[0] == "ack":
			i, _ := strconv.Atoi(f[2])
			tr.acks[i] = f[1]
		case f[0] == "proof":
			tr.proofs[f[1]] = f[2] + " " + f[3]
		case f[0] == "saved":
			n, _ := strconv.ParseUint(f[2], 10, 64)
			tr.saved[f[1]] = max(tr.saved[f[1]], n)
		case f[0] == "resumed":
			n, _ := strconv.ParseUint(f[2], 10, 64)
			tr.resumed++
			if n < tr.saved[f[1]] {
				t.Errorf("round %s went on from leaf %d, %d were saved", f[1], n, tr.saved[f[1]])
			}
		}
	}
	cmd.Wait()
	if strings.Contains(stderr.String(), "panic") || strings.Contains(stderr.String(), "DATA RACE") {
		t.Fatalf("child: %s", stderr.String())
	}
}

// Killed at random moments, a server loses no acknowledged registration and no
// proof, goes on from its last checkpoint, and its roots are those of a run that
// was never interrupted.
func TestKillAtRandomMoments(t *testing.T) {
	t.Parallel() // it waits most of its time
	few := int64(20)
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		few = 1000
	}
	kills := int(envInt(killsEnv, few))
	seed := uint64(envInt("POET_SEED", time.Now().UnixNano()))
	t.Logf("seed %d, %d kills", seed, kills)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := filepath.Join(t.TempDir(), "poet")
	genesis := time.Now().UnixMilli()
	tr := &truth{acks: map[int]string{}, proofs: map[string]string{}, saved: map[string]uint64{}}
	idle := func() bool { return tr.resumed == 0 || len(tr.proofs) == 0 || len(tr.acks) == 0 }
	// On a machine too slow to do anything in so short lives they get longer.
	for i := 0; i < kills || kills >= 20 && idle() && i < 6*kills; i++ {
		life := time.Duration(30+r.IntN(470*(1+i/kills))) * time.Millisecond
		tr.live(t, dir, genesis, i*1_000_000, life, i%2 == 0)
		if t.Failed() {
			t.FailNow()
		}
	}
	tr.check(t, dir, genesis)
	t.Logf("%d registrations acknowledged, %d proofs announced, %d times a round went on, slowest start-up %s",
		len(tr.acks), len(tr.proofs), tr.resumed, tr.slowest)
	if kills >= 20 && idle() {
		t.Error("the kills have tested nothing")
	}
	if kills >= 200 && tr.slowest > 5*time.Second {
		t.Errorf("a start took %s", tr.slowest)
	}
}

// check lets a server finish all rounds and compares it with what was said.
func (tr *truth) check(t *testing.T, dir string, genesis int64) {
	t.Helper()
	s := start(t, childConfig(dir, genesis))
	defer s.close()
	rounds := map[string]poet.ProofRecord{}
	for _, round := range tr.acks {
		rounds[round] = poet.ProofRecord{}
	}
	for round := range tr.proofs {
		rounds[round] = poet.ProofRecord{}
	}
	for round := range rounds {
		for {
			if _, err := s.Proof(t.Context(), round); err == nil {
				break
			}
			select {
			case <-s.proofs:
			case err := <-s.ended:
				t.Fatalf("server ended before round %s was proved: %v", round, err)
			case <-time.After(30 * time.Second):
				t.Fatalf("no proof of round %s", round)
			}
		}
		rounds[round] = s.checkProof(round)
		checkRoot(t, rounds[round])
	}
	for round, said := range tr.proofs {
		p := rounds[round].Message.Proof
		if is := fmt.Sprintf("%s %d", hex.EncodeToString(p.Root[:]), p.NumLeaves); is != said {
			t.Errorf("proof of round %s is %s and was %s", round, is, said)
		}
	}
	for i, round := range tr.acks {
		key := smesher(i).Public().(ed25519.PublicKey)
		m, err := s.Member(t.Context(), round, key)
		if err != nil || !bytes.Equal(m.Challenge[:], challenge(i)) {
			t.Errorf("member %d of round %s: %v", i, round, err)
		}
	}
}

// checkRoot compares a proof with an uninterrupted run of as many leaves.
func checkRoot(t *testing.T, p poet.ProofRecord) {
	t.Helper()
	leaves := p.Message.Proof.NumLeaves
	twin := posw.NewProver(p.Statement(), 4)
	want, err := twin.Prove(bytes.NewReader(twin.Advance(leaves, nil)), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want.Root != [32]byte(p.Message.Proof.Root) {
		t.Fatalf("round %s: root of %d leaves is not that of an uninterrupted run", p.Message.RoundID, leaves)
	}
}
