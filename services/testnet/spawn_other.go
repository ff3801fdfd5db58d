//go:build !linux

package testnet

import "syscall"

// childAttributes gives a child a group of its own, which keeps the terminal's
// Ctrl-C away from it. There is no parent-death signal here: after a kill -9 of
// the launcher its children must be ended by hand.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
