package p2p

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// MaxBook bounds the peers whose addresses a host remembers.
	MaxBook = 1024
	// MaxBookPerSource bounds those of them that one peer told us of and that we have not met.
	MaxBookPerSource = 64
	// MaxBookPerAddress bounds those at one IPv4 address, or in one IPv6 /56 block. Loopback and bootnodes
	// are exempt. Whoever has one address and makes identities fills no more than that.
	MaxBookPerAddress = 16

	redialMin     = 500 * time.Millisecond // wait after the first failed dial; doubles with each
	redialMax     = 30 * time.Second
	redialMaxBoot = 5 * time.Second
	hearsayTries  = 5                  // failed dials after which a peer that we never met is forgotten
	forgetAfter   = 7 * 24 * time.Hour // time after which a peer that we met is forgotten
	tellFor       = time.Hour          // others are told of a peer so long after it left
)

// book remembers where peers are. It is plain data: it dials nothing, and time is an argument.
//
// A peer that we met is stored at the address of its connection, as we saw it, and only such addresses
// are told to others. What others tell us is hearsay until we have met the peer: it takes limited room,
// and gives way first. A peer that only ever dialed us has proved less than one that answered when we
// dialed: it gives way to nobody but to one of the latter, and the newest goes first, so that no stream of
// newcomers carries off those who have been there for long.
type book struct {
	mu      sync.Mutex
	self    PeerID
	max     int
	entries map[PeerID]*bookEntry
	changed bool // since the last snapshot
	full    meter
}

type bookEntry struct {
	addr     ma.Multiaddr // without /p2p/
	boot     ma.Multiaddr // configured address of a bootnode, else nil
	met      time.Time    // when last connected; zero for hearsay
	since    time.Time    // when first met
	answered bool         // when we dialed it
	here     bool         // it is connected
	told     time.Time    // when the operator was told of a bootnode that does not answer
	source   PeerID       // who told us, for hearsay
	failures int          // dials that failed since it was last connected
	next     time.Time    // not to be dialed before
	dialing  bool
}

func newBook(self PeerID, limit int) *book {
	return &book{self: self, max: limit, entries: make(map[PeerID]*bookEntry)}
}

func (b *book) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.entries)
}

// addBoot adds a bootnode. It is never forgotten.
func (b *book) addBoot(p peer.AddrInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.ID != b.self {
		b.entries[p.ID] = &bookEntry{addr: p.Addrs[0], boot: p.Addrs[0]}
	}
}

// meet notes that the peer is connected from this address. we tells that we dialed it.
func (b *book) meet(p PeerID, addr ma.Multiaddr, we bool, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[p]
	if e == nil {
		if !b.fits(addr) || !b.makeRoom(we, true) {
			return
		}
		e = &bookEntry{}
		b.entries[p] = e
	}
	if e.since.IsZero() {
		e.since = now
	}
	e.addr, e.met, e.failures, e.next, e.source, e.here = addr, now, 0, now, "", true
	e.answered = e.answered || we
	b.changed = true
}

// fits reports whether the address has not filled its share yet.
func (b *book) fits(addr ma.Multiaddr) bool {
	block := blockOf(addr)
	if !block.IsValid() || block.Addr().IsLoopback() {
		return true
	}
	n := 0
	for _, e := range b.entries {
		if e.boot == nil && blockOf(e.addr) == block {
			n++
		}
	}
	if n >= MaxBookPerAddress {
		b.full.met(limitBookAddress)
		return false
	}
	return true
}

// blockOf returns what one owner has at least: an IPv4 address, or an IPv6 /56 block. It is invalid for
// names.
func blockOf(addr ma.Multiaddr) netip.Prefix {
	ip, err := manet.ToIP(addr)
	if err != nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}
	}
	bits := 56
	if a = a.Unmap(); a.Is4() {
		bits = 32
	}
	block, _ := a.Prefix(bits) // no error: the address has as many bits
	return block
}

// hear notes what source says. It never replaces an address that works.
func (b *book) hear(p peer.AddrInfo, source PeerID, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.ID == b.self || len(p.Addrs) == 0 {
		return
	}
	e := b.entries[p.ID]
	if e != nil {
		if e.failures > 0 && !e.dialing && !e.addr.Equal(p.Addrs[0]) {
			e.addr = p.Addrs[0] // it may have moved; failures and next stay, so this hurries nothing
		}
		return
	}
	told := 0
	for _, e := range b.entries {
		if e.met.IsZero() && e.boot == nil && e.source == source {
			told++
		}
	}
	switch {
	case told >= MaxBookPerSource:
		b.full.met(limitBookSource)
	case b.fits(p.Addrs[0]) && b.makeRoom(false, false):
		b.entries[p.ID] = &bookEntry{addr: p.Addrs[0], source: source, next: now}
	}
}

