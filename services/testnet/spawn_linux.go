package testnet

import "syscall"

// childAttributes makes the kernel kill a child when its parent ends, even by
// SIGKILL, and even a child that is paused. A group of its own keeps the
// terminal's Ctrl-C away from it: the launcher stops it, in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
