package syncer

import (
	"fmt"
	"testing"
	"time"
)

var start = time.Unix(1_000_000, 0)

func machine(peers ...Peer) *Machine {
	m := New(Config{Layer: 2 * time.Second})
	m.SetPeers(peers)
	return m
}

func atx(i int) Name { return Name{Kind: ATX, ID: [32]byte{byte(i), byte(i >> 8), 1}} }

// objects are the asks for objects among those that a step gives; the others
// are answered.
func objects(m *Machine, now time.Time, out Output) (asks []Ask) {
	for _, a := range out.Asks {
		if a.Objects != nil {
			asks = append(asks, a)
		} else {
			m.Answered(now, a.ID, None, nil)
		}
	}
	return asks
}

func points(out Output, p Peer) (sum float64) {
	for _, k := range out.Penalties {
		if k.Peer == p {
			sum += k.Points
		}
	}
	return sum
}

func TestWhoNamesAnObjectIsAskedFirstThenTheOthers(t *testing.T) {
	m := machine("a", "b", "c")
	m.Want(atx(1), "b", start.Add(time.Minute))
	asked := map[Peer]bool{}
	for now := start; len(asked) < 3; now = now.Add(time.Second) {
		for _, a := range objects(m, now, m.Step(now, View{})) {
			if len(asked) == 0 && a.Peer != "b" {
				t.Fatalf("%s is asked first", a.Peer)
			}
			if asked[a.Peer] {
				t.Fatalf("%s is asked twice for what it does not have", a.Peer)
			}
			asked[a.Peer] = true
			m.Answered(now, a.ID, None, []bool{false})
		}
		if now.After(start.Add(time.Minute)) {
			t.Fatalf("asked only %v", asked)
		}
	}
	out := m.Step(start.Add(50*time.Second), View{})
	if len(out.GaveUp) != 1 || m.Wants() != 0 {
		t.Fatalf("nobody has it: %+v", out)
	}
}

// What a peer did not have it may have come by since, and an ask may be lost. It says so by naming the
// object, as part of a layer that it has applied; meanwhile the want is kept by one that never answers.
func TestWhoNamesAnObjectAgainIsAskedAgain(t *testing.T) {
	m := machine("honest", "mute")
	m.Want(atx(1), "honest", start.Add(time.Hour))
	asks := objects(m, start, m.Step(start, View{}))
	if len(asks) != 1 || asks[0].Peer != "honest" {
		t.Fatalf("first %v", asks)
	}
	m.Answered(start, asks[0].ID, None, []bool{false})
	at := start.Add(time.Minute)
	for _, a := range objects(m, at, m.Step(at, View{})) {
		if a.Peer != "mute" {
			t.Fatalf("then %v", a)
		}
	}
	m.Want(atx(1), "honest", at.Add(time.Hour))
	for asked := false; !asked; at = at.Add(time.Second) {
		if at.After(start.Add(2 * time.Minute)) {
			t.Fatal("nobody is asked who has it")
		}
		for _, a := range objects(m, at, m.Step(at, View{})) {
			asked = asked || a.Peer == "honest"
		}
	}
}

func TestWhoNamesWhatIsNotTherePays(t *testing.T) {
	m := machine("liar", "honest")
	for i := range 500 {
		m.WantFrom(atx(i), "liar", start.Add(time.Hour))
	}
	sum, asked := 0.0, 0
	for now := start; now.Before(start.Add(10 * time.Minute)); now = now.Add(time.Second) {
		out := m.Step(now, View{})
		sum += points(out, "liar")
		if points(out, "honest") > 0 {
			t.Fatal("the wrong one pays")
		}
		for _, a := range objects(m, now, out) {
			if a.Peer == "honest" {
				t.Fatal("somebody else is asked for what only the liar named")
			}
			asked++
			m.Answered(now, a.ID, None, make([]bool, len(a.Objects)))
		}
	}
	if sum < 100 || m.Wants() != 0 {
		t.Fatalf("500 made-up ids cost %v points in %d asks, %d are still wanted", sum, asked, m.Wants())
	}
}

func TestAPeerThatDoesNotAnswerDelaysNothing(t *testing.T) {
	m := machine("hung", "well")
	m.Want(atx(1), "hung", start.Add(time.Minute))
	got := false
	for now := start; !got; now = now.Add(100 * time.Millisecond) {
		if now.After(start.Add(3 * m.cfg.Timeout())) {
			t.Fatal("nobody else was asked")
		}
		for _, a := range objects(m, now, m.Step(now, View{})) {
			if a.Peer == "well" {
				got = true
			}
		}
		for id, a := range m.asks { // the driver's deadline
			if now.After(a.Until) {
				m.Answered(now, id, Timeout, nil)
			}
		}
	}
}

