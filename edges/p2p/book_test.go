package p2p

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"pgregory.net/rapid"
)

var bookStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func nobody(PeerID) bool { return false }

func TestBookForgetsHearsayBeforePeersItMet(t *testing.T) {
	b := newBook("self", 3)
	b.addBoot(someone(0))
	b.meet(someone(1).ID, someone(1).Addrs[0], false, bookStart)
	b.hear(someone(2), "source", bookStart)
	b.hear(someone(3), "source", bookStart) // full of better ones, or of untried ones
	if b.entries[someone(3).ID] != nil {
		t.Error("hearsay displaced untried hearsay")
	}
	b.due(3, bookStart, nobody)
	b.dialed(someone(2).ID, false, false, bookStart)
	b.hear(someone(3), "source", bookStart)
	if b.entries[someone(3).ID] == nil || b.entries[someone(2).ID] != nil {
		t.Error("hearsay that failed did not give way")
	}
	for _, i := range []int{0, 1} {
		b.dialed(someone(i).ID, true, false, bookStart)
	}
	b.meet(someone(4).ID, someone(4).Addrs[0], false, bookStart.Add(time.Second))
	if b.entries[someone(3).ID] != nil || b.entries[someone(4).ID] == nil {
		t.Error("a peer that we met did not displace hearsay")
	}
	for _, i := range []int{1, 4} {
		b.lost(someone(i).ID, bookStart.Add(2*time.Second))
	}
	b.meet(someone(5).ID, someone(5).Addrs[0], false, bookStart.Add(3*time.Second))
	if b.entries[someone(1).ID] == nil || b.entries[someone(5).ID] != nil {
		t.Error("a newcomer that dialed us displaced a peer that we met before")
	}
	b.meet(someone(6).ID, someone(6).Addrs[0], true, bookStart.Add(4*time.Second))
	if b.entries[someone(1).ID] == nil || b.entries[someone(4).ID] != nil || b.entries[someone(0).ID] == nil || b.entries[someone(6).ID] == nil {
		t.Error("not the newest of those that only dialed us gave way to one that answered us")
	}
}

