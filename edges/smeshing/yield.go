package smeshing

import (
	"runtime"
	"sync"
)

// procs is held where the number of the process's running goroutines is changed.
var procs sync.Mutex

// yield lets so many workers compute beside the node's goroutines and not in their place, until
// done is called. A kernel is not interrupted for up to 20 ms by the runtime, but it is by the
// operating system: so the workers get running threads of their own, of which it may be more
// than there are processors, and one that has slept runs first there. Without, a step of the
// node waits for a kernel to end if there are as many workers as processors.
//
// Go follows a limit of the container that changes later only until this is called first.
func yield(workers int) (done func()) {
	change := func(n int) {
		procs.Lock()
		defer procs.Unlock()
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
	}
	change(workers)
	return sync.OnceFunc(func() { change(-workers) })
}
