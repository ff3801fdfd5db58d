package p2p

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"pgregory.net/rapid"
)

// naive is the table as one would tell it: a list, counted and sorted anew for each question.
type naive struct {
	limit, share int
	protected    map[PeerID]bool
	spread       func(PeerID) float64
	list         []naiveSession
	busy         map[*standing]PeerID
	ended        map[string]uint64
}

type naiveSession struct {
	id      uint64
	peer    PeerID
	block   netip.Prefix
	inbound bool
	used    time.Time
	useful  bool
	busy    int
}

func (m *naive) of(p PeerID) (list []naiveSession) {
	for _, s := range m.list {
		if s.peer == p {
			list = append(list, s)
		}
	}
	return list
}

// safe returns the peers of which no session may go.
func (m *naive) safe() map[PeerID]bool {
	safe := maps.Clone(m.protected)
	for _, s := range m.list {
		if !s.inbound {
			safe[s.peer] = true
		}
	}
	return safe
}

// admit says who goes and whether the newcomer comes.
func (m *naive) admit(id uint64, p PeerID, block netip.Prefix, inbound bool, now time.Time) (victim uint64, refused string) {
	inBlock := 0
	for _, s := range m.list {
		if s.block == block {
			inBlock++
		}
	}
	atShare := block.IsValid() && inBlock >= m.share && !m.protected[p]
	if atShare || len(m.list) >= m.limit {
		var order []naiveSession
		safe := m.safe()
		for _, s := range m.list {
			if !safe[s.peer] && (!atShare || s.block == block) {
				order = append(order, s)
			}
		}
		rank := func(s naiveSession) int {
			if s.busy > 0 {
				return 2
			}
			if s.useful {
				return 1
			}
			return 0
		}
		slices.SortFunc(order, func(a, b naiveSession) int {
			return cmp.Or(rank(a)-rank(b),
				cmp.Compare(float64(now.Sub(b.used))*(1+m.spread(b.peer)), float64(now.Sub(a.used))*(1+m.spread(a.peer))),
				cmp.Compare(a.id, b.id))
		})
		reason := LeftRoom
		refused = RefusedFull
		if atShare {
			reason, refused = LeftShare, RefusedShare
		}
		if len(order) == 0 {
			return 0, refused
		}
		victim = order[0].id
		m.end(victim, reason)
	}
	fresh := naiveSession{id: id, peer: p, block: block, inbound: inbound, used: now}
	if others := m.of(p); len(others) > 0 {
		fresh.used, fresh.useful, fresh.busy = others[0].used, others[0].useful, others[0].busy
	}
	m.list = append(m.list, fresh)
	return victim, ""
}

func (m *naive) end(id uint64, reason string) bool {
	i := slices.IndexFunc(m.list, func(s naiveSession) bool { return s.id == id })
	if i < 0 {
		return false
	}
	p := m.list[i].peer
	m.list = slices.Delete(m.list, i, i+1)
	m.ended[reason]++
	if len(m.of(p)) == 0 { // what was under way counts for nobody
		for st, q := range m.busy {
			if q == p {
				delete(m.busy, st)
			}
		}
	}
	return true
}

func (m *naive) each(p PeerID, change func(*naiveSession)) {
	for i := range m.list {
		if m.list[i].peer == p {
			change(&m.list[i])
		}
	}
}

// The table against the naive list, at the sizes 1, 2 and 2,048; TWEEDLE_NIGHTLY makes it a million
// operations at each.
func TestSessionsAgainstAList(t *testing.T) {
	operations, steps := 0, 200
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		operations, steps = 1_000_000, 20_000
	}
	limits := []int{1, 2, 2048}
	done := make(map[int]int)
	for first := true; first || slices.ContainsFunc(limits, func(limit int) bool { return done[limit] < operations }); first = false {
		rapid.Check(t, func(t *rapid.T) {
			limit := rapid.SampledFrom([]int{1, 2, 1, 2, 1, 2, 1, 2048}).Draw(t, "limit") // the large one takes its time
			done[limit] += sessionsAgainstAList(t, limit, steps)
		})
	}
	t.Logf("operations by size: %v", done)
}

