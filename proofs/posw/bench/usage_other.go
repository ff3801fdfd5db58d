//go:build unix && !linux

package bench

import "time"

// ThreadTime returns the CPU time of the process: that of a thread is not asked for here.
func ThreadTime() time.Duration { return CPUTime() }
