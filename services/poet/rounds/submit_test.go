package rounds

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tweedle/base/durable/durabletest"
	"tweedle/protocol/registration"
	"tweedle/services/poet"
)

// Each bad registration gets its own error with a reason, and nothing is stored.
func TestBadRegistrations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		certifier, trusted, stranger := smesher(1001), smesher(1002), smesher(1003)
		keys := t.TempDir()
		text := base64.StdEncoding.EncodeToString(trusted.Public().(ed25519.PublicKey))
		if err := os.WriteFile(filepath.Join(keys, "a.key"), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := config(t, time.Now())
		cfg.PowDifficulty, cfg.MaxRoundMembers, cfg.SubmitFlush = 8, 3, time.Millisecond
		cfg.Certifier, cfg.TrustedKeysDir = certifier.Public().(ed25519.PublicKey), keys
		s := start(t, cfg)
		defer s.close()

		certified := func(by ed25519.PrivateKey, id []byte, expiry time.Time) func(*poet.Registration) {
			return func(r *poet.Registration) {
				if id == nil {
					id = r.NodeID
				}
				data := registration.EncodeCertificate(id, expiry)
				r.Certificate = &registration.Certificate{Data: data, Signature: ed25519.Sign(by, data)}
				r.Pow = registration.PowParams{}
			}
		}
		hinted := func(by ed25519.PrivateKey, f func(*poet.Registration)) func(*poet.Registration) {
			return func(r *poet.Registration) { f(r); r.Hint = by.Public().(ed25519.PublicKey)[:4] }
		}
		hour := time.Now().Add(time.Hour)
		for _, c := range []struct {
			name string
			make func(r *poet.Registration)
			want error
		}{
			{"challenge of 31 bytes", func(r *poet.Registration) { r.Challenge = r.Challenge[:31] }, poet.ErrInvalid},
			{"challenge of 33 bytes", func(r *poet.Registration) { r.Challenge = append(r.Challenge, 0) }, poet.ErrInvalid},
			{"no challenge", func(r *poet.Registration) { r.Challenge = nil }, poet.ErrInvalid},
			{"public key of 31 bytes", func(r *poet.Registration) { r.NodeID = r.NodeID[:31] }, poet.ErrInvalid},
			{"signature of 63 bytes", func(r *poet.Registration) { r.Signature = r.Signature[:63] }, poet.ErrInvalid},
			{"signature of something else", func(r *poet.Registration) { r.Signature[3] ^= 1 }, poet.ErrInvalid},
			{"other prefix", func(r *poet.Registration) { r.Prefix = []byte("nex") }, poet.ErrInvalid},
			{"endless prefix", func(r *poet.Registration) { r.Prefix = make([]byte, 1000) }, poet.ErrInvalid},
			{"wrong nonce", func(r *poet.Registration) { r.Nonce++ }, poet.ErrInvalid},
			{"empty challenge of the work", func(r *poet.Registration) {
				r.Pow.Challenge = nil
				r.Nonce, _ = registration.SolvePow(r.Pow, r.NodeID, r.Challenge, 1<<20)
			}, poet.ErrInvalid},
			{"easier work", func(r *poet.Registration) { r.Pow.Difficulty = 0 }, poet.ErrInvalid},
			{"round ends after the deadline", func(r *poet.Registration) { r.Deadline = s.cfg.Schedule.End(0).Add(-1) }, poet.ErrTooLate},
			{"certificate by a stranger", certified(stranger, nil, hour), poet.ErrUnauthorised},
			{"certificate for another", certified(certifier, stranger.Public().(ed25519.PublicKey), hour), poet.ErrUnauthorised},
			{"expired certificate", certified(certifier, nil, time.Now()), poet.ErrUnauthorised},
			{"trusted certifier without a hint", certified(trusted, nil, hour), poet.ErrUnauthorised},
			{"hint of another certifier", hinted(stranger, certified(trusted, nil, hour)), poet.ErrUnauthorised},
			{"hint of 3 bytes", func(r *poet.Registration) { certified(trusted, nil, hour)(r); r.Hint = []byte{1, 2, 3} }, poet.ErrInvalid},
			{"certificate of rubbish", func(r *poet.Registration) {
				r.Certificate = &registration.Certificate{Data: []byte{1, 2, 3}, Signature: make([]byte, 64)}
			}, poet.ErrUnauthorised},
			{"endless certificate", func(r *poet.Registration) {
				r.Certificate = &registration.Certificate{Data: make([]byte, 1<<20), Signature: make([]byte, 64)}
			}, poet.ErrInvalid},
		} {
			r := request(s.PowParams(), 0)
			r.Challenge, r.Signature = slices.Clone(r.Challenge), slices.Clone(r.Signature)
			c.make(&r)
			_, err := s.Submit(context.Background(), r)
			if !errors.Is(err, c.want) || strings.ContainsRune(err.Error(), '\n') || len(err.Error()) <= len(c.want.Error())+2 {
				t.Errorf("%s: %v, want %v with a reason on one line", c.name, err, c.want)
			}
		}
		if n := s.book.Members(0); n != 0 {
			t.Fatalf("%d members were stored", n)
		}

		for i, make := range []func(*poet.Registration){
			func(*poet.Registration) {}, certified(certifier, nil, time.Time{}), hinted(trusted, certified(trusted, nil, hour)),
		} {
			r := request(s.PowParams(), i)
			make(&r)
			if _, err := s.Submit(context.Background(), r); err != nil {
				t.Errorf("good registration %d: %v", i, err)
			}
		}
		if _, err := s.Submit(context.Background(), request(s.PowParams(), 9)); !errors.Is(err, poet.ErrExhausted) {
			t.Errorf("more members than allowed: %v", err)
		}
		if r := s.register(1); r.Challenge != [32]byte(challenge(1)) {
			t.Error("a full round has forgotten a member")
		}
		other := request(s.PowParams(), 1)
		other.Challenge = challenge(77)
		other.Signature = ed25519.Sign(smesher(1), append([]byte("net"), other.Challenge...))
		other.Nonce, _ = registration.SolvePow(other.Pow, other.NodeID, other.Challenge, 1<<20)
		if _, err := s.Submit(context.Background(), other); !errors.Is(err, poet.ErrExists) {
			t.Errorf("another challenge: %v", err)
		}
	})
}

