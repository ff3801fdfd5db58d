package main

import (
	"os"
	"testing"
)

func TestKernelsAreWhatTheGeneratorWrites(t *testing.T) {
	for name, want := range files() {
		got, err := os.ReadFile("../" + name)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s differs from the generator's output: run go generate ./proofs/posw", name)
		}
	}
}
