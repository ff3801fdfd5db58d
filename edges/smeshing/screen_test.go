package smeshing

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tweedle/protocol/activation"
)

// A PoET that answers in good form what is of no use is told as one that does not answer.
func TestTheScreenTellsOfAPoETThatLies(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.add("bad", 900)
		var well atomic.Bool
		p.proofs = func(w http.ResponseWriter, _ *http.Request, honest func()) {
			if well.Load() {
				honest()
				return
			}
			p.lie(w, nil, 1)
		}
		r.start(r.config("bad"))
		rounds := r.network.PoetSchedule(r.params)
		time.Sleep(time.Until(rounds.End(0).Add(r.params.LayerDuration)))
		v, err := r.Screen(time.Now())
		if err != nil || !p.wasAsked() || len(v.Poets) != 1 || !strings.HasPrefix(v.Poets[0].Trouble, "round 0: ") {
			t.Errorf("asked: %v, %v; the screen says %+v", p.wasAsked(), err, v.Poets)
		}
		well.Store(true)
		r.until(4)
		if v, err := r.Screen(time.Now()); err != nil || v.Poets[0].Trouble != "" {
			t.Errorf("%v; of a PoET that is well again the screen says %+v", err, v.Poets)
		}
	})
}

// The owner of a space sees how far the ATX is with each PoET, until when what must come, and
// why a PoET is of no use.
func TestTheScreenTellsHowFarItIs(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add("well", 500)
		r.start(r.config("well", "gone"))
		rounds := r.network.PoetSchedule(r.params)
		look := func(at time.Time) {
			t.Helper()
			time.Sleep(time.Until(at))
			v, err := r.Screen(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			registered := v.Poets[0].Round != "" && v.Poets[0].Trouble == "" && v.Poets[1].Round == "" && v.Poets[1].Trouble != ""
			if len(v.Poets) != 2 || !registered || v.Making == nil || v.Step.For == "" {
				t.Errorf("%+v", v)
			}
			for name, stamp := range map[string]string{"registration": v.RegistrationCloses, "proof": v.ProofDue, "publish": v.PublishBy} {
				if at, err := time.Parse(time.RFC3339, stamp); err != nil || at.Before(time.Now().Add(-activation.Cut(r.network.Schedule(r.params)))) { // after the cut it is past
					t.Errorf("%s closes at %s, %v", name, stamp, err)
				}
			}
			if len(v.Slots) != 1 || v.Earned.Layers != 0 {
				t.Errorf("slots %v, earned %+v", v.Slots, v.Earned)
			}
		}
		look(rounds.Start(0).Add(-time.Second))                             // registered
		look(rounds.End(0).Add(-time.Second))                               // the round runs
		r.until(2)                                                          // published
		if v, err := r.Screen(time.Now()); err != nil || v.LastATX == nil { // it counts in the next epoch
			t.Errorf("nothing is published: %+v, %v", v, err)
		}
	})
}
