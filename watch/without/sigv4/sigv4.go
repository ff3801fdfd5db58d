// Package sigv4 stands where Prometheus and Alertmanager import the signing of
// requests to Amazon's cloud. The watch has none: a configuration that asks for it
// is refused.
package sigv4

import (
	"errors"
	"net/http"
)

// ErrNone says what is not there.
var ErrNone = errors.New("this watch has no credentials of Amazon's cloud: remove sigv4 and what needs it")

// SigV4Config is a section that is never accepted.
type SigV4Config struct{}

// UnmarshalYAML refuses the section.
func (*SigV4Config) UnmarshalYAML(func(any) error) error { return ErrNone }

// NewSigV4RoundTripper refuses.
func NewSigV4RoundTripper(*SigV4Config, http.RoundTripper) (http.RoundTripper, error) {
	return nil, ErrNone
}
