//go:build linux

package network

import (
	"encoding/json"
	"strings"
	"testing"
)

// grpcurl asks a server that tells what it serves; it knows nothing else of it.
func grpcurl(t *testing.T, addr, method, request string) result {
	t.Helper()
	args := []string{"-plaintext", "-max-time", "60", "-format-error", "-emit-defaults", "-d", "@", addr, method}
	return execute(t, []byte(request), programs.grpcurl, args...)
}

// ask calls a method that must answer.
func ask[T any](t *testing.T, addr, method, request string) T {
	t.Helper()
	var out T
	r := grpcurl(t, addr, method, request)
	if r.exit != 0 {
		t.Fatalf("%s of %s: %s", method, request, r.err)
	}
	if err := json.Unmarshal([]byte(r.out), &out); err != nil {
		t.Fatalf("%s: %v: %s", method, err, r.out)
	}
	return out
}

// refusal calls a method that must refuse, and returns how.
func refusal(t *testing.T, addr, method, request string) (code int, message string) {
	t.Helper()
	r := grpcurl(t, addr, method, request)
	var e struct {
		Code    int
		Message string
	}
	if r.exit == 0 {
		t.Fatalf("%s of %.200s is answered: %s", method, request, r.out)
	}
	if err := json.Unmarshal([]byte(r.err), &e); err != nil {
		t.Fatalf("%s of %.200s: %v: %s", method, request, err, r.err)
	}
	return e.Code, e.Message
}

// services lists what a server serves.
func services(t *testing.T, addr string) []string {
	t.Helper()
	r := execute(t, nil, programs.grpcurl, "-plaintext", addr, "list")
	if r.exit != 0 {
		t.Fatal(r.err)
	}
	return strings.Fields(r.out)
}
