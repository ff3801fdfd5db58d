package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"tweedle/edges/api/doortest"
)

// files are those of a certificate that is written anew now and then.
type files struct {
	t          *testing.T
	chain, key string
	trusted    *x509.CertPool // whatever was written
}

func newFiles(t *testing.T) *files {
	dir := t.TempDir()
	return &files{t: t, chain: filepath.Join(dir, "chain.pem"), key: filepath.Join(dir, "key.pem"), trusted: x509.NewCertPool()}
}

// pair makes a certificate with its number, and its key.
func (f *files) pair(number int64, until time.Time) (chain, key []byte) {
	f.t.Helper()
	chain, key = doortest.Certificate(f.t, number, until)
	f.trusted.AppendCertsFromPEM(chain)
	return chain, key
}

func (f *files) write(path string, content []byte, mode fs.FileMode) {
	f.t.Helper()
	if err := os.WriteFile(path, content, mode); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		f.t.Fatal(err)
	}
}

// renew writes a certificate with a number, first the chain and then the key.
func (f *files) renew(number int64) {
	f.t.Helper()
	chain, key := f.pair(number, time.Now().Add(time.Hour))
	f.write(f.chain, chain, 0o644)
	f.write(f.key, key, 0o600)
}

// secure is open with a certificate of number 1.
func secure(t *testing.T, l Limits, s *service, adjust ...func(*Options)) (*door, *files) {
	t.Helper()
	f := newFiles(t)
	f.renew(1)
	d := open(t, l, s, append(adjust, func(o *Options) {
		var err error
		if o.Certificate, err = OpenCertificate(f.chain, f.key, o.Log); err != nil {
			t.Fatal(err)
		}
	})...)
	d.rest = strings.Replace(d.rest, "http:", "https:", 1)
	return d, f
}

// number is that of the certificate that a listener shows to a client that believes all that
// were written.
func (f *files) number(address, protocol string) (int64, error) {
	c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: f.trusted, NextProtos: []string{protocol}})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

// With a certificate both doors speak TLS and nothing else, and everything that holds
// in plain text holds over it.
func TestADoorWithACertificateSpeaksTLS(t *testing.T) {
	l := testLimits()
	l.Handshake = 300 * time.Millisecond
	s := bytesOf(1)
	s.get = func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }
	d, f := secure(t, l, s)
	trust := &tls.Config{RootCAs: f.trusted}

	web := &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true} // which REST has not
	t.Cleanup(web.CloseIdleConnections)
	if code, body := d.get(&http.Client{Transport: web}); code != http.StatusOK || body != "HTTP/1.1" {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := d.get(&http.Client{Transport: web}, "X-Long", strings.Repeat("x", 20<<10)); code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d for headers that are too large", code)
	}
	c, err := grpc.NewClient("passthrough:///"+d.grpc, grpc.WithTransportCredentials(credentials.NewTLS(trust)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if n, err := ask(short(t), c); n != 1 || err != nil {
		t.Error(n, err)
	}
	_, err = ask(metadata.AppendToOutgoingContext(short(t), "x-long", strings.Repeat("~", 9<<10)), c)
	wantCode(t, err, codes.ResourceExhausted, "headers of the request are too large")
	if n := d.refused(limitHeader); n != 2 {
		t.Errorf("%v headers are counted, want 2", n)
	}

	// Plain text is heard by nobody.
	if _, err := ask(short(t), d.dial()); err == nil {
		t.Error("a call in plain text is answered")
	}
	if res, err := http.Get(strings.Replace(d.rest, "https:", "http:", 1)); err == nil {
		_ = res.Body.Close()
		t.Errorf("a request in plain text is answered: %s", res.Status)
	}
	// Nor is an old TLS.
	if c, err := tls.Dial("tcp", d.grpc, &tls.Config{RootCAs: f.trusted, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		_ = c.Close()
		t.Error("TLS 1.1 is spoken")
	}
	// A handshake that does not go on has its time, like one without TLS.
	for _, address := range []string{d.grpc, strings.TrimPrefix(d.rest, "https://")} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a client that says nothing is still connected to %s", address)
		}
	}
	d.until("handshakes that do not go on are counted", func() bool { return d.refused(limitHandshake) == 2 })
}