// The parameters of the work survive a restart, and no restart makes an empty
// challenge valid (reference/poet.md 5, case 10).
func TestPowParametersSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, time.Now())
		s := start(t, cfg)
		first := s.PowParams()
		s.register(7)
		<-s.proofs
		second := s.PowParams()
		s.close()
		s = start(t, cfg)
		defer s.close()
		if !s.PowParams().Equal(second) || second.Equal(first) {
			t.Fatalf("%x after a restart, %x before, %x at first", s.PowParams().Challenge, second.Challenge, first.Challenge)
		}
		if _, err := s.Submit(context.Background(), request(first, 1)); err != nil {
			t.Errorf("previous parameters: %v", err)
		}
		empty := registration.PowParams{Difficulty: first.Difficulty}
		if _, err := s.Submit(context.Background(), request(empty, 2)); !errors.Is(err, poet.ErrInvalid) {
			t.Errorf("empty challenge: %v", err)
		}
	})
}

// A database that has no room refuses registrations with a clear error, keeps the
// acknowledged ones, and takes new ones when there is room.
func TestFullDiskRefusesRegistrations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, time.Now())
		cfg.SubmitFlush = time.Millisecond
		s := start(t, cfg)
		defer s.close()
		kept := s.register(1)
		var full atomic.Bool
		tx, err := bolt(s.Service).Begin(true) // nobody writes meanwhile
		if err != nil {
			t.Fatal(err)
		}
		hookWrites(bolt(s.Service), func(p []byte, off int64, write func([]byte, int64) (int, error)) (int, error) {
			if full.Load() {
				n, _ := write(p[:len(p)/2], off)
				return n, &os.PathError{Op: "write", Path: "poet.db", Err: syscall.ENOSPC}
			}
			return write(p, off)
		})
		tx.Rollback()
		full.Store(true)
		for i := 2; i < 5; i++ {
			if _, err := s.Submit(context.Background(), request(s.PowParams(), i)); !errors.Is(err, poet.ErrDiskFull) {
				t.Fatalf("registration on a full disk: %v", err)
			}
		}
		if n := s.count(poet.EventDiskFull); n != 1 {
			t.Errorf("%d events of a full disk, want 1", n)
		}
		full.Store(false)
		if n := s.book.Members(0); n != 1 {
			t.Fatalf("%d members", n)
		}
		more := s.register(2)
		<-s.proofs
		s.checkMember(kept)
		s.checkMember(more)
		if p := s.checkProof("0"); len(p.Members) != 2 {
			t.Fatalf("%d members", len(p.Members))
		}
	})
}