func TestAsksAreBoundedForEachPeer(t *testing.T) {
	m := machine("a", "b")
	for i := range 5000 {
		m.Want(atx(i), "a", start.Add(time.Minute))
	}
	open := map[Peer]int{}
	for range 20 {
		for _, a := range objects(m, start, m.Step(start, View{})) {
			open[a.Peer]++
			if len(a.Objects) > MaxObjects {
				t.Fatalf("%d objects in one ask", len(a.Objects))
			}
		}
	}
	if open["a"] > MaxAsksPerPeer || open["b"] > MaxAsksPerPeer {
		t.Fatalf("open asks %v", open)
	}
	for i := range 2 * MaxWants {
		m.Want(Name{Kind: Block, ID: [32]byte{byte(i), byte(i >> 8), byte(i >> 16)}}, Peer(fmt.Sprint(i%3)), start)
	}
	if m.Wants() > MaxWants {
		t.Fatalf("%d wanted", m.Wants())
	}
}

func TestGarbageCostsItsSenderAndIsNotAskedAgainAtOnce(t *testing.T) {
	m := machine("liar")
	for _, a := range m.Step(start, View{}).Asks {
		m.Answered(start, a.ID, Garbage, nil)
	}
	out := m.Step(start.Add(time.Millisecond), View{})
	if points(out, "liar") < PointsGarbage || len(out.Asks) != 0 {
		t.Fatalf("%+v", out)
	}
}

func TestBusyPeersAreAskedLaterAndPayNothing(t *testing.T) {
	m := machine("a")
	m.Want(atx(1), "a", start.Add(time.Hour))
	for _, a := range m.Step(start, View{}).Asks {
		m.Answered(start, a.ID, Busy, nil)
	}
	asked := false
	for now := start; now.Before(start.Add(30 * time.Second)); now = now.Add(time.Second) {
		out := m.Step(now, View{})
		if points(out, "a") != 0 {
			t.Fatal("being busy costs")
		}
		for _, a := range objects(m, now, out) {
			asked = true
			m.Answered(now, a.ID, None, []bool{true})
			m.Have(atx(1))
		}
	}
	if !asked || m.Wants() != 0 {
		t.Fatal("what a busy peer has is not asked for again")
	}
}

func TestManyEpochsAreAskedForInOne(t *testing.T) {
	m := machine("a", "b")
	asks := 0
	for _, a := range m.Step(start, View{Epoch: 250, From: 1}).Asks {
		if a.Epochs != nil {
			asks++
			if a.Epochs.From != 1 || a.Epochs.To != 251 {
				t.Errorf("asked for %+v", a.Epochs)
			}
		}
	}
	if asks == 0 {
		t.Fatal("nobody was asked")
	}
}

func TestTheRestOfAListIsAskedForAtOnceAndOnce(t *testing.T) {
	m := machine("a")
	view := View{Epoch: 9, From: 1}
	epochs := func(now time.Time) (out []Epochs) {
		for _, a := range m.Step(now, view).Asks {
			m.Answered(now, a.ID, None, nil)
			if a.Epochs != nil {
				out = append(out, *a.Epochs)
			}
		}
		return out
	}
	epochs(start)
	rest := Epochs{From: 4, To: 9, After: [32]byte{7}}
	m.More("a", rest)
	if got := epochs(start.Add(time.Millisecond)); len(got) != 1 || got[0] != rest {
		t.Errorf("asked for %+v", got)
	}
	if got := epochs(start.Add(time.Minute)); len(got) != 1 || got[0].From != 1 {
		t.Errorf("then for %+v", got)
	}
}

// A peer names what is there and lets every question time out. What it names is
// had of the others; waiting for it is not repeated.
func TestWhoWithholdsCostsOneTimeout(t *testing.T) {
	m := machine("a", "b", "withholder")
	waited := time.Duration(0)
	for i, now := 0, start; i < 20; i++ {
		m.Want(atx(i), "withholder", now.Add(time.Hour))
		begun := now
		for ; m.Wants() > 0; now = now.Add(100 * time.Millisecond) {
			for _, a := range objects(m, now, m.Step(now, View{})) {
				if a.Peer == "withholder" {
					now = a.Until
					m.Answered(now, a.ID, Timeout, nil)
					continue
				}
				m.Answered(now, a.ID, None, []bool{true})
				m.Have(a.Objects[0])
			}
		}
		waited += now.Sub(begun)
	}
	if limit := m.cfg.Timeout() + 20*(m.cfg.Timeout()/4+100*time.Millisecond); waited > limit {
		t.Fatalf("20 objects that a withholder names take %v, want at most %v", waited, limit)
	}
	m.Urge()
	now := start.Add(time.Hour)
	for _, a := range m.Step(now, View{}).Asks {
		if a.Peer == "withholder" {
			t.Fatal("the history is asked of the withholder while others are free")
		}
	}
	// Somebody else names what it named: he is asked at once.
	m.Want(atx(100), "withholder", now.Add(time.Hour))
	m.Want(atx(100), "b", now.Add(time.Hour))
	if asks := objects(m, now, m.Step(now, View{})); len(asks) != 1 || asks[0].Peer != "b" {
		t.Fatalf("%+v", asks)
	}
}

