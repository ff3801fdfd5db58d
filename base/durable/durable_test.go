package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tweedle/base/durable"
	"tweedle/base/durable/durabletest"
)

func TestWriteFileOnTheMachine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	var fs durable.OS
	if err := fs.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "key")
	for _, content := range []string{"first", "second, longer"} {
		if err := durable.WriteFile(fs, path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := durable.ReadFile(fs, path, 100)
		if err != nil || string(got) != content {
			t.Fatalf("read %q, %v after writing %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if names, err := fs.ReadDir(dir); err != nil || len(names) != 1 {
		t.Fatalf("directory holds %v, %v: temporary file left", names, err)
	}
	if _, err := durable.ReadFile(fs, path, 3); err == nil {
		t.Fatal("a file over its limit was read")
	}
	if free, err := fs.Free(dir); err != nil || free == 0 {
		t.Fatalf("free %d, %v", free, err)
	}
}

// A person made the key readable for the owner only, or left a temporary file of
// another mode behind: neither is in the way.
func TestModesOnTheMachine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path+".tmp", []byte("older and longer"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path+".tmp", path+".link.tmp"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, path + ".link"} {
		if err := durable.WriteFile(durable.OS{}, path, []byte("secret"), 0o400); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode() != 0o400 {
			t.Fatalf("mode %v, %v", info.Mode(), err)
		}
	}
	if os.Geteuid() == 0 {
		t.Log("root may open everything: see below only what Open asks for")
	}
	if got, err := durable.ReadFile(durable.OS{}, path, 100); err != nil || string(got) != "secret" {
		t.Fatalf("%q, %v", got, err)
	}
	f, err := durable.OS{}.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.EBADF) {
		t.Fatalf("opened for reading, a write says %v", err)
	}
	if _, err := (durable.OS{}).Create(t.TempDir(), 0o600); err == nil {
		t.Fatal("a directory was replaced")
	}
}

func TestWhatStandsInTheWayIsKept(t *testing.T) {
	for name, fs := range map[string]durable.FS{"machine": durable.OS{}, "memory": durabletest.NewMem(1 << 20)} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			for n, want := range []string{".bad", ".bad1", ".bad2"} {
				if err := durable.WriteFile(fs, path, []byte{byte(n)}, 0o600); err != nil {
					t.Fatal(err)
				}
				if aside, err := durable.SetAside(fs, path); err != nil || aside != path+want {
					t.Fatalf("set aside as %s, %v", aside, err)
				}
			}
			for n, name := range []string{".bad", ".bad1", ".bad2"} {
				if got, err := durable.ReadFile(fs, path+name, 9); err != nil || got[0] != byte(n) {
					t.Fatalf("%s: %v, %v", name, got, err)
				}
			}
			if _, err := durable.SetAside(fs, path); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("nothing to set aside: %v", err)
			}
		})
	}
}