// While a round executes the disk runs full: the round does not stop, its journal
// pauses with an alert and is complete again when there is room, and the ballast
// makes room for what must be written.
func TestFullDiskDoesNotStopARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, time.Now())
		cfg.Work.K, cfg.Work.CheckpointInterval = 2, 100*time.Millisecond
		mem := durabletest.NewMem(1 << 30)
		cfg.FS = mem
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s := start(t, cfg)
		s.register(1)
		time.Sleep(time.Until(cfg.Schedule.Start(0)) + 550*time.Millisecond)
		mem.SetCapacity(0)
		before := s.Rounds()[0]
		time.Sleep(500 * time.Millisecond)
		during := s.Rounds()[0]
		if !during.JournalPaused || s.count(poet.EventJournalPaused) != 1 {
			t.Errorf("journal is not paused: %+v", during)
		}
		if got := during.Leaves - before.Leaves; got < 400 || during.Checkpoint > before.Leaves {
			t.Errorf("%d leaves in half a second on a full disk, %d saved", got, during.Checkpoint)
		}
		if st := s.Storage(); st.Free != 0 || st.Needed == 0 || st.Fit > 1 {
			t.Errorf("storage %+v", st)
		}
		mem.SetCapacity(1 << 30)
		time.Sleep(300 * time.Millisecond)
		after := s.Rounds()[0]
		if after.JournalPaused || s.count(poet.EventJournalResumed) != 1 || after.Checkpoint+200 < after.Leaves {
			t.Errorf("journal is not complete again: %+v", after)
		}
		s.close()
		cfg.FS = mem.Crash(1)
		s = start(t, cfg)
		defer s.close()
		<-s.proofs
		if p := s.checkProof("0"); p.Message.Proof.NumLeaves < after.Leaves {
			t.Errorf("%d leaves after the restart, %d before", p.Message.Proof.NumLeaves, after.Leaves)
		}
	})
}

// The ballast is given up to save a proof.
func TestBallastSavesTheProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, time.Now())
		mem := durabletest.NewMem(1 << 30)
		cfg.FS = mem
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s := start(t, cfg)
		defer s.close()
		s.register(1)
		time.Sleep(time.Until(cfg.Schedule.Start(0)) + 500*time.Millisecond)
		if !s.Storage().Ballast {
			t.Fatal("no ballast")
		}
		tx, err := bolt(s.Service).Begin(true)
		if err != nil {
			t.Fatal(err)
		}
		// The database has room only where the ballast was.
		var roomy atomic.Bool
		hookWrites(bolt(s.Service), func(p []byte, off int64, write func([]byte, int64) (int, error)) (int, error) {
			if roomy.Load() {
				return write(p, off)
			}
			if _, err := mem.Open(s.storage.ballastPath()); err == nil {
				return 0, syscall.ENOSPC
			}
			return write(p, off)
		})
		tx.Rollback()
		<-s.proofs
		s.checkProof("0")
		if s.count(poet.EventBallast) != 1 {
			t.Errorf("%d events of the ballast", s.count(poet.EventBallast))
		}
		roomy.Store(true)
		time.Sleep(2 * storageInterval)
		if !s.Storage().Ballast {
			t.Error("ballast is not back although there is room")
		}
	})
}

// Little room is told once, and once more when it is over.
func TestLittleRoomIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, time.Now())
		mem := durabletest.NewMem(1 << 30)
		cfg.FS = mem
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s := start(t, cfg)
		defer s.close()
		time.Sleep(storageInterval / 10)
		st := s.Storage()
		if st.Fit < poet.MinRoundsFit || !st.Ballast || st.Reserved != uint64(cfg.BallastBytes) || s.count(poet.EventDiskLow) != 0 {
			t.Errorf("plenty of room: %+v", st)
		}
		mem.SetCapacity(cfg.BallastBytes + int64(st.Needed)*5/2 + 5000)
		time.Sleep(3 * storageInterval)
		if st = s.Storage(); st.Fit != 2 || s.count(poet.EventDiskLow) != 1 {
			t.Errorf("room for two rounds: %+v, told %d times", st, s.count(poet.EventDiskLow))
		}
		mem.SetCapacity(1 << 30)
		time.Sleep(3 * storageInterval)
		if s.count(poet.EventDiskLow) != 1 || s.count(poet.EventDiskFine) != 1 {
			t.Error("the end of it was not told once")
		}
	})
}

