//go:build linux

package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody is a user who owns nothing.
const nobody = 65534

// program is a command line that runs a service on ports of the system's choice.
type program struct {
	name string
	args []string
}

// startable are the services, for one network file and one data directory.
func startable(network, dir string) []program {
	return []program{
		{"node", []string{"node", "--network", network, "--dir", dir, "--listen", "/ip4/127.0.0.1/udp/0/quic-v1",
			"--grpc-listen", "127.0.0.1:0", "--rest-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"}},
		{"poet", []string{"poet", "--network", network, "--dir", dir,
			"--rpclisten", "127.0.0.1:0", "--restlisten", "127.0.0.1:0", "--adminlisten", "127.0.0.1:0"}},
		{"testnet", []string{"testnet", "up", "--plain", "--dir", dir}},
	}
}

// networkFile writes a network file; its genesis is hours ahead.
func networkFile(t *testing.T, hours int, extra string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "network.json")
	genesis := time.Now().Add(time.Duration(hours) * time.Hour).UTC().Format(time.RFC3339)
	text := fmt.Sprintf(`{"name":"judged","preset":"local","genesis_time":%q,"extra_data":%q}`, genesis, extra)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	public(t, path)
	return path
}

// public lets other users reach a file in a folder of ours.
func public(t *testing.T, path string) {
	t.Helper()
	for dir := filepath.Dir(path); strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// failsToStart checks that a command ends with status 1 and one line that
// holds all the words: what happened, and what to do.
func failsToStart(t *testing.T, what string, cmd *exec.Cmd, words ...string) {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%s: %v, want exit status 1\n%s%s", what, err, &out, &stderr)
		return
	}
	line, rest, _ := strings.Cut(stderr.String(), "\n")
	if !strings.HasPrefix(line, "tweedle: ") || rest != "" {
		t.Errorf("%s: more, or other, than one line:\n%s", what, &stderr)
	}
	for _, w := range words {
		if !strings.Contains(stderr.String(), w) {
			t.Errorf("%s: %q is not in: %s", what, w, &stderr)
		}
	}
	t.Logf("%s: %s", what, line)
}

// started runs a service until it has opened its listeners, then stops it.
func started(t *testing.T, p program, dir string) {
	t.Helper()
	s := launch(t, exec.Command(programs.tweedle, p.args...))
	for deadline := time.Now().Add(stopTime); ; time.Sleep(poll / 5) {
		if _, err := os.Stat(filepath.Join(dir, "endpoints.json")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%s opened no listeners in %v", p.name, stopTime)
			break
		}
	}
	if err := s.stop(); err != nil {
		t.Fatalf("%s ended with %v\n%s", p.name, err, &s.stderr)
	}
}

// with replaces the value of a flag.
func (p program) with(flag, value string) []string {
	var out []string
	for i, a := range p.args {
		if i > 0 && p.args[i-1] == flag {
			a = value
		}
		out = append(out, a)
	}
	return out
}

func TestErrorsAtStart(t *testing.T) {
	t.Parallel()
	command := func(t *testing.T, args ...string) *exec.Cmd {
		ctx, cancel := context.WithTimeout(t.Context(), stopTime)
		t.Cleanup(cancel)
		return exec.CommandContext(ctx, programs.tweedle, args...)
	}
	network := networkFile(t, 1, "aa")

	t.Run("PortInUse", func(t *testing.T) {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer udp.Close()
		_, udpPort, _ := net.SplitHostPort(udp.LocalAddr().String())
		taken := tcp.Addr().String()
		for _, p := range startable(network, t.TempDir())[:2] {
			for _, flag := range []string{"--grpc-listen", "--rest-listen", "--metrics-listen", "--rpclisten", "--restlisten", "--adminlisten"} {
				if strings.Contains(strings.Join(p.args, " "), flag) {
					failsToStart(t, p.name+" "+flag, command(t, p.with(flag, taken)...), flag, taken, "in use", "choose another")
				}
			}
			if p.name == "node" {
				failsToStart(t, "node --listen", command(t, p.with("--listen", "/ip4/127.0.0.1/udp/"+udpPort+"/quic-v1")...),
					udpPort, "in use", "choose another")
			}
		}
	})

	t.Run("DirectoryOfAnotherNetwork", func(t *testing.T) {
		other := networkFile(t, 2, "bb")
		for i := range 2 {
			dir := t.TempDir()
			ours, theirs := startable(network, dir)[i], startable(other, dir)[i]
			started(t, ours, dir)
			failsToStart(t, ours.name, command(t, theirs.args...), dir, "another")
			started(t, ours, dir) // it was not harmed
		}
	})

	t.Run("DirectoryInUse", func(t *testing.T) {
		for i := range 2 {
			dir := t.TempDir()
			p := startable(network, dir)[i]
			s := launch(t, exec.Command(programs.tweedle, p.args...))
			for {
				if _, err := os.Stat(filepath.Join(dir, "endpoints.json")); err == nil {
					break
				}
				time.Sleep(poll / 5)
			}
			failsToStart(t, p.name, command(t, p.args...), dir, "another process", "another directory")
			if err := s.stop(); err != nil {
				t.Errorf("%s ended with %v", p.name, err)
			}
		}
	})

	t.Run("UnwritableDirectory", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Log("we are root, who may write everywhere: the programs run as nobody")
		}
		dir := t.TempDir()
		public(t, filepath.Join(dir, "x"))
		if err := os.Chmod(dir, 0o555); err != nil {
			t.Fatal(err)
		}
		for _, d := range []string{dir, filepath.Join(dir, "below")} {
			for _, p := range startable(network, d) {
				cmd := command(t, p.args...)
				cmd.Env = append(os.Environ(), "HOME="+d)
				if os.Geteuid() == 0 {
					cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
				}
				failsToStart(t, p.name, cmd, d, "choose")
			}
		}
		for _, p := range startable(network, network) { // a file in its place
			failsToStart(t, p.name, command(t, p.args...), network, "choose another")
		}
	})

	t.Run("FullDisk", func(t *testing.T) { fullDisk(t, network) })
}

// fullDisk starts the programs on a disk of their own, which only they see and
// which is gone with them, with less and less room.
func fullDisk(t *testing.T, network string) {
	const onFullDisk = `mount -t tmpfs -o size=1m none "$1" && head -c "$2" /dev/zero >"$1/fill" && shift 2 && exec "$@"`
	const size = 1 << 20
	disk := t.TempDir()
	on := func(ctx context.Context, free int, args ...string) *exec.Cmd {
		all := append([]string{"-rm", "sh", "-c", onFullDisk, "sh", disk, fmt.Sprint(size - free)}, args...)
		return exec.CommandContext(ctx, "unshare", all...)
	}
	if out, err := on(t.Context(), size, "true").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: this system lets nobody mount a disk of their own: %v: %s", err, out)
	}
	// What a program needs on the first day is more than this.
	const page = 4096
	for _, free := range []int{0, page, 4 * page} {
		for _, p := range startable(network, filepath.Join(disk, "data")) {
			ctx, cancel := context.WithTimeout(t.Context(), stopTime)
			what := fmt.Sprintf("%s with %d bytes free", p.name, free)
			failsToStart(t, what, on(ctx, free, append([]string{programs.tweedle}, p.args...)...), disk, "disk", "free")
			cancel()
		}
	}
}
