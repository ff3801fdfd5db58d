//go:build race

package virtual_test

// The race detector makes virtual time ten times as dear, and what it looks for shows among a few hosts
// in the first minutes: the long tests are shorter by shrink, and the large ones have fewer hosts.
const (
	shrink = 10
	hosts  = 6
)
