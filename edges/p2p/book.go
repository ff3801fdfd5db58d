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

	redialMin     = 500 * time.Millisecond // wait after the first failed dial; doubles with each
	redialMax     = 30 * time.Second
	redialMaxBoot = 5 * time.Second
	hearsayTries  = 5                  // failed dials after which a peer that we never met is forgotten
	forgetAfter   = 7 * 24 * time.Hour // time after which a peer that we met is forgotten
)

// book remembers where peers are. It is plain data: it dials nothing, and time is an argument.
//
// A peer that we met is stored at the address of its connection, as we saw it, and only such addresses
// are told to others. What others tell us is hearsay until we have met the peer: it takes limited room,
// and gives way first.
type book struct {
	mu      sync.Mutex
	self    PeerID
	max     int
	entries map[PeerID]*bookEntry
	changed bool // since the last snapshot
}

type bookEntry struct {
	addr     ma.Multiaddr // without /p2p/
	boot     ma.Multiaddr // configured address of a bootnode, else nil
	met      time.Time    // when last connected; zero for hearsay
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

// meet notes that the peer is connected from this address.
func (b *book) meet(p PeerID, addr ma.Multiaddr, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[p]
	if e == nil {
		if !b.makeRoom(true) {
			return
		}
		e = &bookEntry{}
		b.entries[p] = e
	}
	e.addr, e.met, e.failures, e.next, e.source = addr, now, 0, now, ""
	b.changed = true
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
	if told >= MaxBookPerSource || !b.makeRoom(false) {
		return
	}
	b.entries[p.ID] = &bookEntry{addr: p.Addrs[0], source: source, next: now}
}

// makeRoom reports whether there is room for one more, after it evicted one if it had to: hearsay with
// the most failures first; for a peer that we met, then the one met longest ago.
func (b *book) makeRoom(met bool) bool {
	if len(b.entries) < b.max {
		return true
	}
	var victim PeerID
	var worst *bookEntry
	for id, e := range b.entries {
		if e.boot != nil || e.dialing || !met && (!e.met.IsZero() || e.failures == 0) {
			continue
		}
		if worst == nil || cmp.Or(e.met.Compare(worst.met), worst.failures-e.failures, cmp.Compare(id, victim)) < 0 {
			victim, worst = id, e
		}
	}
	if worst == nil {
		return false
	}
	delete(b.entries, victim)
	return true
}

// due returns up to n peers to dial, marked as being dialed; the caller must report each with dialed.
// Peers that we met come first, then the others, each in random order.
func (b *book) due(n int, now time.Time, connected func(PeerID) bool) []peer.AddrInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	var met, others []PeerID
	for id, e := range b.entries {
		if e.dialing || now.Before(e.next) || connected(id) {
			continue
		}
		if e.met.IsZero() && e.boot == nil {
			others = append(others, id)
		} else {
			met = append(met, id)
		}
	}
	shuffle(met)
	shuffle(others)
	ids := append(met, others...)
	ids = ids[:min(n, len(ids))]
	infos := make([]peer.AddrInfo, 0, len(ids))
	for _, id := range ids {
		e := b.entries[id]
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

// dialed notes how a dial ended. stranger says that the peer is of another network.
func (b *book) dialed(p PeerID, ok, stranger bool, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[p]
	if e == nil {
		return
	}
	e.dialing = false
	if ok {
		return // meet has noted it
	}
	e.failures++
	e.next = now.Add(jitter(b.backoff(e)))
	hopeless := e.met.IsZero() && e.failures >= hearsayTries || !e.met.IsZero() && now.Sub(e.met) > forgetAfter
	if e.boot == nil && (stranger || hopeless) {
		delete(b.entries, p)
		b.changed = true
	}
}

// lost notes that the connection ended, so that a peer that drops us at once is not dialed at once.
func (b *book) lost(p PeerID, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[p]; e != nil {
		if now.Sub(e.met) < redialMax {
			e.failures++
		}
		e.met = now
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

// known returns up to n random peers that we met and that are dialable for the asker: addresses of a
// private network are told only inside one.
func (b *book) known(n int, asker PeerID, private bool) []peer.AddrInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []PeerID
	for id, e := range b.entries {
		if id != asker && !e.met.IsZero() && e.failures == 0 && (private || !isPrivate(e.addr)) {
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
	Addr string    `json:"addr"` // with /p2p/
	Met  time.Time `json:"met"`
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
			f.Peers = append(f.Peers, bookFileEntry{fmt.Sprintf("%s/p2p/%s", e.addr, id), e.met.UTC().Truncate(time.Second)})
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
			e.addr, e.met = info.Addrs[0], entry.Met // a bootnode
			continue
		}
		b.entries[info.ID] = &bookEntry{addr: info.Addrs[0], met: entry.Met}
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
