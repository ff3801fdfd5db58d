package front

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"tweedle/base/durable"
)

// Certificate is what public doors show over TLS, from two PEM files: the chain, and
// its key, which nobody but its owner may read. They are looked at while clients come,
// so that a renewed certificate needs no restart; while they are no pair that can be
// used, as between the writing of one and the other, the last one that could is shown.
type Certificate struct {
	chainPath, keyPath string
	log                *slog.Logger

	mu         sync.Mutex // guards what follows
	looked     time.Time
	told       string    // the last trouble with the files that the log has
	warned     time.Time // when the log was told last that it expires
	chain, key []byte    // what pair was made of
	pair       *tls.Certificate
}

const (
	// lookAgain is how long the files are believed to be what they were.
	lookAgain = time.Second
	// expireSoon is the time left of a certificate from which on the log says so, once a
	// day: renewals by robots begin 30 days before.
	expireSoon = 14 * 24 * time.Hour
	// maxCertificate bounds each of the files, in bytes.
	maxCertificate = 1 << 20
)

// OpenCertificate reads both files; log may be nil. The error is one line that says what to do.
func OpenCertificate(chain, key string, log *slog.Logger) (*Certificate, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Certificate{chainPath: chain, keyPath: key, log: log, looked: time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.refresh()
	if err == nil {
		c.warn(time.Now())
	}
	return c, err
}

// warn says in the log that the certificate expires soon, or has.
func (c *Certificate) warn(now time.Time) {
	left := c.pair.Leaf.NotAfter.Sub(now)
	if left > expireSoon || now.Sub(c.warned) < 24*time.Hour {
		return
	}
	c.warned = now
	if left <= 0 {
		c.log.Error("the TLS certificate has expired, clients do not accept it: renew it", "file", c.chainPath, "expired", c.pair.Leaf.NotAfter)
		return
	}
	c.log.Warn("the TLS certificate expires soon: renew it", "file", c.chainPath, "expires", c.pair.Leaf.NotAfter)
}

// refresh reads the files; an error leaves everything as it was.
func (c *Certificate) refresh() error {
	if err := durable.Private(c.keyPath); err != nil {
		return fmt.Errorf("key of the TLS certificate: %w", err)
	}
	chain, err := readCertificate(c.chainPath)
	if err != nil {
		return err
	}
	key, err := readCertificate(c.keyPath)
	if err != nil {
		return err
	}
	if bytes.Equal(chain, c.chain) && bytes.Equal(key, c.key) {
		return nil
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil { // it has no word of the key
		return fmt.Errorf("TLS certificate: %s and %s are not a certificate and its key: %w", c.chainPath, c.keyPath, err)
	}
	if c.pair != nil {
		c.log.Info("a new TLS certificate is shown", "file", c.chainPath, "expires", pair.Leaf.NotAfter)
	}
	c.chain, c.key, c.pair, c.warned = chain, key, &pair, time.Time{}
	return nil
}

func readCertificate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCertificate+1))
	if err == nil && len(b) > maxCertificate {
		err = errors.New("it is too large for a certificate")
	}
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %s: %w", path, err)
	}
	return b, nil
}

// show returns the certificate for a handshake.
func (c *Certificate) show(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= lookAgain {
		c.looked = now
		err := c.refresh()
		if text := fmt.Sprint(err); err != nil && text != c.told {
			c.told = text
			c.log.Error("the TLS certificate cannot be read again, the last one is still shown", "err", err)
		} else if err == nil {
			c.told = ""
		}
		c.warn(now)
	}
	return c.pair, nil
}

// over returns what TLS needs for connections that speak one protocol.
func (c *Certificate) over(protocol string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{protocol}, GetCertificate: c.show}
}
