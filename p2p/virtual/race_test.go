//go:build race

package virtual_test

// shrink divides the length of the long tests: the race detector makes virtual time ten times as dear,
// and what it looks for shows in the first minutes.
const shrink = 10
