package crash

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// A program that its cgroup's limit kills is told as such, with the count, when the supervisor had a look since it
// is there.
func TestOOMKillIsTold(t *testing.T) {
	group := memoryGroup(t, 48<<20)
	s := supervisor(t, "memory", func(cfg *Config) {
		cfg.Command = []string{"/bin/sh", "-c", "echo $$ > " + filepath.Join(group, "cgroup.procs") + "; sleep 2; exec " + os.Args[0]}
	})
	if err := s.Run(t.Context()); !errors.Is(err, ErrEnded) {
		t.Fatal(err)
	}
	events, _ := s.events.list()
	if e := events[0]; e.Reason != OOM || e.OOM == 0 {
		t.Errorf("%s, %d OOM kills, %s, log %q", e.Reason, e.OOM, e, e.Log)
	}
}

// memoryGroup makes a cgroup with a limit, of whichever version there is.
func memoryGroup(t *testing.T, limit int) string {
	t.Helper()
	for _, c := range []struct{ root, file string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"},
	} {
		dir, err := os.MkdirTemp(c.root, "tweedle-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
		if os.WriteFile(filepath.Join(dir, c.file), []byte(strconv.Itoa(limit)), 0o600) == nil {
			_ = os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0o600) // of version 2 only
			return dir
		}
	}
	t.Skip("NOT CHECKED: no cgroup can be made here; run it as root")
	return ""
}
