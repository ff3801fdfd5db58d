package durable

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWriteFileOnTheMachine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	var fs OS
	if err := fs.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "key")
	for _, content := range []string{"first", "second, longer"} {
		if err := WriteFile(fs, path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadFile(fs, path, 100)
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
	if _, err := ReadFile(fs, path, 3); err == nil {
		t.Fatal("a file over its limit was read")
	}
	if free, err := fs.Free(dir); err != nil || free == 0 {
		t.Fatalf("free %d, %v", free, err)
	}
}

func TestReserveKeepsTheLength(t *testing.T) {
	f, err := OS{}.Create(filepath.Join(t.TempDir(), "f"), 0o600)
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

func TestOneProcessPerDirectory(t *testing.T) {
	dir := t.TempDir()
	lock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
		t.Fatalf("second lock: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// Stopped at any operation, before, in the middle or after it, and then without
// power, a file has its old or its new content; the new one if WriteFile said so.
func TestWriteFileSurvivesEveryCrash(t *testing.T) {
	older, newer := bytes.Repeat([]byte("old"), 700), bytes.Repeat([]byte("newer"), 900)
	probe := NewFaulty(NewMem(1 << 20))
	if err := WriteFile(probe, "/d/f", older, 0o600); err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= len(probe.Done())+1; at++ {
		for _, how := range []How{Before, Torn, After} {
			for seed := range uint64(20) {
				mem := NewMem(1 << 20)
				fs := NewFaulty(mem)
				if err := WriteFile(fs, "/d/f", older, 0o600); err != nil {
					t.Fatal(err)
				}
				fs.Set(Fault{At: at, How: how})
				err := WriteFile(fs, "/d/f", newer, 0o600)
				after := mem.Crash(seed)
				got, readErr := ReadFile(after, "/d/f", 1<<20)
				if readErr != nil {
					t.Fatalf("at %d/%d seed %d: %v", at, how, seed, readErr)
				}
				if !bytes.Equal(got, newer) && (err == nil || !bytes.Equal(got, older)) {
					t.Fatalf("at %d/%d seed %d: %d bytes that are neither old nor new, or new was promised: %v", at, how, seed, len(got), err)
				}
				if err := WriteFile(after, "/d/f", newer, 0o600); err != nil {
					t.Fatalf("not writable after the crash: %v", err)
				}
			}
		}
	}
}

// A crash model that loses nothing would make the test above worthless.
func TestMemLosesWhatIsNotSynced(t *testing.T) {
	outcomes := map[string]bool{}
	for seed := range uint64(50) {
		mem := NewMem(1 << 20)
		f, _ := mem.Create("/f", 0o600)
		f.WriteAt(bytes.Repeat([]byte("a"), 2000), 0)
		f.Sync()
		mem.SyncDir("/")
		f.WriteAt(bytes.Repeat([]byte("b"), 2000), 0)
		got, err := ReadFile(mem.Crash(seed), "/f", 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		switch n := strings.Count(string(got), "b"); n {
		case 0:
			outcomes["dropped"] = true
		case 2000:
			outcomes["kept"] = true
		default:
			outcomes["torn"] = true
		}
		g, _ := mem.Create("/new", 0o600)
		g.Sync()
		if _, err := mem.Crash(seed).Open("/new"); err != nil {
			outcomes["name lost"] = true
		}
	}
	for _, want := range []string{"dropped", "kept", "torn", "name lost"} {
		if !outcomes[want] {
			t.Errorf("no seed had a write %s", want)
		}
	}
}

// A disk error at any operation is reported, and leaves old or new content.
func TestWriteFileReportsEveryFailure(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
		for at := 1; ; at++ {
			mem := NewMem(1 << 20)
			fs := NewFaulty(mem)
			if err := WriteFile(fs, "/f", []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			fs.Set(Fault{At: at, Err: cause, How: Torn})
			err := WriteFile(fs, "/f", []byte("new"), 0o600)
			if err == nil {
				if at < 5 {
					t.Fatalf("only %d operations", at-1)
				}
				break
			}
			if !errors.Is(err, cause) {
				t.Fatalf("at %d: %v is not %v", at, err, cause)
			}
			got, err := ReadFile(mem, "/f", 10)
			if err != nil || string(got) != "old" && string(got) != "new" {
				t.Fatalf("at %d: %q, %v", at, got, err)
			}
		}
	}
}

func TestMemRunsFull(t *testing.T) {
	mem := NewMem(1000)
	f, _ := mem.Create("/f", 0o600)
	n, err := f.WriteAt(make([]byte, 1500), 0)
	if n != 1000 || !IsFull(err) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if err := f.Reserve(1001); !IsFull(err) {
		t.Fatalf("reserve: %v", err)
	}
	if _, err := f.WriteAt(make([]byte, 1000), 0); err != nil {
		t.Fatalf("overwriting needs no room: %v", err)
	}
	if err := mem.Remove("/f"); err != nil {
		t.Fatal(err)
	}
	if free, _ := mem.Free("/"); free != 1000 {
		t.Fatalf("free %d", free)
	}
	if _, err := f.ReadAt(make([]byte, 1), 5000); !errors.Is(err, io.EOF) {
		t.Fatalf("read past the end: %v", err)
	}
}
