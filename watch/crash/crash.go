// Package crash runs a program and tells when it dies: supervisor, report and
// direct notification.
//
// It promises: what is known of a death is durable before the program is started
// again; it is told at once and again until somebody has taken it, and told again
// when the program is back; a program that dies again and again is told as a loop,
// once; secrets of the command line, the environment and the log do not leave the
// machine. It leaves to the caller: where to tell it, and what to do when Run
// returns.
//
// The Go runtime of the program writes its last words to a file (see
// CrashFileVariable); a program of another kind is heard by its standard error.
package crash

import (
	"fmt"
	"strings"
	"time"
)

// CrashFileVariable names the environment variable with the file to which a
// program writes its crash report (runtime/debug.SetCrashOutput).
const CrashFileVariable = "TWEEDLE_CRASH_FILE"

// Reason says what kind of death it was.
type Reason string

// The reasons. A fatal error is one that Go code cannot recover from: a
// concurrent map write, a stack overflow, a fault in assembler.
const (
	Panic  Reason = "panic"
	Fatal  Reason = "fatal"
	OOM    Reason = "oom"
	Signal Reason = "signal"
	Exit   Reason = "exit"
)

// Reasons lists all reasons.
func Reasons() []Reason { return []Reason{Panic, Fatal, OOM, Signal, Exit} }

// Event is one death of a program.
type Event struct {
	ID      string    `json:"id"`   // unique on this machine
	Name    string    `json:"name"` // of the program
	Network string    `json:"net,omitempty"`
	Time    time.Time `json:"time"`
	Command string    `json:"command"`
	PID     int       `json:"pid"`
	Version string    `json:"version,omitempty"`
	Layer   *uint32   `json:"layer,omitempty"` // the last one that it told, if it is a node
	Uptime  string    `json:"uptime"`
	Reason  Reason    `json:"reason"`
	Status  string    `json:"status"`    // how it ended: "exit status 2", "signal: killed"
	OOM     int       `json:"oom_kills"` // of its cgroup, while it ran
	Message string    `json:"message"`   // one line
	Stack   string    `json:"stack,omitempty"`
	Hash    string    `json:"hash,omitempty"` // of the stack's functions: the same for the same fault
	Log     []string  `json:"log,omitempty"`  // last lines
	Crashes int       `json:"crashes"`        // within loopWindow, this one too
	Loop    bool      `json:"loop"`           // that is a loop

	Told     *time.Time `json:"told,omitempty"`      // somebody took it
	Back     *time.Time `json:"back,omitempty"`      // the program was healthy again
	BackTold *time.Time `json:"back_told,omitempty"` // and somebody took that

	renewed time.Time // told last
	code    int       // exit status, see Ended.Code
}

// String is the event on one line.
func (e *Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s died after %s: %s (%s)", e.Name, e.Uptime, e.Message, e.Status)
	if e.Loop {
		fmt.Fprintf(&b, ", for the %d. time in %s", e.Crashes, loopWindow)
	}
	return b.String()
}

// Times and bounds.
const (
	loopWindow  = 15 * time.Minute
	loopCrashes = 3                      // within loopWindow make a loop
	healthy     = 10 * time.Second       // a program that ran so long is back
	lookEvery   = 250 * time.Millisecond // at its cgroup
	askEvery    = 8                      // looks between two questions for its status
	firstWait   = 500 * time.Millisecond
	longestWait = time.Minute
	stopGrace   = 30 * time.Second // from SIGTERM to SIGKILL
	maxStack    = 64 << 10         // bytes of a report that are kept
	maxTail     = 64 << 10         // bytes of output that are remembered
	maxLogLines = 40
	maxEvents   = 200 // that are kept on disk
)

// wait is how long a program that died that often waits for its next start.
func wait(crashes int) time.Duration {
	d := firstWait
	for range crashes - 1 {
		d = min(2*d, longestWait)
	}
	return d
}
