//go:build race

package smeshing

// raceEnabled tells that the race detector watches the tests.
const raceEnabled = true
