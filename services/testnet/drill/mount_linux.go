package drill

import (
	"fmt"
	"os"
	"syscall"
)

// mountMemory mounts a small file system, in memory.
func mountMemory(path string, size int64) error {
	return syscall.Mount("drill", path, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, fmt.Sprintf("size=%d,mode=0700", size))
}

// unmount takes it away, also from who has a file open there.
func unmount(path string) error { return syscall.Unmount(path, syscall.MNT_DETACH) }

// hold stops a process, or lets it go on.
func hold(p *os.Process, stop bool) error {
	if stop {
		return p.Signal(syscall.SIGSTOP)
	}
	return p.Signal(syscall.SIGCONT)
}
