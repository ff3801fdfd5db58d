package door

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// The limiter against its slow twin: a bucket that fills drop by drop.
func TestTheLimiterIsABucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		every := time.Duration(rapid.IntRange(1, 1000).Draw(t, "every")) * time.Millisecond
		burst := rapid.IntRange(1, 20).Draw(t, "burst")
		l := &limiter[int]{every: every, burst: burst, full: map[int]time.Time{}}
		now := time.Unix(1e9, 0)
		room := map[int]time.Duration{} // in units of time to refill
		last := now
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "wait")) * time.Millisecond)
			key := rapid.IntRange(0, 2).Draw(t, "key")
			for k := range 3 {
				if _, ok := room[k]; !ok {
					room[k] = every * time.Duration(burst)
				}
				room[k] = min(room[k]+now.Sub(last), every*time.Duration(burst))
			}
			last = now
			want := room[key] >= every
			if want {
				room[key] -= every
			}
			if l.room(key, now) != want || l.allow(key, now) != want {
				t.Fatalf("the bucket says %v", want)
			}
		}
	})
}

func TestTheLimiterIsBounded(t *testing.T) {
	l := newLimiter[int](1, 1)
	now := time.Unix(1e9, 0)
	for i := range 3 * maxTracked {
		l.allow(i, now)
	}
	if len(l.full) > maxTracked {
		t.Fatalf("%d keys are tracked", len(l.full))
	}
	now = now.Add(time.Hour)
	for i := range maxTracked {
		l.allow(-i-1, now)
	}
	if len(l.full) > maxTracked {
		t.Fatalf("%d keys are tracked", len(l.full))
	}
}

func TestWhoCountsAsOneClient(t *testing.T) {
	for _, c := range []struct {
		addr    string
		want    string
		limited bool
	}{
		{"192.0.2.7:1", "192.0.2.7/32", true},
		{"[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2::/64", true},
		{"[::ffff:192.0.2.7]:1", "192.0.2.7/32", true},
		{"127.0.0.1:1", "127.0.0.1/32", false},
		{"[::1]:1", "::/64", false},
	} {
		key, limited := client(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.addr)))
		if key.String() != c.want || limited != c.limited {
			t.Errorf("%s is %s, limited %v", c.addr, key, limited)
		}
	}
	if _, limited := client(&net.UnixAddr{Name: "x", Net: "unix"}); limited {
		t.Error("a unix socket is limited")
	}
	if _, limited := client(nil); limited {
		t.Error("no address is limited")
	}
}

// One address is limited over REST, and recovers; another one and this machine
// are not concerned.
func TestOneAddressCannotKeepTheServerBusy(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, dir, testSchedule(), nil)
		p := newPublic(r.service, r.cfg)
		h, err := p.rest()
		if err != nil {
			t.Fatal(err)
		}
		ask := func(from, path string) int {
			req := httptest.NewRequest(http.MethodGet, path, nil)
			req.RemoteAddr = from
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			return w.Code
		}
		limited := 0
		for i := range 2 * r.cfg.Limits.AddressBurst {
			path := "/v1/info"
			if i%2 == 1 {
				path = "/v1/proofs/0"
			}
			if ask("192.0.2.7:1234", path) == http.StatusTooManyRequests {
				limited++
			}
		}
		if limited != r.cfg.Limits.AddressBurst {
			t.Fatalf("%d of %d requests were limited, want half", limited, 2*r.cfg.Limits.AddressBurst)
		}
		if code := ask("192.0.2.8:1", "/v1/info"); code != http.StatusOK {
			t.Errorf("another address gets %d", code)
		}
		if code := ask("127.0.0.1:1", "/v1/info"); code != http.StatusOK {
			t.Errorf("this machine gets %d", code)
		}
		time.Sleep(time.Second)
		if code := ask("192.0.2.7:1", "/v1/info"); code != http.StatusOK {
			t.Errorf("a second later it gets %d", code)
		}
	})
}

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

// The listener takes no more connections than it should, and more when some end.
func TestConnectionsAreBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limitConns(inner, 2)
	accepted := make(chan net.Conn, 10)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, second := <-accepted, <-accepted
	select {
	case <-accepted:
		t.Fatal("a third connection was accepted")
	default:
	}
	first.Close()
	first.Close() // closing twice frees one place only
	third := <-accepted
	second.Close()
	third.Close()
	l.Close()
	<-ended
}

// remote is a connection from somewhere.
type remote struct {
	net.Conn
	from net.Addr
}

func (r remote) RemoteAddr() net.Addr { return r.from }

// script is a listener whose connections come from given addresses.
type script struct {
	net.Listener
	from []string
}

func (s *script) Accept() (net.Conn, error) {
	if len(s.from) == 0 {
		return nil, net.ErrClosed
	}
	near, far := net.Pipe()
	go func() { _, _ = far.Read(make([]byte, 1)) }() // ends when the near end closes
	c := remote{near, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s.from[0]))}
	s.from = s.from[1:]
	return c, nil
}

// One client cannot take all connections, and its place is free again when
// they end.
func TestOneClientsConnectionsAreBounded(t *testing.T) {
	var from []string
	for i := range 2 * maxConnsPerClient {
		from = append(from, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i+1)).String())
	}
	from = append(from, "192.0.2.2:1", "192.0.2.1:9999")
	l := limitConns(&script{from: from}, 10*maxConnsPerClient).(*limitedListener)
	var open []net.Conn
	for range maxConnsPerClient + 1 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if last := open[maxConnsPerClient].RemoteAddr().String(); last != "192.0.2.2:1" {
		t.Fatalf("after %d connections of one address comes %s", maxConnsPerClient, last)
	}
	open[0].Close()
	c, err := l.Accept()
	if err != nil || c.RemoteAddr().String() != "192.0.2.1:9999" {
		t.Fatalf("%v, %v", c, err)
	}
	for _, c := range append(open, c) {
		c.Close()
	}
	if len(l.perClient) != 0 || len(l.slots) != 0 {
		t.Fatalf("%d clients and %d connections are left", len(l.perClient), len(l.slots))
	}
}
