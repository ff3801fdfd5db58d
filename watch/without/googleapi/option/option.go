// Package option stands where Prometheus's remote storage imports the options of
// Google's clients. None has an effect: transport/http refuses.
package option

// ClientOption is one.
type ClientOption struct{}

// CredentialsType is what a file of credentials holds.
type CredentialsType string

// ServiceAccount is a kind of credentials.
const ServiceAccount CredentialsType = "service_account"

// WithScopes has no effect.
func WithScopes(...string) ClientOption { return ClientOption{} }

// WithAuthCredentialsFile has no effect.
func WithAuthCredentialsFile(CredentialsType, string) ClientOption { return ClientOption{} }

// WithCredentials has no effect.
func WithCredentials(any) ClientOption { return ClientOption{} }
