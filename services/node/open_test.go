package node

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

	"tweedle/edges/preset"
	"tweedle/values/types"
)

func stillNetworkCoinbase() types.Address { return types.Address{23: 1} }

// refused opens a node that must not open, checks that the error is one line
// with all the words, and that nothing is left open.
func refused(t *testing.T, cfg Config, words ...string) {
	t.Helper()
	n, err := Open(cfg)
	if err == nil {
		n.Close()
		t.Error("the node opens")
		return
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is not one line: %v", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
}

// opens fails unless the node opens: what failed before left nothing behind.
func opens(t *testing.T, cfg Config) {
	t.Helper()
	n, err := Open(cfg)
	if err != nil {
		t.Errorf("it does not open once the trouble is gone: %v", err)
		return
	}
	n.Close()
}

func TestAPortInUseIsNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	cfg := config(filepath.Join(t.TempDir(), "node"))
	for flag, set := range map[string]func(*Config, string){
		"--grpc-listen":    func(c *Config, a string) { c.GRPCListen = a },
		"--rest-listen":    func(c *Config, a string) { c.RESTListen = a },
		"--metrics-listen": func(c *Config, a string) { c.MetricsListen = a },
	} {
		bad := cfg
		set(&bad, address)
		refused(t, bad, flag, address, "in use", "choose another")
		set(&bad, "127.0.0.1:seven")
		refused(t, bad, flag, "127.0.0.1:seven")
	}
	opens(t, cfg)
}

func TestAPeerPortInUseIsNamed(t *testing.T) {
	taken, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := config(filepath.Join(t.TempDir(), "node"))
	bad := cfg
	_, port, err := net.SplitHostPort(taken.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	bad.Listen = []string{"/ip4/127.0.0.1/udp/" + port + "/quic-v1"}
	refused(t, bad, port, "in use", "choose another")
	bad.Listen = []string{"127.0.0.1:7513"}
	refused(t, bad, "127.0.0.1:7513", "listen address")
	bad.Listen = nil
	refused(t, bad, "no listen address")
	bad = cfg
	bad.Bootnodes = []string{"node.example:7513"}
	refused(t, bad, "bootnode", "node.example:7513", "give it as")
	opens(t, cfg)
}

func TestADirectoryOfAnotherNetworkNamesBoth(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "node"))
	opens(t, cfg)
	other := cfg
	other.Network.ExtraData = "other"
	refused(t, other, cfg.Network.ID().String(), other.Network.ID().String(), cfg.Dir, "choose another directory")
	opens(t, cfg)
}

func TestTwoNodesDoNotShareADirectory(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "node"))
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, cfg, cfg.Dir, "in use by another process", "another directory")
	n.Close()
	opens(t, cfg)
}

func TestAFileIsNoDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, config(path), path, "choose another")
	refused(t, config(filepath.Join(path, "below")), path, "choose another")
}

func TestBadSettingsAreRefusedBeforeAnythingIsWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node")
	noCoinbase := config(dir)
	noCoinbase.Smeshing = true
	refused(t, noCoinbase, "--coinbase")
	noNetwork := config(dir)
	noNetwork.Network = preset.Network{}
	refused(t, noNetwork, "unknown preset")
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

func TestADamagedIdentityStopsTheStart(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "node"))
	cfg.Smeshing, cfg.Coinbase, cfg.Poets = true, stillNetworkCoinbase(), []string{"http://127.0.0.1:1"}
	opens(t, cfg)
	for _, file := range []string{"identity.key", "p2p.key"} {
		path := filepath.Join(cfg.Dir, file)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, good[:len(good)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, cfg, path, "restore it")
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	opens(t, cfg)
}