// Who takes all the time it has, and answers nothing then, holds an object up for a
// quarter of it; and that costs one more ask, whoever else withholds it.
func TestWhoTakesLongIsNotWaitedFor(t *testing.T) {
	m := machine("a", "b", "c", "d", "e")
	m.Want(atx(1), "c", start.Add(time.Minute))
	asked := make(map[Peer]time.Duration)
	for now := start; now.Before(start.Add(m.cfg.Timeout())); now = now.Add(10 * time.Millisecond) {
		for _, a := range objects(m, now, m.Step(now, View{})) {
			asked[a.Peer] = now.Sub(start)
		}
	}
	if len(asked) != 2 || asked["c"] != 0 {
		t.Fatalf("in the time of one ask these were asked: %v", asked)
	}
	for p, after := range asked {
		if p != "c" && (after < m.cfg.patience() || after > m.cfg.patience()+50*time.Millisecond) {
			t.Errorf("%s is asked after %v", p, after)
		}
	}
}

// A slow peer that answers at last is none the worse for it, and a slow one that
// does not have it is not asked again.
func TestASlowAnswerCounts(t *testing.T) {
	for _, has := range []bool{true, false} {
		m := machine("a", "slow")
		m.Want(atx(1), "slow", start.Add(time.Minute))
		first := objects(m, start, m.Step(start, View{}))[0]
		now := start.Add(m.cfg.patience())
		second := objects(m, now, m.Step(now, View{}))
		if len(second) != 1 || second[0].Peer != "a" {
			t.Fatalf("asked %v", second)
		}
		now = now.Add(m.cfg.Timeout() / 8)
		m.Answered(now, first.ID, None, []bool{has})
		if has {
			m.Have(atx(1))
			if m.Wants() != 0 || m.peers["slow"].late != 0 {
				t.Errorf("it is late %d times though it answered", m.peers["slow"].late)
			}
		}
		m.Answered(now, second[0].ID, None, []bool{false})
		gaveUp := false
		for ; now.Before(start.Add(30 * time.Second)); now = now.Add(100 * time.Millisecond) {
			out := m.Step(now, View{})
			if more := objects(m, now, out); len(more) > 0 {
				t.Fatalf("has %v: asked again: %v", has, more)
			}
			gaveUp = gaveUp || len(out.GaveUp) == 1
		}
		if gaveUp == has {
			t.Errorf("has %v: given up %v", has, gaveUp)
		}
	}
}

// Twenty that never answer, and two that do: each layer one of the two is asked.
func TestManyThatAreSilentDoNotHideTheFew(t *testing.T) {
	peers := []Peer{"well 1", "well 2"}
	for i := range 20 {
		peers = append(peers, Peer(fmt.Sprintf("mute %02d", i)))
	}
	m := machine(peers...)
	well, last := map[int]bool{}, 100
	for now := start; now.Before(start.Add(time.Duration(last) * m.cfg.Layer)); now = now.Add(100 * time.Millisecond) {
		for _, a := range m.Step(now, View{Synced: true}).Asks {
			if a.Layers != nil && (a.Peer == "well 1" || a.Peer == "well 2") {
				well[int(now.Sub(start)/m.cfg.Layer)] = true
			}
			if a.Peer == "well 1" || a.Peer == "well 2" {
				m.Answered(now, a.ID, None, nil)
			}
		}
		for _, id := range m.sortedAsks() {
			if now.After(m.asks[id].Until) {
				m.Answered(now, id, Timeout, nil)
			}
		}
	}
	const first = 20 // by then one of the two has had its turn
	for layer := first; layer < last; layer++ {
		if !well[layer] {
			t.Errorf("in layer %d only peers that do not answer are asked", layer)
		}
	}
}

// What others name is asked of a peer that answers too; what it named itself finds
// a place all the same.
func TestWhatOthersNamedLeavesPlaces(t *testing.T) {
	m := machine("liar", "well")
	for i := range 10 * MaxObjects {
		m.Want(atx(i), "liar", start.Add(time.Minute))
	}
	now := start
	for ; m.peers["well"].objects == 0; now = now.Add(100 * time.Millisecond) {
		for _, a := range objects(m, now, m.Step(now, View{})) {
			if a.Peer == "liar" {
				m.Answered(now, a.ID, None, make([]bool, len(a.Objects)))
			}
		}
	}
	if got := m.peers["well"].objects; got != MaxAsksPerPeer/2 {
		t.Errorf("%d asks of one peer for what another named", got)
	}
	own := Name{Kind: Block, ID: [32]byte{7}}
	m.Want(own, "well", start.Add(time.Minute))
	found := false
	for _, a := range objects(m, now, m.Step(now, View{})) {
		found = found || a.Peer == "well" && a.Objects[0] == own
	}
	if !found {
		t.Error("what it named itself waits for what others named")
	}
}
