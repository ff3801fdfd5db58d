package rounds

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/proofs/posw"
	"tweedle/protocol/registration"
	"tweedle/services/poet"
	"tweedle/services/poet/work"
	"tweedle/values/merkle"
)

// server is a Service in a test, with what it told.
type server struct {
	*Service
	t      *testing.T
	stop   context.CancelFunc
	ended  chan error
	mu     sync.Mutex
	events []poet.Event
	proofs chan string
}

func config(t *testing.T, genesis time.Time) Config {
	cfg := Config{Dir: filepath.Join(t.TempDir(), "poet"), Work: work.Config{LeavesPerSecond: 1000, MaxLeavesPerSecond: 1000}, BallastBytes: 1 << 16, PowDifficulty: 2}
	cfg.Schedule.Genesis = genesis
	cfg.Schedule.EpochDuration = 4 * time.Second
	cfg.Schedule.PhaseShift = time.Second
	cfg.Schedule.CycleGap = 2 * time.Second
	return cfg
}

func start(t *testing.T, cfg Config) *server {
	t.Helper()
	s := &server{t: t, ended: make(chan error, 1), proofs: make(chan string, 1<<16)}
	cfg.OnEvent = func(e poet.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
		t.Logf("%s %s round %s: %s %v", time.Now().Format("05.000"), e.Kind, e.Round, e.Text, e.Err)
	}
	cfg.OnProof = func(round string) { s.proofs <- round }
	var err error
	if s.Service, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	go func() { s.ended <- s.Run(ctx) }()
	return s
}

func (s *server) close() {
	s.t.Helper()
	s.stop()
	if err := <-s.ended; err != nil {
		s.t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) count(kind poet.EventKind) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// smesher makes the i-th member's key.
func smesher(i int) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint64(seed, uint64(i))
	return ed25519.NewKeyFromSeed(seed)
}

func challenge(i int) []byte {
	c := bytes.Repeat([]byte{7}, 32)
	binary.BigEndian.PutUint64(c, uint64(i))
	return c
}

func request(p registration.PowParams, i int) poet.Registration {
	key := smesher(i)
	r := poet.Registration{
		NodeID: key.Public().(ed25519.PublicKey), Challenge: challenge(i), Prefix: []byte("net"), Pow: p,
	}
	r.Signature = ed25519.Sign(key, append([]byte("net"), r.Challenge...))
	r.Nonce, _ = registration.SolvePow(p, r.NodeID, r.Challenge, 1<<20)
	return r
}

func (s *server) register(i int) poet.Receipt {
	s.t.Helper()
	receipt, err := s.Submit(context.Background(), request(s.PowParams(), i))
	if err != nil {
		s.t.Fatalf("member %d: %v", i, err)
	}
	if !receipt.Verify() {
		s.t.Fatal("receipt does not verify")
	}
	return receipt
}

// checkProof checks a stored proof as a node does.
func (s *server) checkProof(round string) poet.ProofRecord {
	s.t.Helper()
	p, err := s.Proof(s.t.Context(), round)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(p.Members) > 0 && merkle.Root(p.Members) != [32]byte(p.Message.Statement) {
		s.t.Fatalf("round %s: members do not give the statement", round)
	}
	if err := posw.Verify(p.Statement(), &p.Message.Proof, 1); err != nil {
		s.t.Fatalf("round %s: %v", round, err)
	}
	return p
}

func (s *server) checkMember(r poet.Receipt) {
	s.t.Helper()
	m, err := s.Member(s.t.Context(), r.Round, r.NodeID[:])
	if err != nil {
		s.t.Fatal(err)
	}
	if m.Challenge != r.Challenge || !m.Time.Equal(r.Time) {
		s.t.Fatalf("member differs from its receipt: %+v, %+v", m, r)
	}
	if err := merkle.Verify(m.Statement, m.Challenge, m.Index, m.Members, m.Proof); err != nil {
		s.t.Fatal(err)
	}
}

// Three rounds on the clock: registrations become members, each round that has some
// ends in a proof, and its data goes away. Nobody waits for an empty round.
func TestRoundsOnTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, config(t, time.Now()))
		var receipts []poet.Receipt
		for i := range 5 {
			receipts = append(receipts, s.register(i))
		}
		if r := receipts[0]; r.Round != "0" || !r.End.Equal(s.cfg.Schedule.End(0)) {
			t.Fatalf("receipt for round %s that ends %s", r.Round, r.End)
		}
		again := s.register(0)
		if again != receipts[0] {
			t.Fatal("a repeated registration got another receipt")
		}
		if round := <-s.proofs; round != "0" {
			t.Fatalf("proof of round %s", round)
		}
		p := s.checkProof("0")
		if len(p.Members) != 5 || p.Message.Proof.NumLeaves < 1900 || p.Message.Proof.NumLeaves > 2100 {
			t.Fatalf("%d members, %d leaves", len(p.Members), p.Message.Proof.NumLeaves)
		}
		for _, r := range receipts {
			s.checkMember(r)
		}
		if got := s.PowParams().Challenge; !bytes.Equal(got, p.Message.Proof.Root[:]) {
			t.Fatal("the proof did not rotate the registration's challenge")
		}
		time.Sleep(time.Until(s.cfg.Schedule.Start(1)) + time.Millisecond)
		if last := s.register(9); last.Round != "2" {
			t.Fatalf("registered in round %s", last.Round)
		}
		if round := <-s.proofs; round != "2" {
			t.Fatalf("proof of round %s", round)
		}
		s.checkProof("2")
		if _, err := s.Proof(t.Context(), "1"); !errors.Is(err, poet.ErrNotFound) || s.count(poet.EventExecuting) != 2 {
			t.Fatalf("an empty round: %v, %d executions", err, s.count(poet.EventExecuting))
		}
		time.Sleep(100 * time.Millisecond)
		if _, err := s.Member(t.Context(), "2", challenge(1)); !errors.Is(err, poet.ErrNotFound) {
			t.Fatalf("a stranger is a member: %v", err)
		}
		names, err := s.cfg.FS.ReadDir(filepath.Join(s.cfg.Dir, roundsDir))
		if err != nil || len(names) > 0 {
			t.Fatalf("round data is left: %v, %v", names, err)
		}
		s.close()
	})
}
