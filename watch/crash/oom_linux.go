package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// waitUnreaped returns when a child is dead, and leaves it for Wait.
func waitUnreaped(pid int) error {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err
		}
	}
}

// oomCounter counts the OOM kills of a process's cgroups while it runs: it can move,
// and it is in the root when it dies.
type oomCounter struct {
	first map[string]int // the count of a group when we came there, by its file
}

// maxGroups bounds the groups of one process that are remembered.
const maxGroups = 16

// killed is how many kills there were.
func (o *oomCounter) killed() int {
	sum := 0
	for file, first := range o.first {
		if n, err := oomKills(file); err == nil {
			sum += n - first
		}
	}
	return sum
}

// look notes where the process is.
func (o *oomCounter) look(pid int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return
	}
	file := oomFile(string(b))
	if _, known := o.first[file]; known || file == "" || len(o.first) == maxGroups {
		return
	}
	if n, err := oomKills(file); err == nil {
		if o.first == nil {
			o.first = map[string]int{}
		}
		o.first[file] = n
	}
}

// oomFile finds the file with the count of a process's cgroup, of version 1 or 2.
func oomFile(groups string) string {
	for line := range strings.Lines(groups) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		switch {
		case part[1] == "":
			if f := filepath.Join("/sys/fs/cgroup", part[2], "memory.events"); exists(f) {
				return f
			}
		case strings.Contains(","+part[1]+",", ",memory,"):
			if f := filepath.Join("/sys/fs/cgroup/memory", part[2], "memory.oom_control"); exists(f) {
				return f
			}
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func oomKills(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return strconv.Atoi(n)
		}
	}
	return 0, fmt.Errorf("%s has no count", path)
}
