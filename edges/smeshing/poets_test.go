package smeshing

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	"tweedle/edges/api/gen/poetpb"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// Every way in which a PoET can fail to give a proof, while another is well. It
// registered us, so it is asked.
func TestABadPoETCostsNothingWhileAnotherIsWell(t *testing.T) {
	const well = 900
	zeros := make([]byte, 1<<20)
	for name, bad := range map[string]func(p *poet, w http.ResponseWriter, r *http.Request){
		"hangs": func(_ *poet, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"stalls in the middle": func(_ *poet, w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`{"proof": {`))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"drips": func(_ *poet, w http.ResponseWriter, r *http.Request) {
			for {
				select {
				case <-r.Context().Done():
					return
				case <-time.After(time.Second):
					_, _ = w.Write([]byte(" "))
					w.(http.Flusher).Flush()
				}
			}
		},
		"sends garbage": func(_ *poet, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>hello</html>")) },
		"sends half a hash": func(_ *poet, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"proof":{"members":["AA=="]}}`))
		},
		"sends another's": func(p *poet, w http.ResponseWriter, _ *http.Request) {
			p.lie(w, func(m [][32]byte) [][32]byte { return [][32]byte{{1}, {2}} }, 0)
		},
		"sends a wrong proof": func(p *poet, w http.ResponseWriter, _ *http.Request) { p.lie(w, nil, 1) },
		"sends too much": func(_ *poet, w http.ResponseWriter, _ *http.Request) {
			for range maxAnswer>>20 + 2 {
				if _, err := w.Write(zeros); err != nil {
					return
				}
			}
		},
		"fails": func(_ *poet, w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "broken", http.StatusInternalServerError)
		},
		"is never ready":  func(_ *poet, w http.ResponseWriter, _ *http.Request) { http.Error(w, "soon", http.StatusNotFound) },
		"did little work": func(p *poet, w http.ResponseWriter, r *http.Request) { p.cheap(w, r, 150) },
		"says it moved": func(_ *poet, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				p := r.add("bad", 900)
				p.proofs = func(w http.ResponseWriter, req *http.Request, _ func()) { bad(p, w, req) }
				good := r.add("good", well)
				good.delay = 3 * time.Second // as long as a proof takes
				r.start(r.config("bad", "good"))
				r.until(5)
				if got, want := r.leaves(), slices.Repeat([]uint64{well}, 4); !slices.Equal(got, want) {
					t.Errorf("the ATXs of four epochs stand on %v leaves, want %v\n%s", got, want, r.logged())
				}
				for _, a := range r.all() {
					// Half of the gap is left for proving.
					if a.after > r.params.PoetCycleGap/2+2*time.Second {
						t.Errorf("the ATX of epoch %d came %v after the round", a.PublishEpoch, a.after)
					}
				}
				if !p.wasAsked() {
					t.Error("the bad one was never asked: nothing was shown")
				}
			})
		})
	}
}

// lie gives a proof of this round with changed members, or a changed node.
func (p *poet) lie(w http.ResponseWriter, members func([][32]byte) [][32]byte, spoil byte) {
	round := p.schedule.Open(time.Now()) - 1
	list := p.membersOf(round)
	if members != nil {
		list = members(list)
	}
	m := work(p.t, merkle.Root(list), 950, fmt.Sprint(round))
	m.Proof.Leaves[0][0] += spoil
	p.answer(w, proofResponse(m, list))
}

// cheap gives a valid proof of little work, before the others have theirs.
func (p *poet) cheap(w http.ResponseWriter, r *http.Request, leaves uint64) {
	var round uint32
	if _, err := fmt.Sscan(r.URL.Path[len("/v1/proofs/"):], &round); err != nil {
		p.t.Error(err)
	}
	p.answer(w, proofResponse(p.proof(round, leaves), p.membersOf(round)))
}

// The PoET dies when its round ends, and its proof comes from others: the place
// that it told is enough, also after a restart.
func TestAProofFromOthersIsEnough(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.add("gone", 500)
		p.proofs = func(_ http.ResponseWriter, req *http.Request, _ func()) { <-req.Context().Done() }
		r.start(r.config("gone"))
		rounds := r.network.PoetSchedule(r.params)
		for e := range types.Epoch(4) {
			round := uint32(e)
			time.Sleep(time.Until(rounds.End(round).Add(-2 * time.Second)))
			if e == 2 { // what we learned of our place is not lost
				r.stop()
				r.db.Close()
				r.open()
				r.start(r.config("gone"))
			}
			// Anybody can make a cheap proof of a statement, and write the names of others on one of much work.
			if err := r.AddPoet(work(t, merkle.Root(p.membersOf(round)), 150, "x")); err != nil {
				t.Fatal(err)
			}
			other := work(t, types.Hash32{9}, 3000, fmt.Sprint(round))
			if err := r.AddPoet(other); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second) // the round ends, and we look for its proof
			if err := r.AddPoet(work(t, merkle.Root(p.membersOf(round)), 500, "y")); err != nil {
				t.Fatal(err)
			}
		}
		r.until(5)
		if got := r.leaves(); !slices.Equal(got, []uint64{500, 500, 500, 500}) {
			t.Errorf("the ATXs of four epochs stand on %v leaves\n%s", got, r.logged())
		}
	})
}

// A PoET that does not take us, or wants the impossible, is named once a
// minute, and the other one serves.
// As it was in 2020, which drills show: who does not ask the PoET has no ATX until the
// network brings the proof, and has one then.
func TestADrillCanTakeThePullAway(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		p := r.add("poet", 900)
		cfg := r.config("poet")
		cfg.NoPull = true
		r.start(cfg)
		r.until(3)
		if n := len(r.all()); n != 0 || p.wasAsked() {
			t.Fatalf("%d ATXs, and the PoET was asked: %v", n, p.wasAsked())
		}
		time.Sleep(r.params.PoetCycleGap / 4)
		round := r.network.PoetSchedule(r.params).Open(time.Now()) - 1
		if err := r.AddPoet(p.proof(round, 900)); err != nil {
			t.Fatal(err)
		}
		r.until(4)
		if got := r.leaves(); !slices.Equal(got, []uint64{900}) {
			t.Errorf("with the proof of round %d there are ATXs on %v leaves\n%s", round, got, r.logged())
		}
	})
}

func TestAPoETThatCannotBeUsedIsNamed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add("greedy", 500).pow = 200
		r.add("good", 500)
		r.start(r.config("greedy", "nobody", "good"))
		r.until(3)
		for _, want := range []string{"a proof of work of 200 bits, more than 30 are not done", "http://nobody", "connection refused"} {
			if !strings.Contains(r.logged(), want) {
				t.Errorf("the log does not say %q", want)
			}
		}
		if n := strings.Count(r.logged(), "PoET cannot be used now"); n > 2*5 {
			t.Errorf("%d lines about two PoETs in four minutes:\n%s", n, r.logged())
		}
		if len(r.all()) != 2 {
			t.Errorf("%d ATXs in two epochs", len(r.all()))
		}
	})
}

func TestAPoETOfOtherTimesIsNamed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.add("good", 500)
		p := r.add("other", 500)
		p.info = func(i *poetpb.InfoResponse) { i.EpochDuration = durationpb.New(90 * time.Second) }
		r.start(r.config("good", "other"))
		r.until(2)
		if want := "its epochs last 1m30s, the network's 1m0s"; strings.Count(r.logged(), want) == 0 || strings.Contains(r.logged(), "poet=http://good reason") {
			t.Errorf("the log does not name the PoET of other times:\n%s", r.logged())
		}
	})
}

func TestAddressesOfPoETsAreCheckedAtStart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for _, bad := range []string{"127.0.0.1:8080", "http://h:1 ", "poet", "", "ftp://poet", "http://", "http://poet?x=1"} {
			cfg := r.config()
			cfg.Poets = []string{bad}
			if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "give it as http://HOST:PORT") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: %v", bad, err)
			}
		}
		if _, err := New(r.config()); err == nil || !strings.Contains(err.Error(), "--poet") {
			t.Errorf("none: %v", err)
		}
		if _, err := os.Stat(r.space()); err == nil {
			t.Error("space was made")
		}
	})
}

// What a PoET answers cannot hurt us, whatever it is.
func FuzzProofAnswer(f *testing.F) {
	members := [][32]byte{{1}, {2}}
	good, err := protojson.Marshal(proofResponse(&types.PoetProofMessage{}, members))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, 200)
	f.Add([]byte(`{"proof":null}`), 200)
	f.Add([]byte(`{}`), 404)
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		c := &client{base: "http://poet", timeout: time.Second, http: &http.Client{Transport: canned{body, 200 + uint(status)%400}}}
		if p, err := c.proof(t.Context(), "1"); err == nil && p.msg.Statement != merkle.Root(p.members) {
			t.Error("the statement is not that of the members")
		}
		_, _ = c.place(t.Context(), "1", types.NodeID{})
		_, _ = c.info(t.Context())
	})
}
