package rounds

import (
	"strings"
	"testing"
	"time"
)

// Nothing but an import opens half an import, and a running server is in no import.
func TestHalfAnImportIsTold(t *testing.T) {
	cfg := config(t, time.Unix(1e9, 0))
	plain := cfg
	cfg.Importing = true
	for range 2 { // it may be repeated
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(plain); err == nil || !strings.Contains(err.Error(), "tweedle poet import") {
			t.Fatalf("half an import: %v", err)
		}
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Imported(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(plain); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); err == nil {
		t.Fatal("an import goes into the directory of a server that runs")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(plain); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
