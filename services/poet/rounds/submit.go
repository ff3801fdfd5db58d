package rounds

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"tweedle/protocol/registration"
	"tweedle/services/poet"
	"tweedle/services/poet/book"
	"tweedle/values/types"
)

// MaxPending is the number of registrations that may be under way at a time; more
// are refused with ErrBusy.
const MaxPending = 8192

// registrar takes registrations, checks them, and stores them in batches.
type registrar struct {
	*Service
	pending chan struct{} // holds a token for each registration under way
	crypto  chan struct{} // and for each that checks or makes a signature now
	queue   chan *submission
	pow     atomic.Pointer[book.Pow]
	trusted atomic.Pointer[[]ed25519.PublicKey]
	failing bool // the book takes no registrations, which was told; owned by run
}

// submission is an entry whose sender waits for done to be closed. It holds a token
// of pending until then, whether its sender still waits or not.
type submission struct {
	book.Entry
	done chan struct{}
}

// load makes a registrar ready.
func (s *registrar) load() error {
	s.pending, s.queue = make(chan struct{}, MaxPending), make(chan *submission, MaxPending)
	s.crypto = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))
	if err := s.ReloadTrustedKeys(); err != nil {
		return err
	}
	// The challenges are stored when they change, so that no restart brings an
	// old or an empty one back.
	p, err := s.book.Pow()
	if err != nil {
		return err
	}
	if len(p.Current) == 0 {
		p.Current = make([]byte, 32)
		rand.Read(p.Current)
		if err := s.book.WritePow(p); err != nil {
			return err
		}
	}
	s.pow.Store(&p)
	return nil
}

// Submit registers a member in the open round. When it returns a receipt the
// registration is durable. An error wraps one of package poet's, with the reason.
// If ctx ends first the registration may be stored all the same; sending it again
// does no harm.
func (s *Service) Submit(ctx context.Context, r poet.Registration) (poet.Receipt, error) {
	return s.registrar.submit(ctx, r)
}

func (s *registrar) submit(ctx context.Context, r poet.Registration) (poet.Receipt, error) {
	if why := s.latest.Load().refuse; why != "" {
		return poet.Receipt{}, fmt.Errorf("%w: %s", poet.ErrBusy, why)
	}
	select {
	case s.pending <- struct{}{}:
	default:
		return poet.Receipt{}, fmt.Errorf("%w: %d registrations are under way", poet.ErrBusy, MaxPending)
	}
	if err := s.authorise(ctx, &r); err != nil {
		<-s.pending
		return poet.Receipt{}, err
	}
	sub := &submission{done: make(chan struct{})}
	sub.NodeID, sub.Deadline = types.NodeID(r.NodeID), r.Deadline
	sub.Member.Challenge = [32]byte(r.Challenge)
	s.queue <- sub // never full: each in it holds a token of pending
	select {
	case <-sub.done:
	case <-s.stopped:
		return poet.Receipt{}, poet.ErrStopped
	case <-ctx.Done():
		return poet.Receipt{}, fmt.Errorf("%w: %w", poet.ErrUnfinished, ctx.Err())
	}
	if sub.Err != nil {
		return poet.Receipt{}, sub.Err
	}
	select {
	case s.crypto <- struct{}{}:
		defer func() { <-s.crypto }()
	case <-ctx.Done():
		return poet.Receipt{}, fmt.Errorf("%w: %w", poet.ErrUnfinished, ctx.Err())
	}
	return s.receipt(sub.Round, sub.NodeID, sub.Member), nil
}

