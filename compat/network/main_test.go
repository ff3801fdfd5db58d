//go:build linux

// Package network judges the programs from outside, as people and other
// programs meet them: it builds the real ones, starts whole networks of
// processes, breaks them, and reads them with grpcurl, the published PoET
// verifier, plain HTTP and transactions that it encodes itself. It imports
// nothing of ours.
//
// Times are counted in layers, which the network's clock makes, and not in
// what a busy machine needs for them.
package network

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The programs, built once; nothing else that runs is started from this folder.
var programs struct{ dir, tweedle, grpcurl string }

func TestMain(m *testing.M) {
	flag.Parse()
	// They wait for layers, they do not compute.
	_ = flag.Set("test.parallel", "16")
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs.dir)
	code := m.Run()
	for pid, command := range running() {
		fmt.Fprintf(os.Stderr, "FAIL: process %d is left: %s\n", pid, command)
		_ = syscall.Kill(pid, syscall.SIGKILL)
		code = 1
	}
	return code
}

func build() (err error) {
	if programs.dir, err = os.MkdirTemp("", "judge"); err != nil {
		return err
	}
	// Other users run the program too, in TestErrorsAtStart.
	if err := os.Chmod(programs.dir, 0o755); err != nil {
		return err
	}
	programs.tweedle, programs.grpcurl = filepath.Join(programs.dir, "tweedle"), filepath.Join(programs.dir, "grpcurl")
	for _, b := range []struct{ from, to, name string }{
		{"../..", programs.tweedle, "./cmd/tweedle"},
		{".", programs.grpcurl, "github.com/fullstorydev/grpcurl/cmd/grpcurl"},
	} {
		cmd := exec.Command("go", "build", "-o", b.to, b.name)
		cmd.Dir = b.from
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", b.name, err, out)
		}
	}
	return nil
}

// running returns the processes of our programs, with their command lines. A
// socket does not outlive its process: where none of these is, no port is left
// either.
func running() map[int]string {
	out := make(map[int]string)
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is valid
	for _, link := range links {
		exe, err := os.Readlink(link)
		if err != nil || filepath.Dir(strings.TrimSuffix(exe, " (deleted)")) != programs.dir {
			continue // it ended meanwhile, or is nobody of ours
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil {
			line, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
			out[pid] = string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		}
	}
	return out
}

// isGone tells whether no process has the id.
func isGone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// service is a program that runs until it is stopped.
type service struct {
	cmd    *exec.Cmd
	stderr locked
	done   chan struct{}
	err    error // how it ended, once done is closed
}

// launch starts a program that also ends when we do, however we end. Linux
// ties that to the thread that started it, so this one is kept.
func launch(t *testing.T, cmd *exec.Cmd) *service {
	t.Helper()
	s := &service{cmd: cmd, done: make(chan struct{})}
	cmd.Stderr = &s.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer close(s.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			s.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	return s
}

// stopTime is what a service has for an orderly end.
const stopTime = time.Minute

// stop ends the service in order and returns how it ended.
func (s *service) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
		return s.err
	case <-time.After(stopTime):
		_ = s.cmd.Process.Kill()
		<-s.done
		return fmt.Errorf("%v after SIGTERM it still ran", stopTime)
	}
}

// commandTime bounds one command.
const commandTime = 2 * time.Minute

// result is how a command ended.
type result struct {
	out, err string
	exit     int
}

// tweedle runs one command to its end.
func tweedle(t *testing.T, args ...string) result {
	t.Helper()
	return execute(t, nil, programs.tweedle, args...)
}

func execute(t *testing.T, stdin []byte, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTime)
	defer cancel()
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s %v: %v %s", filepath.Base(name), args, err, &stderr)
	}
	return result{out.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must runs a command that has to succeed and returns what it printed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	r := tweedle(t, args...)
	if r.exit != 0 {
		t.Fatalf("tweedle %s: exit %d: %s%s", strings.Join(args, " "), r.exit, r.out, r.err)
	}
	return r.out
}
