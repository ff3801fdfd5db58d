package front

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnAddressInUseIsOneLine(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for in, want := range map[string]string{":9092": "127.0.0.1:9092", "0.0.0.0:1": "0.0.0.0:1", "[::]:1": "[::]:1", "hello": "hello"} {
		if got := Loopback(in); got != want {
			t.Errorf("%s becomes %s, want %s", in, got, want)
		}
	}
	for address, want := range map[string]string{
		l.Addr().String(): "in use by another process: stop it, or choose another port",
		"hello":           "not host:port",
		"192.0.2.1:9092":  "cannot listen on 192.0.2.1:9092",
	} {
		for name, open := range map[string]func(string) (net.Listener, error){"Listen": Listen, "ListenLocal": ListenLocal} {
			_, err := open(address)
			want := want
			if name == "ListenLocal" && strings.HasPrefix(address, "192.") {
				want = "could be reached from outside"
			}
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s %s: %v", name, address, err)
			}
		}
	}
}

// What could be reached from outside is never opened, not even for a moment.
func TestALocalListenerStaysOnThisMachine(t *testing.T) {
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0"} {
		l, err := ListenLocal(address)
		if err == nil {
			_ = l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "reached from outside") {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"127.0.0.1:0", "localhost:0"} {
		l, err := ListenLocal(address)
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
	}
}

// Only a socket behind which nobody listens gives way.
func TestWhatStandsAtASocketsPathIsLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "admin.sock")
	refuse := func(what, want string) {
		t.Helper()
		for _, listen := range []func(string) (net.Listener, error){ListenLocal, ListenPublic} {
			l, err := listen(UnixPrefix + path)
			if err == nil {
				_ = l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if err := os.WriteFile(path, []byte("two weeks of registrations"), 0o600); err != nil {
		t.Fatal(err)
	}
	refuse("a file", "not a socket")
	if b, err := os.ReadFile(path); err != nil || string(b) != "two weeks of registrations" {
		t.Fatalf("the file is now %q, %v", b, err)
	}
	file := path
	path = filepath.Join(dir, "link")
	if err := os.Symlink(file, path); err != nil {
		t.Fatal(err)
	}
	refuse("a link to a file", "not a socket")
	path = dir
	refuse("a folder", "not a socket")

	path = filepath.Join(dir, "missing", "real.sock")
	refuse("a folder that is not there", "cannot listen on unix:"+path)
	path = filepath.Join(dir, strings.Repeat("x", 200))
	refuse("a path that no kernel takes", "has 1 to 107 bytes")
	path = ""
	refuse("no path", "has 1 to 107 bytes")

	path = filepath.Join(dir, "real.sock")
	first, err := ListenLocal(UnixPrefix + path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket has mode %v, %v", info.Mode(), err)
	}
	refuse("a living socket", "another process listens")
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := ListenLocal(UnixPrefix + path)
	if err != nil {
		t.Fatalf("what a killed process left: %v", err)
	}
	_ = second.Close()
}

// A socket that we may not ask may be alive.
func TestAnotherUsersSocketIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	first, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	denied := fmt.Errorf("dial unix: %w", os.ErrPermission)
	l, err := listenUnix(path, 0o600, func(string) error { return denied })
	if err == nil {
		_ = l.Close()
		t.Fatal("it was replaced")
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("it is gone: %v", err)
	} else {
		_ = c.Close()
	}
}
