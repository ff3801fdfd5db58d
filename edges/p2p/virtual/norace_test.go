//go:build !race

package virtual_test

const (
	shrink = 1
	hosts  = 10
)
