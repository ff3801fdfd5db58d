//go:build !race

package node

// raceEnabled tells that the race detector watches the tests.
const raceEnabled = false
