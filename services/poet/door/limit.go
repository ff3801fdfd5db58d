package door

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// maxTracked bounds how many clients a limiter keeps account of.
const maxTracked = 1 << 16

// limiter gives each key a steady rate with room for a burst. It keeps one
// moment per key: when the key's allowance would be full again (the generic
// cell rate algorithm). Safe for concurrent use; a nil limiter allows all.
type limiter[K comparable] struct {
	every time.Duration // between two requests of the steady rate
	burst int

	mu   sync.Mutex
	full map[K]time.Time
}

// newLimiter returns nil, which allows all, when perSecond is 0.
func newLimiter[K comparable](perSecond float64, burst int) *limiter[K] {
	if perSecond <= 0 {
		return nil
	}
	return &limiter[K]{
		every: time.Duration(float64(time.Second) / perSecond),
		burst: max(burst, 1),
		full:  map[K]time.Time{},
	}
}

// allow takes one request of key at now, if there is room.
func (l *limiter[K]) allow(key K, now time.Time) bool { return l.ask(key, now, true) }

// room tells whether allow would succeed.
func (l *limiter[K]) room(key K, now time.Time) bool { return l.ask(key, now, false) }

func (l *limiter[K]) ask(key K, now time.Time, take bool) bool {
	if l == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	full := l.full[key]
	if full.Before(now) {
		full = now
	}
	full = full.Add(l.every)
	if full.Sub(now) > l.every*time.Duration(l.burst) {
		return false
	}
	if take {
		if len(l.full) >= maxTracked {
			l.evict(now)
		}
		l.full[key] = full
	}
	return true
}

// evict forgets the keys whose allowance is full again, which loses nothing.
// If that frees too little, somebody commands very many addresses, and any
// key is as good to forget as another.
func (l *limiter[K]) evict(now time.Time) {
	for k, full := range l.full {
		if !full.After(now) {
			delete(l.full, k)
		}
	}
	for k := range l.full {
		if len(l.full) <= maxTracked/2 {
			return
		}
		delete(l.full, k)
	}
}

// client returns what a client is told apart by: its IPv4 address, or the /64
// of its IPv6 address, of which one person has 2^64. Programs on the same
// machine, among them a reverse proxy, are not limited: ok is false.
func client(addr net.Addr) (key netip.Prefix, ok bool) {
	if addr == nil {
		return netip.Prefix{}, false
	}
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Prefix{}, false // a unix socket
	}
	ip := ap.Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	key, err = ip.Prefix(bits)
	return key, err == nil && !ip.IsLoopback()
}