func sessionsAgainstAList(t *rapid.T, limit, steps int) (done int) {
	share := max(1, limit/shareOfBlock)
	name := func(i int) PeerID { return PeerID(fmt.Sprint("peer ", i)) }
	crowd := limit + limit/2 + 3
	protected := map[PeerID]bool{name(0): true, name(1): true}
	seed := [16]byte{rapid.Byte().Draw(t, "seed")}
	table := newSessionTable(limit, share, seed, protected)
	model := &naive{limit: limit, share: share, protected: protected, spread: table.spread, busy: make(map[*standing]PeerID), ended: make(map[string]uint64)}
	now := bookStart
	random := rapid.Uint64().Draw(t, "random") | 1
	draw := func(n int) int { // xorshift: a million draws of rapid itself would take an hour
		random ^= random << 13
		random ^= random >> 7
		random ^= random << 17
		return int(random % uint64(n))
	}
	// Peers and their blocks; some are in none. Where few blocks are, shares bind; where many are, the limit does.
	blocks := 1 + draw(12)
	block := func(i int) netip.Prefix {
		if k := i % (blocks + 1); k > 0 {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{5, 6, byte(k), 0}), 24)
		}
		return netip.Prefix{}
	}
	outbound := draw(10)
	// Full from the start, else a large table would never be; whose block has its share comes later.
	inside := make(map[netip.Prefix]int)
	for i := range crowd {
		b := block(i)
		if inside[b]++; len(table.sessions) == limit || b.IsValid() && inside[b] > share {
			continue
		}
		compareAdmit(t, table, model, name(i), block(i), draw(20) >= outbound, now)
	}
	for ; done < steps; done++ {
		now = now.Add(time.Duration(draw(3)) * time.Second)
		i := draw(crowd)
		p := name(i)
		switch draw(8) {
		case 0, 1, 2:
			compareAdmit(t, table, model, p, block(i), draw(20) >= outbound, now)
		case 3:
			if len(model.list) > 0 {
				id := model.list[draw(len(model.list))].id
				if !table.remove(id, LeftPeer, now) || !model.end(id, LeftPeer) {
					t.Fatalf("session %d is not there", id)
				}
				if table.remove(id, LeftPeer, now) {
					t.Fatalf("session %d ended twice", id)
				}
			}
		case 4, 5:
			table.use(p, now)
			model.each(p, func(s *naiveSession) { s.used, s.useful = now, true })
		case 6:
			if st := table.begin(p); st != nil {
				model.busy[st] = p
				if st.busy > 1 { // one of each is enough for the model
					table.end(st)
				}
				model.each(p, func(s *naiveSession) { s.busy = 1 })
			} else if len(model.of(p)) > 0 {
				t.Fatalf("%s has sessions and no standing", p)
			}
		case 7:
			for st, q := range model.busy {
				if q == p {
					table.end(st)
					delete(model.busy, st)
					model.each(q, func(s *naiveSession) { s.busy = 0 })
				}
			}
		}
	}
	compareAll(t, table, model)
	return done
}

func compareAdmit(t *rapid.T, table *sessionTable, model *naive, p PeerID, block netip.Prefix, inbound bool, now time.Time) {
	before := len(table.sessions)
	id, victim, refused := table.admit(p, block, inbound, now)
	wantVictim, wantRefused := model.admit(id, p, block, inbound, now)
	if victim != wantVictim || refused != wantRefused || (id == 0) != (refused != "") {
		t.Fatalf("%s of %v with %d inside: session %d, victim %d, refused %q; want victim %d, refused %q", p, block, before, id, victim, refused, wantVictim, wantRefused)
	}
	if victim != 0 && table.remove(victim, LeftUs, now) {
		t.Fatalf("the victim %d is still there", victim)
	}
	if len(table.sessions) != len(model.list) || len(table.sessions) > table.limit {
		t.Fatalf("%d sessions, want %d of at most %d", len(table.sessions), len(model.list), table.limit)
	}
}

func compareAll(t *rapid.T, table *sessionTable, model *naive) {
	perBlock, peers := make(map[netip.Prefix]int), make(map[PeerID]bool)
	for _, s := range model.list {
		peers[s.peer] = true
		if s.block.IsValid() {
			perBlock[s.block]++
		}
		if table.sessions[s.id] == nil {
			t.Fatalf("session %d is lost", s.id)
		}
	}
	if len(table.peers) != len(peers) || len(table.blocks) != len(perBlock) || len(table.left) > MaxLeft {
		t.Fatalf("%d peers, %d blocks, %d left; want %d, %d", len(table.peers), len(table.blocks), len(table.left), len(peers), len(perBlock))
	}
	for b, n := range perBlock {
		protected := 0
		for _, s := range model.list {
			if s.block == b && model.protected[s.peer] {
				protected++
			}
		}
		if table.blocks[b] != n || n-protected > table.share {
			t.Fatalf("block %v has %d, want %d, of at most %d", b, table.blocks[b], n, table.share)
		}
	}
	for reason, n := range model.ended {
		if table.ended[reason] != n {
			t.Fatalf("%d ended for %q, want %d", table.ended[reason], reason, n)
		}
	}
}

func v4(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{5, byte(i >> 8), byte(i), 0}), 24)
}

// fill returns a full table of peers that came one second after the other, each from a block of its own.
func fill(limit int, seed byte) (table *sessionTable, now time.Time) {
	table, now = newSessionTable(limit, max(1, limit/shareOfBlock), [16]byte{seed}, nil), bookStart
	for i := range limit {
		table.admit(PeerID(fmt.Sprint("old ", i)), v4(i), true, now)
		now = now.Add(time.Second)
	}
	return table, now
}

