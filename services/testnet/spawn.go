package testnet

import (
	"os/exec"
	"runtime"
)

// spawner starts the child processes, all from one OS thread. Linux ties a
// child's parent-death signal to the thread that started it, not to the
// process: started from any goroutine, a child would be killed when the
// runtime happens to retire that thread.
type spawner struct {
	requests chan spawnRequest
}

type spawnRequest struct {
	cmd  *exec.Cmd
	done chan<- error
}

func newSpawner() *spawner { return &spawner{requests: make(chan spawnRequest)} }

// run serves until requests is closed. The thread ends with it, and what is
// then still alive of its children is killed: end it after them.
func (s *spawner) run() {
	runtime.LockOSThread() // never unlocked, so that nothing else runs on it
	for r := range s.requests {
		r.done <- r.cmd.Start()
	}
}

// start starts cmd so that it ends when this process does.
func (s *spawner) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = childAttributes()
	done := make(chan error, 1)
	s.requests <- spawnRequest{cmd, done}
	return <-done
}