// A renewed certificate is shown without a restart; while there is none that can be used,
// the last one is.
func TestARenewedCertificateNeedsNoRestart(t *testing.T) {
	d, f := secure(t, testLimits(), bytesOf(1))
	rest := strings.TrimPrefix(d.rest, "https://")
	shows := func(want int64) bool {
		t.Helper()
		a, err := f.number(d.grpc, "h2")
		if err != nil {
			t.Fatal(err)
		}
		b, err := f.number(rest, "http/1.1")
		if err != nil {
			t.Fatal(err)
		}
		return a == want && b == want
	}
	if !shows(1) {
		t.Fatal("it does not show what is there at the start")
	}
	f.renew(2)
	d.until("the second one is shown", func() bool { return shows(2) })

	chain, key := f.pair(3, time.Now().Add(time.Hour))
	f.write(f.chain, chain, 0o644) // of another key
	const told = "the last one is still shown"
	d.until("that is told", func() bool { return shows(2) && d.log.count(told) == 1 })
	if err := os.Remove(f.key); err != nil {
		t.Fatal(err)
	}
	d.until("that is told too", func() bool { return shows(2) && d.log.count(told) == 2 })
	f.write(f.key, key, 0o640)
	d.until("and that others can read it", func() bool { return shows(2) && d.log.count("chmod 600") == 1 })
	f.write(f.key, []byte("nonsense"), 0o600)
	d.until("and what is no key", func() bool { return shows(2) && d.log.count(told) == 4 })
	f.write(f.key, key, 0o600)
	d.until("the third one is shown", func() bool { return shows(3) })
	if n := d.log.count(told); n != 4 {
		t.Errorf("told %d times, not once for each trouble: %s", n, d.log.all.String())
	}
}