// makeRoom reports whether there is room for one more, after it evicted one if it had to: hearsay, of the
// most failures first; for a peer that answered us also one that only dialed us, the newest first. Hearsay
// displaces only hearsay that failed. Who is connected stays.
func (b *book) makeRoom(answered, met bool) bool {
	if len(b.entries) < b.max {
		return true
	}
	var victim PeerID
	var worst *bookEntry
	for id, e := range b.entries {
		hearsay := e.met.IsZero()
		switch {
		case e.boot != nil || e.dialing || e.here || e.answered, !hearsay && !answered, !met && e.failures == 0:
			continue
		}
		if worst == nil || cmp.Or(e.worth().compare(worst.worth()), cmp.Compare(id, victim)) < 0 {
			victim, worst = id, e
		}
	}
	if worst == nil {
		b.full.met(limitBook)
		return false
	}
	delete(b.entries, victim)
	return true
}

// worth is what makes a peer give way: the least goes first.
type worth struct {
	met      bool
	since    time.Time // of those that we met
	failures int       // of the others
}

func (e *bookEntry) worth() worth { return worth{!e.met.IsZero(), e.since, e.failures} }

func (w worth) compare(other worth) int {
	if w.met != other.met {
		if w.met {
			return 1
		}
		return -1
	}
	return cmp.Or(other.since.Compare(w.since), other.failures-w.failures)
}

// due returns up to n peers to dial, marked as being dialed; the caller must report each with dialed.
// One in two is the one that we have known for longest of those that failed least: whoever floods a host
// with newcomers, and takes them away, keeps it from nobody whom it knew before. Of the rest those that
// answered before come first, then those that we met, then the others, each in random order.
func (b *book) due(n int, now time.Time, connected func(PeerID) bool) []peer.AddrInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	var answered, met, others, known []PeerID
	for id, e := range b.entries {
		if e.dialing || now.Before(e.next) || connected(id) {
			continue
		}
		if !e.since.IsZero() {
			known = append(known, id)
		}
		switch {
		case e.answered || e.boot != nil:
			answered = append(answered, id)
		case !e.met.IsZero():
			met = append(met, id)
		default:
			others = append(others, id)
		}
	}
	shuffle(answered)
	shuffle(met)
	shuffle(others)
	shuffle(known)
	slices.SortStableFunc(known, func(p, q PeerID) int {
		return cmp.Or(cmp.Compare(b.entries[p].failures, b.entries[q].failures), b.entries[p].since.Compare(b.entries[q].since))
	})
	queues := [2][]PeerID{known, slices.Concat(answered, met, others)} // the second has all
	var infos []peer.AddrInfo
	for len(infos) < n && len(queues[1]) > 0 {
		q := &queues[rand.IntN(2)]
		if len(*q) == 0 {
			q = &queues[1]
		}
		id := (*q)[0]
		*q = (*q)[1:]
		e := b.entries[id]
		if e.dialing { // the other queue had it
			continue
		}
		e.dialing = true
		info := peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{e.addr}}
		if e.boot != nil && !e.boot.Equal(e.addr) {
			info.Addrs = append(info.Addrs, e.boot)
		}
		infos = append(infos, info)
	}
	return infos
}

// nextDue returns when the next peer will be due, if any waits.
func (b *book) nextDue(connected func(PeerID) bool) (at time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, e := range b.entries {
		if !e.dialing && (!ok || e.next.Before(at)) && !connected(id) {
			at, ok = e.next, true
		}
	}
	return at, ok
}

func shuffle(ids []PeerID) {
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
}

// bootEvery bounds how often an operator is told that a bootnode does not answer.
const bootEvery = time.Minute

// dialed notes how a dial ended. stranger says that the peer is of another network, or that somebody else
// answers at its address: it is forgotten. It returns the address of a bootnode of which the operator should
// be told that it does not answer, else nil.
func (b *book) dialed(p PeerID, ok, stranger bool, now time.Time) (tell ma.Multiaddr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[p]
	if e == nil {
		return nil
	}
	e.dialing = false
	if ok {
		return nil // meet has noted it
	}
	e.failures++
	e.next = now.Add(jitter(b.backoff(e)))
	hopeless := e.met.IsZero() && e.failures >= hearsayTries || !e.met.IsZero() && now.Sub(e.met) > forgetAfter
	switch {
	case e.boot == nil && (stranger || hopeless):
		delete(b.entries, p)
		b.changed = true
	case e.boot != nil && !e.here && (e.told.IsZero() || now.Sub(e.told) >= bootEvery):
		e.told = now
		return e.boot
	}
	return nil
}

