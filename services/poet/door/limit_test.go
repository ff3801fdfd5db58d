package door

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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