// One address makes identity after identity, each of which dials us and leaves, as fast as the limits
// allow, for three hours. Those who have been there for long, and who answered us, stay; and it fills no
// more than its share.
func TestOneAddressNeitherFillsNorEmptiesTheBook(t *testing.T) {
	at := func(i int) ma.Multiaddr {
		return ma.StringCast(fmt.Sprintf("/ip4/80.1.%d.%d/udp/7513/quic-v1", i/250, i%250+1))
	}
	for name, full := range map[string]bool{"full": true, "half full": false} {
		t.Run(name, func(t *testing.T) {
			b, now := newBook("self", MaxBook), bookStart
			met := meets(b)
			honest := MaxBook
			if !full {
				honest /= 2
			}
			for i := range honest {
				now = now.Add(time.Second)
				b.meet(someone(i).ID, at(i), i%4 == 0, now)
				b.lost(someone(i).ID, now)
			}
			for i := range 3 * 3600 / 5 {
				now = now.Add(5 * time.Second)
				id := someone(100_000 + i).ID
				b.meet(id, ma.StringCast(fmt.Sprintf("/ip4/90.1.1.1/udp/%d/quic-v1", 1000+i)), false, now)
				b.lost(id, now)
				b.hear(peer.AddrInfo{ID: someone(200_000 + i).ID, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/90.1.1.1/udp/1/quic-v1")}}, id, now)
			}
			for i := range honest {
				if b.entries[someone(i).ID] == nil {
					t.Fatalf("peer %d of %d was forgotten", i, honest)
				}
			}
			if got := b.len() - honest; got > MaxBookPerAddress || (met[limitBookAddress] > 0) == full || (met[limitBook] > 0) != full {
				t.Errorf("one address has %d places, its share is %d; counted %v", got, MaxBookPerAddress, met)
			}
			hostile := ma.StringCast("/ip4/90.1.1.1")
			for _, p := range b.due(8, now.Add(time.Hour), nobody) {
				if b.entries[p.ID].addr[0].Equal(&hostile[0]) {
					t.Errorf("%s is dialed next", p)
				}
			}
		})
	}
}

// meets counts which limits of a book are met.
func meets(b *book) map[string]int {
	met := make(map[string]int)
	b.full = func(limit string) { met[limit]++ }
	return met
}

func TestAFullBookRemembersWhoAnsweredAndWhoIsConnected(t *testing.T) {
	b := newBook("self", 3)
	met := meets(b)
	for i := range 3 {
		b.meet(someone(i).ID, someone(i).Addrs[0], false, bookStart.Add(time.Duration(i)*time.Second))
	}
	b.meet(someone(9).ID, someone(9).Addrs[0], true, bookStart.Add(time.Minute))
	if b.len() != 3 || b.entries[someone(9).ID] != nil || met[limitBook] != 1 {
		t.Errorf("somebody who is connected gave way; counted %v", met)
	}
}

func TestOneSourceFillsOnlyItsShare(t *testing.T) {
	b := newBook("self", MaxBook)
	met := meets(b)
	for i := range 2 * MaxBookPerSource {
		b.hear(someone(i), "liar", bookStart)
	}
	if b.len() != MaxBookPerSource || met[limitBookSource] != MaxBookPerSource {
		t.Errorf("one source filled %d places, limit %d; counted %v", b.len(), MaxBookPerSource, met)
	}
	b.hear(someone(1000), "other", bookStart)
	if b.entries[someone(1000).ID] == nil {
		t.Error("another source found no room")
	}
}

func TestHearsayNeverReplacesAnAddressThatWorks(t *testing.T) {
	b := newBook("self", 10)
	right, wrong := someone(1), someone(2)
	b.meet(right.ID, right.Addrs[0], false, bookStart)
	b.hear(peer.AddrInfo{ID: right.ID, Addrs: wrong.Addrs}, "liar", bookStart)
	if got := b.entries[right.ID].addr; !got.Equal(right.Addrs[0]) {
		t.Errorf("address became %s", got)
	}
}

func TestOnlyPeersThatWeMetAreTold(t *testing.T) {
	b := newBook("self", 10)
	b.addBoot(someone(0))
	b.hear(someone(1), "source", bookStart)
	b.meet(someone(2).ID, someone(2).Addrs[0], false, bookStart)
	b.meet(someone(3).ID, ma.StringCast("/ip4/127.0.0.1/udp/1/quic-v1"), false, bookStart)
	b.meet(someone(4).ID, ma.StringCast("/ip4/10.0.0.1/udp/1/quic-v1"), false, bookStart)
	told := b.known(10, "asker", false, bookStart)
	if len(told) != 1 || told[0].ID != someone(2).ID {
		t.Errorf("told a public asker %v", told)
	}
	if told = b.known(10, "asker", true, bookStart); len(told) != 3 {
		t.Errorf("told a private asker %v", told)
	}
	if told = b.known(10, someone(2).ID, false, bookStart); len(told) != 0 {
		t.Errorf("told a peer of itself: %v", told)
	}
	b.lost(someone(2).ID, bookStart.Add(2*redialMax))
	if told = b.known(10, "asker", false, bookStart.Add(tellFor)); len(told) != 1 {
		t.Errorf("soon after it left, told %v", told)
	}
	if told = b.known(10, "asker", false, bookStart.Add(tellFor+2*redialMax)); len(told) != 0 {
		t.Errorf("long after it left, told %v", told)
	}
}

func TestRedialBacksOffAndForgetsStrangers(t *testing.T) {
	b := newBook("self", 10)
	b.addBoot(someone(0))
	now := bookStart
	for i := range 20 {
		now = now.Add(2 * redialMaxBoot)
		if got := b.due(10, now, nobody); len(got) != 1 {
			t.Fatalf("try %d: due are %v", i, got)
		}
		if got := b.due(10, now, nobody); len(got) != 0 {
			t.Fatalf("try %d: due twice: %v", i, got)
		}
		b.dialed(someone(0).ID, false, i == 10, now) // not even a stranger is forgotten, if configured
		next := b.entries[someone(0).ID].next.Sub(now)
		want := min(redialMaxBoot, redialMin<<(i+1))
		if next < want/2 || next > want*3/2+1 {
			t.Errorf("try %d: next after %v, want %v give or take half", i, next, want)
		}
	}
	b.hear(someone(1), "source", now)
	b.due(10, now, nobody)
	b.dialed(someone(1).ID, false, true, now)
	if b.entries[someone(1).ID] != nil {
		t.Error("a peer of another network is remembered")
	}
}

func TestBookSurvivesItsFile(t *testing.T) {
	network := testNetwork("test")
	b := newBook("self", 10)
	if content, err := b.snapshot(network); content != nil || err != nil {
		t.Fatalf("snapshot of nothing new: %q, %v", content, err)
	}
	b.meet(someone(1).ID, someone(1).Addrs[0], false, bookStart)
	b.hear(someone(2), "source", bookStart)
	content, err := b.snapshot(network)
	if err != nil {
		t.Fatal(err)
	}
	c := newBook("self", 10)
	if err := c.load(content, network); err != nil {
		t.Fatal(err)
	}
	if e := c.entries[someone(1).ID]; c.len() != 1 || e == nil || !e.addr.Equal(someone(1).Addrs[0]) || !e.met.Equal(bookStart) {
		t.Errorf("loaded %+v", c.entries)
	}
	if err := c.load(content, testNetwork("other")); err == nil {
		t.Error("loaded a file of another network")
	}
	if err := c.load(content[:len(content)/2], network); err == nil {
		t.Error("loaded half a file")
	}
}

// The book never outgrows its limit, never loses a bootnode, and never hands out a peer twice,
// whatever happens in whatever order.
func TestBookUnderRandomEvents(t *testing.T) {
	for _, limit := range []int{2, 3, 10} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				b := newBook("self", limit)
				b.addBoot(someone(0))
				now := bookStart
				dialing := map[PeerID]bool{}
				pick := func(t *rapid.T) peer.AddrInfo { return someone(rapid.IntRange(0, 20).Draw(t, "peer")) }
				t.Repeat(map[string]func(*rapid.T){
					"meet": func(t *rapid.T) { p := pick(t); b.meet(p.ID, p.Addrs[0], rapid.Bool().Draw(t, "we"), now) },
					"hear": func(t *rapid.T) { b.hear(pick(t), pick(t).ID, now) },
					"lost": func(t *rapid.T) { b.lost(pick(t).ID, now) },
					"wait": func(t *rapid.T) {
						now = now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds")) * time.Second)
					},
					"due": func(t *rapid.T) {
						for _, p := range b.due(rapid.IntRange(0, 3).Draw(t, "n"), now, nobody) {
							if dialing[p.ID] {
								t.Fatalf("%s is dialed twice", p.ID)
							}
							dialing[p.ID] = true
						}
					},
					"dialed": func(t *rapid.T) {
						p := pick(t)
						if dialing[p.ID] {
							delete(dialing, p.ID)
							b.dialed(p.ID, rapid.Bool().Draw(t, "ok"), rapid.Bool().Draw(t, "stranger"), now)
						}
					},
					"": func(t *rapid.T) {
						if b.len() > limit {
							t.Fatalf("%d entries, limit %d", b.len(), limit)
						}
						if b.entries[someone(0).ID] == nil {
							t.Fatal("the bootnode is forgotten")
						}
						for id := range dialing {
							if b.entries[id] == nil {
								t.Fatalf("%s is forgotten while it is dialed", id)
							}
						}
					},
				})
			})
		})
	}
}