// lost notes that the connection ended, so that a peer that drops us at once is not dialed at once.
func (b *book) lost(p PeerID, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[p]; e != nil {
		if now.Sub(e.met) < redialMax {
			e.failures++
		}
		e.met, e.here = now, false
		e.next = now.Add(jitter(b.backoff(e)))
	}
}

func (b *book) backoff(e *bookEntry) time.Duration {
	limit := redialMax
	if e.boot != nil {
		limit = redialMaxBoot
	}
	return min(limit, redialMin<<min(e.failures, 10))
}

// jitter returns between half and one and a half times d, so that hosts that fail together do not
// return together.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d+1)
}

// known returns up to n random peers that are here, or were a while ago, and that are dialable for the asker:
// addresses of a private network are told only inside one.
func (b *book) known(n int, asker PeerID, private bool, now time.Time) []peer.AddrInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []PeerID
	for id, e := range b.entries {
		recent := e.here || !e.met.IsZero() && now.Sub(e.met) < tellFor
		if id != asker && recent && e.failures == 0 && (private || !isPrivate(e.addr)) {
			ids = append(ids, id)
		}
	}
	shuffle(ids)
	infos := make([]peer.AddrInfo, 0, n)
	for _, id := range ids[:min(n, len(ids))] {
		infos = append(infos, peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{b.entries[id].addr}})
	}
	return infos
}

// isQUIC reports whether the address is one that our only transport can use, and nothing more than that.
func isQUIC(a ma.Multiaddr) bool {
	protos := a.Protocols()
	return len(protos) == 3 && protos[1].Code == ma.P_UDP && protos[2].Code == ma.P_QUIC_V1
}

// isPrivate reports whether the address means something only where it was seen.
func isPrivate(a ma.Multiaddr) bool {
	ip, err := manet.ToIP(a)
	if err != nil {
		return true
	}
	addr, ok := netip.AddrFromSlice(ip)
	return !ok || !manet.IsPublicAddr(a) || !addr.IsGlobalUnicast()
}

// bookFile is the content of Config.PeersFile. It is a cache: what is lost is learned again.
type bookFile struct {
	Network string          `json:"network"`
	Peers   []bookFileEntry `json:"peers"`
}

type bookFileEntry struct {
	Addr     string    `json:"addr"` // with /p2p/
	Met      time.Time `json:"met"`
	Since    time.Time `json:"since,omitzero"`
	Answered bool      `json:"answered,omitempty"`
}

// snapshot returns the peers that we met as the content of a file, or nil if nothing has changed since
// the last one.
func (b *book) snapshot(network NetworkID) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.changed {
		return nil, nil
	}
	f := bookFile{Network: network.String()}
	for id, e := range b.entries {
		if !e.met.IsZero() {
			f.Peers = append(f.Peers, bookFileEntry{
				fmt.Sprintf("%s/p2p/%s", e.addr, id), e.met.UTC().Truncate(time.Second), e.since.UTC().Truncate(time.Second), e.answered,
			})
		}
	}
	slices.SortFunc(f.Peers, func(x, y bookFileEntry) int { return cmp.Compare(x.Addr, y.Addr) })
	b.changed = false
	return json.MarshalIndent(f, "", "  ")
}

// load adds the peers of a snapshot. A file of another network is an error, like one that is damaged.
func (b *book) load(content []byte, network NetworkID) error {
	var f bookFile
	if err := json.Unmarshal(content, &f); err != nil {
		return err
	}
	if f.Network != network.String() {
		return fmt.Errorf("it is of network %s", f.Network)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, entry := range f.Peers {
		info, err := peer.AddrInfoFromString(entry.Addr)
		if err != nil {
			return err
		}
		if len(info.Addrs) != 1 || !isQUIC(info.Addrs[0]) {
			return fmt.Errorf("address %s is not QUIC", entry.Addr)
		}
		if info.ID == b.self || len(b.entries) >= b.max {
			continue
		}
		if e := b.entries[info.ID]; e != nil {
			e.addr, e.met, e.since, e.answered = info.Addrs[0], entry.Met, entry.Since, entry.Answered // a bootnode
			continue
		}
		b.entries[info.ID] = &bookEntry{addr: info.Addrs[0], met: entry.Met, since: entry.Since, answered: entry.Answered}
	}
	return nil
}

// release takes back what due marked, for a dial that was not begun.
func (b *book) release(p PeerID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[p]; e != nil {
		e.dialing = false
	}
}
