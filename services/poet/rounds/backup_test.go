package rounds

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tweedle/base/durable"
	"tweedle/base/durable/durabletest"
	"tweedle/services/poet"
	"tweedle/services/poet/book"
)

// unpack returns what is in a backup.
func unpack(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err == nil {
			files[h.Name], err = io.ReadAll(in)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// However slowly a backup is taken away: nobody reads the database meanwhile, which
// would hold up its growth; nothing is left on the disk; and it is complete.
func TestASlowBackupHoldsNothingUp(t *testing.T) {
	cfg := config(t, time.Now())
	cfg.Schedule.EpochDuration = time.Hour
	s := start(t, cfg)
	defer s.close()
	receipt := s.register(1)
	reader, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(s.Backup(w), w.Close()) }()
	first := make([]byte, 1<<10)
	if _, err := io.ReadFull(reader, first); err != nil {
		t.Fatal(err)
	}
	// It has begun, and its reader takes no more for now.
	if stats := bolt(s.Service).Stats(); stats.OpenTxN != 0 {
		t.Errorf("%d transactions are open as long as the reader is slow", stats.OpenTxN)
	}
	s.register(2)
	rest, err := io.ReadAll(reader)
	if err := errors.Join(err, <-ended); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.Dir, "backup*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	restored := cfg
	restored.Dir = filepath.Join(t.TempDir(), "restored")
	writeTree(t, restored.Dir, unpack(t, bytes.NewReader(append(first, rest...))))
	again := start(t, restored)
	defer again.close()
	if n := again.book.Members(0); n != 1 {
		t.Errorf("%d members are in a backup that was begun when there was one", n)
	}
	if got := again.register(1); got != receipt {
		t.Error("the restored server gives another receipt")
	}
}

// A backup takes no room that rounds need.
func TestABackupLeavesRoomForARound(t *testing.T) {
	cfg := config(t, time.Now())
	cfg.FS = durabletest.NewMem(1 << 20) // of which poet.db and LOCK are no part
	err := os.Mkdir(cfg.Dir, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Backup(io.Discard); !errors.Is(err, poet.ErrDiskFull) || !strings.Contains(err.Error(), "it needs") {
		t.Errorf("a backup on a disk that is nearly full: %v", err)
	}
}

// A backup of a directory that no server has changes nothing in it, also no lock; if
// a server begins to use it meanwhile, the copy may be of no use, and that is said.
func TestABackupChangesNothing(t *testing.T) {
	cfg := config(t, time.Now())
	s, err := Open(cfg)
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(cfg.Dir, durable.LockName)
	for _, locked := range []bool{true, false} {
		if !locked { // as it is when a backup was unpacked
			if err := os.Remove(lock); err != nil {
				t.Fatal(err)
			}
		}
		before := readTree(t, cfg.Dir)
		var b bytes.Buffer
		if err := BackupStopped(cfg.Dir, &b); err != nil {
			t.Fatal(err)
		}
		if after := readTree(t, cfg.Dir); !slices.Equal(slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before))) {
			t.Errorf("there are %v", slices.Sorted(maps.Keys(after)))
		}
		got := unpack(t, &b)
		if len(got) != 2 || !bytes.Equal(got[book.DatabaseName], before[book.DatabaseName]) || !bytes.Equal(got[IdentityName], before[IdentityName]) {
			t.Error("the backup is not what is there")
		}
	}
	err = BackupStopped(cfg.Dir, writer(func(p []byte) (int, error) { return len(p), os.WriteFile(lock, nil, 0o600) }))
	if err == nil || !strings.Contains(err.Error(), "make it again") {
		t.Errorf("a server was started meanwhile: %v", err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
