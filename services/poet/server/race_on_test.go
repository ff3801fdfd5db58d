//go:build race

package server

// raced tells that the race detector runs, which takes several times the memory.
const raced = true
