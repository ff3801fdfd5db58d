package front

import (
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// client is who something is counted for. The zero prefixes of an unknown
// address are one client too.
type client struct {
	narrow netip.Prefix // an IPv4 address, or an IPv6 /64
	wide   netip.Prefix // the /48 around it; the address itself for IPv4
	free   bool         // only the limits of all together hold
}

func (c client) String() string {
	if !c.narrow.IsValid() {
		return "a unix socket"
	}
	return c.narrow.String()
}

// clientOf returns who an address is counted as.
func clientOf(ip netip.Addr) client {
	ip = ip.Unmap().WithZone("")
	if !ip.Is6() {
		p, _ := ip.Prefix(32) // an unknown address has the zero prefix
		return client{narrow: p, wide: p}
	}
	narrow, _ := ip.Prefix(64)
	wide, _ := ip.Prefix(48)
	return client{narrow: narrow, wide: wide}
}

// within tells whether a list has an address; the zero prefix has that of a unix socket.
func within(list []netip.Prefix, ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, p := range list {
		if p.Contains(ip) || !p.IsValid() && !ip.IsValid() {
			return true
		}
	}
	return false
}

// shares counts what clients hold, within a limit for all and one for each.
type shares struct {
	limit, each int // each 0: no limit

	mu    sync.Mutex // guards what follows
	all   int
	holds map[netip.Prefix]int // of addresses and, for IPv6, networks that hold something
}

// taken is the answer of shares.
type taken int

const (
	granted taken = iota
	tooMany
	tooManyOfAddress
)

func newShares(limit, each int) *shares {
	return &shares{limit: limit, each: each, holds: make(map[netip.Prefix]int)}
}

// take takes n for a client, or nothing. Who holds nothing may take one thing
// that is larger than the limit.
func (s *shares) take(c client, n int) taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	limited := !c.free && s.each > 0
	switch {
	case limited && (!fits(s.holds[c.narrow], n, s.each) || !fits(s.holds[c.wide], n, s.each*c.share())):
		return tooManyOfAddress
	case !fits(s.all, n, s.limit):
		return tooMany
	}
	s.all += n
	if limited {
		s.holds[c.narrow] += n
		if c.wide != c.narrow {
			s.holds[c.wide] += n
		}
	}
	return granted
}

func fits(held, n, limit int) bool { return held == 0 || held+n <= limit }

// share is how many times an address's share the client's network has.
func (c client) share() int {
	if c.wide == c.narrow {
		return 1
	}
	return networkShare
}

// give takes back what take took.
func (s *shares) give(c client, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all -= n
	if c.free || s.each == 0 {
		return
	}
	s.drop(c.narrow, n)
	if c.wide != c.narrow {
		s.drop(c.wide, n)
	}
}

func (s *shares) drop(p netip.Prefix, n int) {
	if s.holds[p] -= n; s.holds[p] == 0 {
		delete(s.holds, p)
	}
}

// Rates gives each key a steady rate with room for a burst. It remembers
// maxRates keys, and forgets who was not seen for longest. A nil *Rates allows
// all. Safe for concurrent use.
type Rates[K comparable] struct {
	every rate.Limit
	burst int

	mu   sync.Mutex
	keys *lru.Cache[K, *rate.Limiter]
}

// NewRates returns nil when perSecond is 0: all is allowed.
func NewRates[K comparable](perSecond float64, burst int) *Rates[K] {
	if perSecond <= 0 {
		return nil
	}
	keys, err := lru.New[K, *rate.Limiter](maxRates)
	if err != nil {
		panic(err) // the size is a constant
	}
	return &Rates[K]{every: rate.Limit(perSecond), burst: max(burst, 1), keys: keys}
}

// Allow takes one request of a key at now, if there is room.
func (r *Rates[K]) Allow(key K, now time.Time) bool {
	if r == nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l, known := r.keys.Get(key)
	if !known {
		l = rate.NewLimiter(r.every, r.burst)
		r.keys.Add(key, l)
	}
	return l.AllowN(now, 1)
}

// Room tells whether Allow would succeed.
func (r *Rates[K]) Room(key K, now time.Time) bool {
	if r == nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l, known := r.keys.Get(key)
	return !known || l.TokensAt(now) >= 1
}