// Registrations that come while a round closes are in the round that their receipt
// names, however the two meet.
func TestRegistrationsAtTheBorder(t *testing.T) {
	t.Parallel() // it waits most of its time
	cfg := config(t, time.Now())
	cfg.Schedule.PhaseShift, cfg.Schedule.EpochDuration, cfg.Schedule.CycleGap = 50*time.Millisecond, 60*time.Millisecond, 30*time.Millisecond
	cfg.SubmitFlush, cfg.PowDifficulty, cfg.Work.LeavesPerSecond, cfg.Work.MaxLeavesPerSecond = time.Millisecond, 0, 1e5, 1e5
	s := start(t, cfg)
	var mu sync.Mutex
	var receipts []poet.Receipt
	var group sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for w := range 4 {
		group.Go(func() {
			for i := w * 100_000; ctx.Err() == nil; i++ {
				if r, err := s.Submit(ctx, request(s.PowParams(), i)); err == nil {
					mu.Lock()
					receipts = append(receipts, r)
					mu.Unlock()
				}
			}
		})
	}
	group.Wait()
	last := receipts[len(receipts)-1].Round
	for round := range s.proofs {
		if round == last {
			break
		}
	}
	rounds := map[string]bool{}
	for _, r := range receipts {
		rounds[r.Round] = true
		s.checkMember(r)
	}
	if len(rounds) < 5 {
		t.Errorf("%d registrations in only %d rounds", len(receipts), len(rounds))
	}
	s.close()
}

// A stop does not wait for a proof that takes long.
func TestStopWhileProving(t *testing.T) {
	t.Parallel()                                  // it waits most of its time
	cfg := config(t, time.Now().Add(time.Second)) // also a slow start comes before
	// A short epoch: the second start looks at its clock for a part of one.
	cfg.Schedule.PhaseShift, cfg.Schedule.EpochDuration, cfg.Schedule.CycleGap = 0, 20*time.Second, 20*time.Second-900*time.Millisecond
	cfg.Work.K, cfg.Work.MaxLeavesPerSecond, cfg.Work.LeavesPerSecond, cfg.Work.ProveWorkers = 12, 0, 50_000, 1
	s := start(t, cfg)
	s.register(1)
	for s.count(poet.EventProving) == 0 {
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	s.close()
	t.Logf("stopped in %s", time.Since(begin))
	if len(s.proofs) > 0 {
		t.Skip("the proof was made before the stop: nothing was tested")
	}
	s = start(t, cfg)
	<-s.proofs
	p := s.checkProof("0")
	if s.count(poet.EventResumed) != 1 || len(p.Message.Proof.Leaves) == 0 {
		t.Error("round did not go on")
	}
	if !bytes.Equal(s.PowParams().Challenge, p.Message.Proof.Root[:]) {
		t.Error("challenge was not rotated")
	}
	s.close()
	time.Sleep(time.Second) // what was left behind by the first stop ends now
}

// Whose registration is stored and who goes before the receipt is signed has had a
// registration like others: its key pays for it.
func TestWhoLeavesBeforeTheReceiptIsUnfinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, time.Now())
		cfg.SubmitFlush = time.Second
		s := start(t, cfg)
		defer s.close()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			_, err := s.Submit(ctx, request(s.PowParams(), 1))
			ended <- err
		}()
		synctest.Wait() // it waits for others to be stored with
		for range cap(s.registrar.crypto) {
			s.registrar.crypto <- struct{}{}
		}
		if err := <-ended; !errors.Is(err, poet.ErrUnfinished) || !errors.Is(err, context.DeadlineExceeded) || s.book.Members(0)+s.book.Members(1) != 1 {
			t.Fatalf("%v, and %d are stored", err, s.book.Members(0)+s.book.Members(1))
		}
		for range cap(s.registrar.crypto) {
			<-s.registrar.crypto
		}
	})
}
