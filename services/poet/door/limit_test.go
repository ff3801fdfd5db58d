package door

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tweedle/edges/api/gen/poetpb"
	"tweedle/protocol/registration"
	"tweedle/services/poet"
)

// A key has its own limit, which only its own signature uses up.
func TestOneKeyCannotKeepTheServerBusyNorBeBlockedByOthers(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		schedule := testSchedule()
		schedule.PhaseShift, schedule.EpochDuration = time.Hour, 2*time.Hour
		r := newRig(t, dir, schedule, nil)
		forged := r.submission(0)
		forged["signature"] = make([]byte, 64)
		for range 3 * r.cfg.Limits.KeyBurst {
			if code, b, _ := r.call(http.MethodPost, "/v1/submit", encode(t, forged)); code != http.StatusBadRequest {
				t.Fatalf("a forged registration: %d %s", code, b)
			}
		}
		good := encode(t, r.submission(0))
		ok, limited := 0, 0
		synced := time.Now()
		for range 2 * r.cfg.Limits.KeyBurst {
			switch code, b, _ := r.call(http.MethodPost, "/v1/submit", good); code {
			case http.StatusOK:
				ok++
			case http.StatusTooManyRequests:
				if !strings.Contains(string(b), "this key") {
					t.Fatalf("limited with %s", b)
				}
				limited++
			default:
				t.Fatalf("%d %s", code, b)
			}
		}
		refilled := int(time.Since(synced) / time.Second)
		if ok < r.cfg.Limits.KeyBurst || ok > r.cfg.Limits.KeyBurst+refilled+1 || limited == 0 {
			t.Fatalf("%d allowed, %d limited", ok, limited)
		}
	})
}

// scripted is a backend whose next answers a test writes.
type scripted struct {
	Backend
	submit error
	calls  int
}

func (s *scripted) Submit(context.Context, poet.Registration) (poet.Receipt, error) {
	s.calls++
	return poet.Receipt{}, s.submit
}

func (s *scripted) PowParams() registration.PowParams { return registration.PowParams{} }

// A key pays for every registration that it signed, whatever became of it, and
// for none that somebody else sent in its name.
func TestAKeyPaysForWhatItSigned(t *testing.T) {
	for _, c := range []struct {
		err  error
		pays bool
	}{
		{nil, true},
		{fmt.Errorf("%w: x", poet.ErrExists), true},
		{fmt.Errorf("%w: x", poet.ErrTooLate), true},
		{fmt.Errorf("%w: x", poet.ErrExhausted), true},
		{fmt.Errorf("%w: x", poet.ErrDiskFull), true},
		{fmt.Errorf("%w: %w", poet.ErrUnfinished, context.DeadlineExceeded), true},
		{fmt.Errorf("%w: x", poet.ErrInvalid), false},
		{fmt.Errorf("%w: x", poet.ErrUnauthorised), false},
		{fmt.Errorf("%w: x", poet.ErrBusy), false},
		{context.DeadlineExceeded, false}, // before the signature was looked at
	} {
		b := &scripted{submit: c.err}
		cfg := Config{Limits: DefaultLimits()}
		cfg.Limits.PerKey, cfg.Limits.KeyBurst = 1e-9, 3
		p := newPublic(b, cfg)
		for range 10 {
			_, _ = p.Submit(t.Context(), &poetpb.SubmitRequest{
				Pubkey: make([]byte, 32), Challenge: make([]byte, 32), Signature: make([]byte, 64),
			})
		}
		if want := map[bool]int{true: 3, false: 10}[c.pays]; b.calls != want {
			t.Errorf("%v: %d of 10 registrations came through, want %d", c.err, b.calls, want)
		}
	}
}

// What is wrong with the server's disk is not told to strangers.
func TestNoPathsAreToldToStrangers(t *testing.T) {
	for err, want := range map[error]codes.Code{
		fmt.Errorf("%w: write batch of /srv/poet/poet.db: no space left", poet.ErrDiskFull):     codes.Unavailable,
		fmt.Errorf("%w: /srv/poet is being closed", poet.ErrStopped):                            codes.Unavailable,
		fmt.Errorf("/srv/poet/poet.db: %w", poet.ErrDamaged):                                    codes.Internal,
		fmt.Errorf("open /srv/poet/poet.db: too many open files"):                               codes.Internal,
		fmt.Errorf("%w: reading /srv/poet/poet.db: %w", poet.ErrBusy, context.DeadlineExceeded): codes.Unavailable,
		fmt.Errorf("reading /srv/poet/poet.db: %w", context.DeadlineExceeded):                   codes.DeadlineExceeded,
		fmt.Errorf("%w: %w: /srv/poet/poet.db", poet.ErrUnfinished, context.DeadlineExceeded):   codes.DeadlineExceeded,
		fmt.Errorf("%w: it would end\nat noon", poet.ErrTooLate):                                codes.FailedPrecondition,
	} {
		p := newPublic(&scripted{}, Config{Limits: DefaultLimits()})
		st := status.Convert(p.failure(err))
		if st.Code() != want || strings.Contains(st.Message(), "/srv") || strings.Contains(st.Message(), "\n") {
			t.Errorf("%v becomes %v", err, st)
		}
	}
}