// A secret is made once, by whoever comes first, and never replaced; stopped at any
// operation there is a whole one or none.
func TestSecretIsMadeOnce(t *testing.T) {
	made := 0
	generate := func() ([]byte, error) { made++; return fmt.Appendf(nil, "secret %d", made), nil }
	path := filepath.Join(t.TempDir(), "key")
	for range 2 {
		if got, err := durable.Secret(durable.OS{}, path, generate); err != nil || string(got) != "secret 1" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "secret 1\n" {
		t.Fatalf("%q, %v", text, err)
	}
	if err := durable.NewSecret(durable.OS{}, path, []byte("other")); !errors.Is(err, os.ErrExist) {
		t.Fatalf("made over one that is there: %v", err)
	}
	got, err := durable.Secret(durable.OS{}, path+"2", func() ([]byte, error) {
		return []byte("late"), os.WriteFile(path+"2", []byte("first"), 0o600)
	})
	if err != nil || string(got) != "first" {
		t.Fatalf("another process was first: %q, %v", got, err)
	}
	if err := os.Symlink("/no/such/disk", path+"3"); err != nil {
		t.Fatal(err)
	}
	if _, err := durable.Secret(durable.OS{}, path+"3", generate); err == nil || !strings.Contains(err.Error(), "remove the link to get a new key") {
		t.Fatalf("a link that leads nowhere: %v", err)
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 3 {
		t.Fatalf("left %v, %v", names, err)
	}
}

func TestSecretSurvivesEveryCrash(t *testing.T) {
	for at := 1; at <= 5; at++ {
		for _, how := range []durabletest.How{durabletest.Before, durabletest.Torn, durabletest.After} {
			for seed := range uint64(20) {
				mem := durabletest.NewMem(1 << 20)
				fs := durabletest.NewFaulty(mem)
				fs.Set(durabletest.Fault{At: at, How: how})
				got, err := durable.Secret(fs, "/key", func() ([]byte, error) { return []byte("first"), nil })
				after, afterErr := durable.Secret(mem.Crash(seed), "/key", func() ([]byte, error) { return []byte("second"), nil })
				if afterErr != nil || string(after) != "first" && string(after) != "second" {
					t.Fatalf("at %d/%d seed %d: %q, %v", at, how, seed, after, afterErr)
				}
				if err == nil && string(after) != string(got) {
					t.Fatalf("at %d/%d seed %d: %q was returned, then %q", at, how, seed, got, after)
				}
			}
		}
	}
}

func TestReserveKeepsTheLength(t *testing.T) {
	f, err := durable.OS{}.Create(filepath.Join(t.TempDir(), "f"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Reserve(1 << 20); err != nil {
		t.Fatal(err)
	}
	if size, err := f.Size(); err != nil || size != 0 {
		t.Fatalf("size %d, %v", size, err)
	}
}

// Somebody who only looks whether a directory is in use keeps nobody out of it.
func TestWhoLooksAtALockDoesNotHoldIt(t *testing.T) {
	dir := t.TempDir()
	if lock, err := durable.Lock(dir); err != nil || lock.Close() != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var lookers sync.WaitGroup
	for range 4 {
		lookers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					_, _ = durable.Locked(dir) // its answer is not what is asked for
				}
			}
		})
	}
	defer lookers.Wait()
	defer close(stop)
	for range 300 {
		lock, err := durable.Lock(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := lock.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	dir := t.TempDir()
	isLocked := func(want bool) {
		t.Helper()
		if got, err := durable.Locked(dir); got != want || err != nil {
			t.Fatalf("locked is %t, %v", got, err)
		}
	}
	isLocked(false)
	lock, err := durable.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	isLocked(true)
	if _, err := durable.Lock(dir); !errors.Is(err, durable.ErrLocked) {
		t.Fatalf("second lock: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	isLocked(false)
	again, err := durable.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// Stopped at any operation, before, in the middle or after it, and then without
// power, a file has its old or its new content; the new one if WriteFile said so.
func TestWriteFileSurvivesEveryCrash(t *testing.T) {
	older, newer := bytes.Repeat([]byte("old"), 700), bytes.Repeat([]byte("newer"), 900)
	probe := durabletest.NewFaulty(durabletest.NewMem(1 << 20))
	if err := durable.WriteFile(probe, "/d/f", older, 0o600); err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= len(probe.Done())+1; at++ {
		for _, how := range []durabletest.How{durabletest.Before, durabletest.Torn, durabletest.After} {
			for seed := range uint64(20) {
				mem := durabletest.NewMem(1 << 20)
				fs := durabletest.NewFaulty(mem)
				if err := durable.WriteFile(fs, "/d/f", older, 0o600); err != nil {
					t.Fatal(err)
				}
				fs.Set(durabletest.Fault{At: at, How: how})
				err := durable.WriteFile(fs, "/d/f", newer, 0o600)
				after := mem.Crash(seed)
				got, readErr := durable.ReadFile(after, "/d/f", 1<<20)
				if readErr != nil {
					t.Fatalf("at %d/%d seed %d: %v", at, how, seed, readErr)
				}
				if !bytes.Equal(got, newer) && (err == nil || !bytes.Equal(got, older)) {
					t.Fatalf("at %d/%d seed %d: %d bytes that are neither old nor new, or new was promised: %v", at, how, seed, len(got), err)
				}
				if err := durable.WriteFile(after, "/d/f", newer, 0o600); err != nil {
					t.Fatalf("not writable after the crash: %v", err)
				}
			}
		}
	}
}

// A disk error at any operation is reported, and leaves old or new content.
func TestWriteFileReportsEveryFailure(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		for at := 1; ; at++ {
			mem := durabletest.NewMem(1 << 20)
			fs := durabletest.NewFaulty(mem)
			if err := durable.WriteFile(fs, "/f", []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			fs.Set(durabletest.Fault{At: at, Err: cause, How: durabletest.Torn})
			err := durable.WriteFile(fs, "/f", []byte("new"), 0o600)
			if err == nil {
				if at < 5 {
					t.Fatalf("only %d operations", at-1)
				}
				break
			}
			if !errors.Is(err, cause) {
				t.Fatalf("at %d: %v is not %v", at, err, cause)
			}
			got, err := durable.ReadFile(mem, "/f", 10)
			if err != nil || string(got) != "old" && string(got) != "new" {
				t.Fatalf("at %d: %q, %v", at, got, err)
			}
		}
	}
}
