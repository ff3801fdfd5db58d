//go:build unix

package bench

import (
	"runtime"
	"syscall"
	"time"
)

// CPUTime returns the CPU time of the process so far, user and system.
func CPUTime() time.Duration {
	u := usage()
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakRSS returns the largest resident memory of the process so far, in bytes.
func peakRSS() uint64 {
	peak := uint64(usage().Maxrss)
	if runtime.GOOS != "darwin" {
		peak *= 1024 // only Darwin counts it in bytes
	}
	return peak
}

func usage() (u syscall.Rusage) {
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // only a bad argument makes it fail
	}
	return u
}
