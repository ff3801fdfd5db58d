package server

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"tweedle/base/telemetry"
)

// fullPipe returns a pipe that takes not one byte more, as one whose reader stopped.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fds[0]) })
	if err := syscall.SetNonblock(fds[1], true); err != nil {
		t.Fatal(err)
	}
	for size := 1 << 16; size > 0; {
		if _, err := syscall.Write(fds[1], make([]byte, size)); errors.Is(err, syscall.EAGAIN) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.SetNonblock(fds[1], false); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[1]), "stderr")
}

// The real program with a standard error stream that nobody reads, from its first line
// to its last: rounds close, are executed, proved and delivered, registrations are
// answered, and a stop ends it.
func TestNobodyReadsTheLog(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "tweedle")
	if out, err := exec.Command("go", "build", "-o", program, "tweedle/cmd/tweedle").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	addrA, a := realNode(t, "a")
	addrB, b := realNode(t, "b")
	data := filepath.Join(dir, "poet")
	cmd := exec.Command(program, "poet", "--dir", data, "--debuglog", "--network-id", hex.EncodeToString(network[:]),
		"--genesis-time", time.Now().Add(time.Second).UTC().Format(time.RFC3339),
		"--epoch-duration=3s", "--phase-shift=2s", "--cycle-gap=1s", "--max-leaves-per-second=2000",
		"-r", "127.0.0.1:0", "-w", "127.0.0.1:0", "--adminlisten=127.0.0.1:0", "--gateway", addrA, "--gateway", addrB)
	stderr := fullPipe(t)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	_ = stderr.Close()

	var e telemetry.Endpoints
	limit := time.Now().Add(60 * time.Second)
	for ; e.GRPC == ""; time.Sleep(10 * time.Millisecond) {
		if raw, err := os.ReadFile(filepath.Join(data, telemetry.EndpointsFile)); err == nil {
			_ = json.Unmarshal(raw, &e) // the file appears whole
		}
		if time.Now().After(limit) {
			t.Fatal("the server does not start")
		}
	}
	joined := map[string]bool{}
	for n := uint64(0); ; n++ {
		if len(joined) < 2 {
			if round, err := join(t, e.GRPC, n, time.Now().Add(5*time.Second)); err == nil {
				joined[round] = true
			}
		}
		gotA, gotB, missing := a.rounds(t), b.rounds(t), 2-len(joined)
		for round := range joined {
			if !gotA[round] || !gotB[round] {
				missing++
			}
		}
		if missing == 0 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("registrations in rounds %v; delivered %v and %v", joined, gotA, gotB)
		}
		time.Sleep(100 * time.Millisecond)
	}
	begin := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the server ended with %v", err)
		}
		t.Logf("it ended in %s", time.Since(begin).Round(time.Millisecond))
	case <-time.After(10 * time.Second):
		t.Error("a stop does not end the server")
	}
}