// What cannot be shown is told at the start, in one line that says what to do and has nothing
// of the key.
func TestFilesThatAreNoCertificate(t *testing.T) {
	f := newFiles(t)
	chain, key := f.pair(1, time.Now().Add(time.Hour))
	_, other := f.pair(2, time.Now().Add(time.Hour))
	for _, c := range []struct {
		what       string
		chain, key []byte
		mode       fs.FileMode
		want       string
	}{
		{"a key that others can read", chain, key, 0o640, "chmod 600"},
		{"a key that everybody can read", chain, key, 0o604, "chmod 600"},
		{"the key of another", chain, other, 0o600, "are not a certificate and its key"},
		{"a key in the place of the certificate", key, key, 0o600, "are not a certificate and its key"},
		{"no key", chain, nil, 0o600, "are not a certificate and its key"},
		{"no certificate", nil, key, 0o600, "are not a certificate and its key"},
		{"what never ends", make([]byte, maxCertificate+1), key, 0o600, "too large"},
	} {
		f.write(f.chain, c.chain, 0o644)
		f.write(f.key, c.key, c.mode)
		_, err := OpenCertificate(f.chain, f.key, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		for line := range strings.Lines(string(key)) {
			if line = strings.TrimSpace(line); len(line) > 30 && strings.Contains(err.Error(), line) {
				t.Errorf("%s: the message has the key", c.what)
			}
		}
	}
	for _, missing := range []string{f.chain, f.key} {
		if err := os.Remove(missing); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenCertificate(f.chain, f.key, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("without %s: %v", missing, err)
		}
		f.write(f.chain, chain, 0o644)
	}
	// An old one is better than a node that does not start.
	old, key := f.pair(3, time.Now().Add(-time.Minute))
	f.write(f.chain, old, 0o644)
	f.write(f.key, key, 0o600)
	log := &lines{}
	if _, err := OpenCertificate(f.chain, f.key, textLog(log)); err != nil || log.count("has expired") != 1 {
		t.Errorf("%v: %s", err, log.all.String())
	}
}

// Who forgets to renew is told each day of the last two weeks, while clients come.
func TestACertificateThatExpiresIsTold(t *testing.T) {
	f := newFiles(t)
	chain, key := f.pair(1, time.Now().Add(expireSoon+time.Hour))
	f.write(f.chain, chain, 0o644)
	f.write(f.key, key, 0o600)
	log := &lines{}
	c, err := OpenCertificate(f.chain, f.key, textLog(log))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for _, at := range []struct {
		after         time.Duration
		soon, expired int
	}{{0, 0, 0}, {2 * time.Hour, 1, 0}, {20 * time.Hour, 1, 0}, {27 * time.Hour, 2, 0}, {expireSoon + 2*time.Hour, 2, 1}} {
		c.mu.Lock()
		c.warn(begin.Add(at.after))
		c.mu.Unlock()
		if soon, expired := log.count("expires soon"), log.count("has expired"); soon != at.soon || expired != at.expired {
			t.Errorf("after %v it was told %d times that it expires and %d times that it has, not %d and %d", at.after, soon, expired, at.soon, at.expired)
		}
	}
	c.mu.Lock()
	c.looked = begin.Add(-lookAgain)
	c.warned = time.Time{}
	c.pair.Leaf.NotAfter = begin.Add(time.Hour)
	c.mu.Unlock()
	if _, err := c.show(nil); err != nil || log.count("expires soon") != 3 {
		t.Errorf("%v: a client came, and nothing is told", err)
	}
}

// A handshake of TLS is the dearest thing that a client can have without a request, and
// counts as one.
func TestHandshakesOfTLSAreLimited(t *testing.T) {
	l := testLimits()
	l.Rate, l.Burst = 1e-9, 3
	d, f := secure(t, l, bytesOf(1))
	for i := range 6 {
		if _, err := f.number(d.grpc, "h2"); (err == nil) != (i < 3) {
			t.Errorf("handshake %d: %v", i, err)
		}
	}
	if n := d.refused(limitRate); n != 3 || d.log.count("limit=rate-limit last=127.0.0.1/32") != 1 {
		t.Errorf("%v handshakes are counted, want 3: %s", n, d.log.all.String())
	}
}

// sockets is a door on unix sockets.
func sockets(t *testing.T, l Limits, adjust ...func(*Options)) (d *door, c *grpc.ClientConn, web *http.Client) {
	t.Helper()
	dir := t.TempDir()
	var on [2]net.Listener
	for i, name := range []string{"grpc.sock", "rest.sock"} {
		var err error
		if on[i], err = ListenPublic(UnixPrefix + filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o660 {
			t.Fatalf("the socket has mode %v, %v", info.Mode(), err)
		}
	}
	d = openOn(t, on[0], on[1], l, bytesOf(1), adjust...)
	d.rest = "http://socket"
	c = check[*grpc.ClientConn](t)(grpc.NewClient(Address(on[0]), grpc.WithTransportCredentials(insecure.NewCredentials())))
	t.Cleanup(func() { _ = c.Close() })
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", on[1].Addr().String())
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return d, c, &http.Client{Transport: tr}
}

// A socket is for a proxy on this machine: in plain text, for the owner and the group, and what
// the proxy says of its clients is believed if it was named, and is nothing else than
// one client's word otherwise.
func TestClientsBehindASocketAreToldApart(t *testing.T) {
	l := testLimits()
	l.Rate, l.Burst = 1e-9, 3
	of := func(c *grpc.ClientConn, forwarded string) error {
		_, err := ask(metadata.AppendToOutgoingContext(short(t), "x-forwarded-for", forwarded), c)
		return err
	}
	t.Run("named", func(t *testing.T) {
		d, c, web := sockets(t, l, func(o *Options) { o.Proxies = []netip.Prefix{{}} })
		for _, client := range []string{"192.0.2.1", "192.0.2.2"} {
			for range 2 {
				if err := of(c, client); err != nil {
					t.Fatal(err)
				}
			}
			if code, _ := d.get(web, "X-Forwarded-For", client); code != http.StatusOK {
				t.Fatal(code)
			}
			wantCode(t, of(c, client), codes.ResourceExhausted, "too many requests")
			if code, _ := d.get(web, "X-Forwarded-For", "198.51.100.1, "+client); code != http.StatusTooManyRequests {
				t.Errorf("%s asks under another name: %d", client, code)
			}
		}
		if n := d.refused(limitRate); n != 4 || d.log.count("limit=rate-limit last=192.0.2.1/32") != 1 {
			t.Errorf("%v refusals are counted: %s", n, d.log.all.String())
		}
	})
	t.Run("not named", func(t *testing.T) {
		d, c, web := sockets(t, l, func(o *Options) {
			o.Proxies = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
		})
		for _, client := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
			if err := of(c, client); err != nil {
				t.Fatal(err)
			}
		}
		wantCode(t, of(c, "192.0.2.4"), codes.ResourceExhausted, "too many requests")
		if code, _ := d.get(web, "X-Forwarded-For", "192.0.2.5"); code != http.StatusTooManyRequests {
			t.Errorf("it is believed: %d", code)
		}
		if d.log.count(`limit=rate-limit last="a unix socket"`) != 1 {
			t.Errorf("the log does not say who: %s", d.log.all.String())
		}
	})
	t.Run("with a certificate", func(t *testing.T) {
		f := newFiles(t)
		f.renew(1)
		d, c, web := sockets(t, testLimits(), func(o *Options) { o.Certificate = check[*Certificate](t)(OpenCertificate(f.chain, f.key, nil)) })
		if err := of(c, "192.0.2.1"); err != nil {
			t.Error(err)
		}
		if code, _ := d.get(web); code != http.StatusOK {
			t.Error(code)
		}
	})
}

func check[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
