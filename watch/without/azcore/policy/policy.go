// Package policy has the options of a request that is never made.
package policy

// TokenRequestOptions says what a token would be for.
type TokenRequestOptions struct{ Scopes []string }