// A node that is opened and never run leaves no goroutine (TestMain looks) and
// no lock; one that is run and ended neither.
func TestANodeRunsAgainAfterItsEnd(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "node"))
	cfg.GRPCListen, cfg.RESTListen, cfg.MetricsListen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.AdminListen = "0.0.0.0:0"
	refused(t, cfg, "--admin-listen", "could be reached from outside")
	cfg.AdminListen = "127.0.0.1:0"
	for range 2 {
		n, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		e := n.Endpoints()
		if e.GRPC == "" || e.REST == "" || e.Metrics == "" || e.P2P == "" || e.Admin == "" {
			t.Errorf("%+v", e)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		if err := n.Run(ctx); err != nil {
			t.Errorf("%v", err)
		}
		cancel()
	}
}

// The other user's part of TestADirectoryThatCannotBeWritten runs in a process
// of its own.
const unwritableEnv = "TWEEDLE_TEST_UNWRITABLE"

func TestMustNotWrite(t *testing.T) {
	dir := os.Getenv(unwritableEnv)
	if dir == "" {
		t.Skip("this is the part of another user; TestADirectoryThatCannotBeWritten runs it")
	}
	for _, path := range []string{dir, filepath.Join(dir, "node")} {
		_, err := Open(config(path))
		if err == nil {
			t.Fatalf("%s can be written by user %d", path, os.Getuid())
		}
		fmt.Printf("error: %v\n", err)
	}
}

func TestADirectoryThatCannotBeWritten(t *testing.T) {
	dir, err := os.MkdirTemp("", "unwritable") // t.TempDir's parents can be read by us alone
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		refused(t, config(dir), dir, "cannot be written", "choose another")
		refused(t, config(filepath.Join(dir, "node")), dir, "choose another")
		return
	}
	// To root everything can be written, so somebody else must try. The link
	// works for him although he cannot reach our own folder.
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestMustNotWrite$", "-test.v")
	cmd.Env, cmd.Dir = append(os.Environ(), unwritableEnv+"="+dir), "/"
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("this machine does not let root act as somebody else: %v", err)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i, line := range bytes.Split(bytes.TrimSpace(out), []byte("error: "))[1:] {
		message, rest, _ := strings.Cut(string(line), "\n")
		if !strings.Contains(message, dir) || !strings.Contains(message, "choose another") {
			t.Errorf("error %d: %s", i+1, message)
		}
		if i == 0 && !strings.Contains(message, "cannot be written") || strings.Contains(rest, "choose") {
			t.Errorf("error %d: %s", i+1, line)
		}
	}
	if bytes.Count(out, []byte("error: ")) != 2 {
		t.Errorf("not both were refused: %s", out)
	}
}

// A disk that is full at start, or gets full while the node opens, wherever
// that happens: one line that says what to do, nothing left open, and a start
// once there is room.
func TestAFullDiskAtStart(t *testing.T) {
	const page, step = 4 << 10, 40 << 10
	enough := page
	for ; smallDisk(t, enough); enough += step {
		if enough > 100*step {
			t.Fatalf("%d bytes are not enough to start", enough)
		}
	}
	if enough == page {
		t.Fatalf("%d bytes are enough to start: nothing was shown", enough)
	}
	// The last files are small: look closer where they are written.
	for size := enough - step + page; size < enough; size += page {
		smallDisk(t, size)
	}
}

// smallDisk opens a node on a disk of some bytes, and tells whether that was
// too small.
func smallDisk(t *testing.T, size int) bool {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOSYS) {
		t.Skipf("a small disk cannot be mounted here (root may): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil { // it fails while a file is open
			t.Errorf("disk of %d bytes: %v", size, err)
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	}()
	cfg := config(filepath.Join(dir, "node"))
	cfg.Smeshing, cfg.Coinbase, cfg.Poets = true, stillNetworkCoinbase(), []string{"http://127.0.0.1:1"}
	n, err := Open(cfg)
	if err == nil {
		n.Close()
		return false
	}
	said := err.Error()
	if strings.Contains(said, "\n") || !strings.Contains(said, "no room left on the disk: free some and start again") || !strings.Contains(said, cfg.Dir) {
		t.Errorf("disk of %d bytes: %v", size, err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	opens(t, cfg)
	return true
}