// authorise checks everything that does not depend on the round, the cheap first.
// As many do so at a time as there are cores that no prover needs: a prover must
// not stand in line with registrations.
func (s *registrar) authorise(ctx context.Context, r *poet.Registration) error {
	if err := r.CheckShape(); err != nil {
		return fmt.Errorf("%w: %w", poet.ErrInvalid, err)
	}
	select {
	case s.crypto <- struct{}{}:
		defer func() { <-s.crypto }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.cfg.Certifier != nil && r.Certificate != nil {
		err := r.CheckCertificate(s.certifiers(r.Hint), s.clock.Now())
		s.metrics.withCert.WithLabelValues(result(err)).Inc()
		if err != nil {
			return fmt.Errorf("%w: %w", poet.ErrUnauthorised, err)
		}
	} else {
		p := s.pow.Load()
		err := r.CheckPow(s.cfg.PowDifficulty, p.Current, p.Previous)
		s.metrics.withPow.WithLabelValues(result(err)).Inc()
		if err != nil {
			return fmt.Errorf("%w: %w", poet.ErrInvalid, err)
		}
	}
	if err := r.CheckSignature(); err != nil {
		return fmt.Errorf("%w: %w", poet.ErrInvalid, err)
	}
	return nil
}

// run stores registrations in batches until ctx ends. One sync of the disk serves a
// whole batch.
func (s *registrar) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var batch []*submission
		select {
		case <-ctx.Done():
			return
		case sub := <-s.queue:
			batch = append(batch, sub)
		}
		timer.Reset(s.cfg.SubmitFlush)
		for waiting := true; waiting && len(batch) < s.cfg.MaxSubmitBatch; {
			select {
			case sub := <-s.queue:
				batch = append(batch, sub)
			case <-timer.C:
				waiting = false
			case <-ctx.Done():
				waiting = false
			}
		}
		s.storeBatch(batch)
	}
}

func (s *registrar) storeBatch(batch []*submission) {
	entries := make([]*book.Entry, len(batch))
	for i, sub := range batch {
		entries[i] = &sub.Entry
	}
	begin := time.Now()
	var number uint32
	added, err := s.book.Register(entries, s.cfg.MaxRoundMembers, func() (uint32, time.Time, time.Time) {
		// The machine says which round is open, not the clock: it may be a
		// moment late to close a round, and then this one still joins it.
		number = s.latest.Load().open
		return number, s.cfg.Schedule.End(number), s.clock.Now()
	})
	s.metrics.batchLatency.Observe(time.Since(begin).Seconds())
	if err == nil {
		s.metrics.joined(number, added)
	}
	if err != nil && !s.failing {
		e := poet.Event{Kind: poet.EventWriteFailed, Text: "registrations are refused: they cannot be stored", Err: err}
		if errors.Is(err, poet.ErrDiskFull) {
			e.Kind, e.Text = poet.EventDiskFull, "registrations are refused: make room on the disk"
		}
		s.emit(e)
	}
	s.failing = err != nil
	for _, sub := range batch {
		if err != nil {
			sub.Err = plain(err)
		}
		<-s.pending
		close(sub.done)
	}
}

// plain is what the public learns of an error of the book, which names files.
func plain(err error) error {
	if errors.Is(err, poet.ErrDiskFull) {
		return fmt.Errorf("%w: nothing is acknowledged, try again later", poet.ErrDiskFull)
	}
	return poet.ErrStopped
}

// certifiers returns the keys that may have signed a certificate: without a hint
// the configured one, else all that begin with it (reference/poet.md 1.7).
func (s *registrar) certifiers(hint []byte) []ed25519.PublicKey {
	if len(hint) == 0 {
		return []ed25519.PublicKey{s.cfg.Certifier}
	}
	var keys []ed25519.PublicKey
	for _, key := range append([]ed25519.PublicKey{s.cfg.Certifier}, *s.trusted.Load()...) {
		if bytes.HasPrefix(key, hint) {
			keys = append(keys, key)
		}
	}
	return keys
}

// MaxTrustedKeys is the number of trusted certifier keys that a server can have.
const MaxTrustedKeys = 1000

// ReloadTrustedKeys reads the directory of trusted certifier keys again. After an
// error the keys are as before.
func (s *Service) ReloadTrustedKeys() error {
	keys, err := readTrustedKeys(s.cfg.TrustedKeysDir)
	if err != nil {
		return err
	}
	s.registrar.trusted.Store(&keys)
	return nil
}

func readTrustedKeys(dir string) (keys []ed25519.PublicKey, err error) {
	if dir == "" {
		return nil, nil
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil {
		return nil, err
	}
	if len(paths) > MaxTrustedKeys {
		return nil, fmt.Errorf("%s has %d trusted keys, more than %d", dir, len(paths), MaxTrustedKeys)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || len(key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%s is not a public key of %d bytes in base64", path, ed25519.PublicKeySize)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// PowParams returns the current parameters of a registration's proof of work.
func (s *Service) PowParams() registration.PowParams {
	return registration.PowParams{Challenge: s.registrar.pow.Load().Current, Difficulty: s.cfg.PowDifficulty}
}
