package durabletest

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"tweedle/base/durable"
)

// A crash model that loses nothing would make every test with it worthless.
func TestMemLosesWhatIsNotSynced(t *testing.T) {
	outcomes := map[string]bool{}
	for seed := range uint64(50) {
		mem := NewMem(1 << 20)
		f, _ := mem.Create("/f", 0o600)
		f.WriteAt(bytes.Repeat([]byte("a"), 2000), 0)
		f.Sync()
		mem.SyncDir("/")
		f.WriteAt(bytes.Repeat([]byte("b"), 2000), 0)
		got, err := durable.ReadFile(mem.Crash(seed), "/f", 1<<20)
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
		h, _ := mem.Create("/first", 0o600)
		h.Sync()
		g, _ := mem.Create("/new", 0o600)
		g.Sync()
		mem.SyncDir("/other")
		after := mem.Crash(seed)
		if _, err := after.Open("/new"); err != nil {
			outcomes["name lost"] = true
		} else if _, err := after.Open("/first"); err != nil {
			outcomes["earlier name lost"] = true
		}
		if bytes.HasSuffix(got, make([]byte, 8)) {
			t.Fatal("content is lost that was synced")
		}
		f.WriteAt([]byte("c"), 5000)
		if got, _ := durable.ReadFile(mem.Crash(seed), "/f", 1<<20); len(got) == 5001 && got[5000] == 0 {
			outcomes["length only"] = true
		}
	}
	for _, want := range []string{"dropped", "kept", "torn", "name lost", "earlier name lost", "length only"} {
		if !outcomes[want] {
			t.Errorf("no seed had a write %s", want)
		}
	}
}

// What a failed sync was to make durable is never made so by a later one that does
// not fail, though the file shows it; what is written then is, through a file that
// is opened anew.
func TestAFailedSyncLosesItsWrites(t *testing.T) {
	for seed := range uint64(20) {
		mem := NewMem(1 << 20)
		fs := NewFaulty(mem)
		if err := durable.WriteFile(fs, "/f", []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := fs.Edit("/f")
		if err != nil {
			t.Fatal(err)
		}
		fs.Set(Fault{At: 2, Err: syscall.EIO})
		f.WriteAt([]byte("new"), 0)
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		for _, want := range []string{"old", "old!"} {
			f.WriteAt([]byte("!"), 3)
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			if got, err := durable.ReadFile(mem, "/f", 9); err != nil || string(got) != "new!" {
				t.Fatalf("%q, %v before the power is lost", got, err)
			}
			if got, err := durable.ReadFile(mem.Crash(seed), "/f", 9); err != nil || string(got) != want {
				t.Fatalf("%q, %v after it, want %q", got, err, want)
			}
			if f, err = fs.Edit("/f"); err != nil {
				t.Fatal(err)
			}
		}
		fs.Set(Fault{At: 2, Err: syscall.EIO})
		fs.Rename("/f", "/g")
		if err := fs.SyncDir("/"); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		if err := fs.SyncDir("/"); err != nil {
			t.Fatal(err)
		}
		if _, err := mem.Crash(seed).Open("/f"); err != nil {
			t.Fatalf("a renaming whose sync failed is durable: %v", err)
		}
	}
}

func TestAFileOpenedForReadingTakesNoWrites(t *testing.T) {
	mem := NewMem(1 << 20)
	if err := durable.WriteFile(mem, "/f", []byte("old"), 0o400); err != nil {
		t.Fatal(err)
	}
	f, err := mem.Open("/f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("new"), 0); !errors.Is(err, syscall.EBADF) {
		t.Fatalf("write: %v", err)
	}
	if err := f.Truncate(0); !errors.Is(err, syscall.EBADF) {
		t.Fatalf("truncate: %v", err)
	}
}

func TestMemRunsFull(t *testing.T) {
	mem := NewMem(1000)
	f, _ := mem.Create("/f", 0o600)
	n, err := f.WriteAt(make([]byte, 1500), 0)
	if n != 1000 || !durable.IsFull(err) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if err := f.Reserve(1001); !durable.IsFull(err) {
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