// The order in which sessions give way, at each size.
func TestWhoGivesWay(t *testing.T) {
	for _, limit := range []int{1, 2, 2048} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			table, now := fill(limit, 1)
			// All have been of use long ago but for one, which is the only stranger.
			for i := range limit - 1 {
				table.use(PeerID(fmt.Sprint("old ", i)), now)
			}
			stranger := PeerID(fmt.Sprint("old ", limit-1))
			if _, victim, _ := table.admit("a", v4(3000), true, now); victim == 0 || table.peers[stranger] != nil {
				t.Errorf("a stranger stays and %d goes", victim)
			}
			// A flood of newcomers displaces newcomers.
			for i := range limit + 10 {
				table.admit(PeerID(fmt.Sprint("flood ", i)), v4(5000+i), true, now)
			}
			useful := 0
			for _, st := range table.peers {
				if st.useful {
					useful++
				}
			}
			if useful != limit-1 {
				t.Errorf("%d of %d useful peers are left after the flood", useful, limit-1)
			}
			// Those whom we dial come in as long as somebody else is there, and then nobody does.
			for i := range limit {
				if id, _, refused := table.admit(PeerID(fmt.Sprint("dialed ", i)), v4(20000+i), false, now); id == 0 {
					t.Fatalf("dial %d is refused: %s", i, refused)
				}
			}
			for _, inbound := range []bool{true, false} {
				if id, victim, refused := table.admit("late", v4(30000), inbound, now); id != 0 || victim != 0 || refused != RefusedFull {
					t.Errorf("a table full of our choice: session %d, victim %d, %q", id, victim, refused)
				}
			}
		})
	}
}

func TestABusyPeerGoesLast(t *testing.T) {
	table, now := fill(2, 1)
	st := table.begin("old 0")
	table.use("old 1", now)
	if table.admit("a", v4(100), true, now.Add(time.Hour)); table.peers["old 0"] == nil || table.peers["old 1"] != nil {
		t.Error("the busy one gave way")
	}
	table.end(st)
	if table.admit("b", v4(101), true, now.Add(time.Hour)); table.peers["old 0"] != nil {
		t.Error("it stays when its request is over")
	}
}

// Whatever comes from one block, it has no more than its share, and the others keep theirs.
func TestABlockHasItsShareOnly(t *testing.T) {
	for _, limit := range []int{1, 2, 2048} {
		table, now := fill(limit, 1)
		share := table.share
		one := v4(9999)
		hoard := limit + 10
		for i := range hoard {
			table.admit(PeerID(fmt.Sprint("hoard ", i)), one, true, now)
			if table.blocks[one] > share {
				t.Fatalf("limit %d: the block has %d of at most %d", limit, table.blocks[one], share)
			}
		}
		if table.blocks[one] != share || table.ended[LeftShare] != uint64(hoard-share) {
			t.Errorf("limit %d: the block has %d of %d, %d made room within it", limit, table.blocks[one], share, table.ended[LeftShare])
		}
	}
}

// Hosts with the same sessions of about the same age end different ones.
func TestHostsDoNotEndTheSameSessions(t *testing.T) {
	const limit, hosts, newcomers = 64, 5, 16
	goes := make(map[PeerID]int)
	for host := range hosts {
		table, now := fill(limit, byte(host))
		for i := range limit {
			table.use(PeerID(fmt.Sprint("old ", i)), now)
		}
		now = now.Add(24 * time.Hour)
		for i := range newcomers {
			table.admit(PeerID(fmt.Sprint("new ", i)), v4(1000+i), true, now)
			table.use(PeerID(fmt.Sprint("new ", i)), now)
		}
		for i := range limit {
			if p := PeerID(fmt.Sprint("old ", i)); table.peers[p] == nil {
				goes[p]++
			}
		}
	}
	everywhere := 0
	for _, n := range goes {
		if n == hosts {
			everywhere++
		}
	}
	if everywhere > 1 || len(goes) < 2*newcomers {
		t.Errorf("%d sessions end at all %d hosts; %d different ones end", everywhere, hosts, len(goes))
	}
}

func TestBlocksOfSessions(t *testing.T) {
	for addr, want := range map[string]string{
		"/ip4/5.6.7.8/udp/1/quic-v1":           "5.6.7.0/24",
		"/ip6/2a01:4f8:1:2::1/udp/1/quic-v1":   "2a01:4f8:1::/48",
		"/ip4/127.0.0.1/udp/1/quic-v1":         "",
		"/ip4/10.0.0.7/udp/1/quic-v1":          "",
		"/ip6/::1/udp/1/quic-v1":               "",
		"/dns4/node.example.org/udp/1/quic-v1": "",
	} {
		got := sessionBlock(ma.StringCast(addr))
		if got.IsValid() != (want != "") || want != "" && got.String() != want {
			t.Errorf("%s: %v, want %q", addr, got, want)
		}
	}
}