// Strangers come, answer, and are gone; the bootnodes have moved. Those that were there before are dialed soon all
// the same.
func TestAFloodOfStrangersHidesNobodyWhomWeKnew(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	addr := func(i int) ma.Multiaddr { return ma.StringCast(fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", 1000+i)) }
	b := newBook("self", MaxBook)
	old := map[PeerID]bool{}
	for i := range 4 {
		b.addBoot(peer.AddrInfo{ID: PeerID(fmt.Sprint("boot", i)), Addrs: []ma.Multiaddr{addr(i)}})
	}
	for i := range 2 {
		p := PeerID(fmt.Sprint("old", i))
		old[p] = true
		b.meet(p, addr(10+i), false, now)
	}
	now = now.Add(time.Hour)
	for i := range 200 {
		b.meet(PeerID(fmt.Sprint("stranger", i)), addr(100+i), true, now)
	}
	for p, e := range b.entries { // a restart: nobody is connected
		if e.boot == nil {
			b.lost(p, now)
			e.failures, e.next = 0, time.Time{}
		}
	}
	const fails = 5 * time.Second // after which a dial to nobody ends
	for end := now.Add(time.Minute); now.Before(end); now = now.Add(fails) {
		dials := b.due(maxDials, now, func(PeerID) bool { return false })
		for _, d := range dials {
			if delete(old, d.ID); len(old) == 0 {
				return
			}
			b.dialed(d.ID, false, false, now.Add(fails))
		}
	}
	t.Errorf("%d who were there before are not dialed within a minute", len(old))
}
