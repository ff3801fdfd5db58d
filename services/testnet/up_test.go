package testnet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds waiting for something that must happen.
const patience = 20 * time.Second

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s did not happen within %v", what, patience)
}

// recorder keeps all events.
type recorder struct {
	mu     sync.Mutex
	events []Event
	seen   *Status
}

func (r *recorder) Event(_ time.Time, e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) Status(s *Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = s
}

func find[E Event](r *recorder, ok func(E) bool) (E, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e, is := e.(E); is && ok(e) {
			return e, true
		}
	}
	var none E
	return none, false
}

// running is an `up` in this process.
type running struct {
	*recorder
	t      *testing.T
	dir    string
	cancel context.CancelFunc
	done   chan struct{}
	sum    Summary
	err    error
}

// start runs `up` with fake processes until all of them have answered.
func start(t *testing.T, o Options) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{recorder: &recorder{}, t: t, dir: o.Dir, cancel: cancel, done: make(chan struct{})}
	o.View = r.recorder
	go func() {
		defer close(r.done)
		r.sum, r.err = Up(ctx, o)
	}()
	t.Cleanup(r.end)
	waitFor(t, "the start of all processes", func() bool {
		select {
		case <-r.done:
			t.Fatalf("up ended at once: %v", r.err)
		default:
		}
		s := r.status()
		return s != nil && allRunning(s) && slices.ContainsFunc(s.Poets, func(p PoetStatus) bool { return len(p.Gateways) > 0 })
	})
	return r
}

func (r *running) status() *Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

// end ends the run as Ctrl-C does, and checks that nothing is left of it.
func (r *running) end() {
	r.t.Helper()
	pids := pidsOf(r.t, r.dir)
	r.cancel()
	<-r.done
	for name, pid := range pids {
		if !isGone(pid) {
			r.t.Errorf("%s (pid %d) outlived up", name, pid)
		}
	}
	if directory(r.dir).isUp() {
		r.t.Error("the control socket outlived up")
	}
}

func allRunning(s *Status) bool {
	for _, n := range s.Nodes {
		if n.State != Running || n.AppliedLayer == nil {
			return false
		}
	}
	for _, p := range s.Poets {
		if p.State != Running || p.Round == nil {
			return false
		}
	}
	return true
}

// pidsOf reads the pids of the processes that the files say are running.
func pidsOf(t *testing.T, dir string) map[string]int {
	t.Helper()
	d := directory(dir)
	p, err := d.loadPlan()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]int)
	for _, m := range p.Members {
		var r Record
		if err := d.load(&r, m.Name, recordFile); err == nil && r.State == Running {
			out[m.Name] = r.PID
		}
	}
	return out
}

func do(t *testing.T, dir string, c Command, names ...string) []string {
	t.Helper()
	done, err := Do(t.Context(), dir, c, names...)
	if err != nil {
		t.Fatalf("%s %v: %v", c, names, err)
	}
	return done
}

func node(t *testing.T, dir, name string) NodeStatus {
	t.Helper()
	s, err := ReadStatus(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("no %s in the status", name)
	return NodeStatus{}
}

func TestUpStartsAllProcessesAndEndsThemAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := fakeOptions(dir)
	o.Nodes, o.Poets = 3, 2
	r := start(t, o)
	s, err := ReadStatus(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Running || len(s.Nodes) != 3 || len(s.Poets) != 2 || !allRunning(s) {
		t.Fatalf("status = %+v", s)
	}
	for i, p := range s.Poets {
		want := []Gateway{{s.Nodes[0].GRPC, "live"}, {s.Nodes[1].GRPC, "live"}}
		if !slices.Equal(p.Gateways, want) {
			t.Errorf("gateways of poet-%d = %v, want %v", i+1, p.Gateways, want)
		}
		if *p.Round != 4 || *p.Executing != 3 || *p.Undelivered != 0 {
			t.Errorf("round %d, executing %d, undelivered %d", *p.Round, *p.Executing, *p.Undelivered)
		}
	}
	pids := pidsOf(t, dir)
	if len(pids) != 5 {
		t.Fatalf("running processes in the files: %v", pids)
	}
	r.end()
	for name, pid := range pids {
		if !isGone(pid) {
			t.Errorf("%s outlived up", name)
		}
	}
	if r.err != nil {
		t.Errorf("Ctrl-C is no error, got %v", r.err)
	}
	for _, name := range []string{"node-1", "poet-2"} {
		var b bytes.Buffer
		if err := Logs(t.Context(), dir, []string{name}, LogOptions{Lines: 1}, &b); err != nil || b.String() != "ended in order\n" {
			t.Errorf("end of the log of %s = %q, %v", name, b.String(), err)
		}
	}
	for _, name := range []string{"node-2", "node-3"} {
		log, _ := os.ReadFile(filepath.Join(dir, name, logFile))
		if !strings.Contains(string(log), "--bootnode /ip4/127.0.0.1/udp/") || strings.Count(string(log), "--poet http://127.0.0.1:") != 2 {
			t.Errorf("%s was not told of the others: %s", name, log)
		}
	}
	if s := node(t, dir, "node-1"); s.State != Stopped {
		t.Errorf("state after the end = %v", s.State)
	}
}

func TestAKilledProcessStaysDownUntilItIsRestarted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, fakeOptions(dir))
	before := node(t, dir, "node-2")
	do(t, dir, Kill, "node-2")
	if !isGone(before.PID) {
		t.Fatal("it was not killed")
	}
	down := node(t, dir, "node-2")
	if down.State != Stopped || down.AppliedLayer != nil || down.Peers != nil {
		t.Fatalf("a killed node is told as %+v", down)
	}
	for _, again := range []Command{Kill, Down} { // it is as it should be
		do(t, dir, again, "node-2")
	}
	for _, c := range []Command{Pause, Resume} { // of what does not run
		if _, err := Do(t.Context(), dir, c, "node-2"); err == nil || err.Error() != "node-2 does not run" {
			t.Errorf("%s: %v", c, err)
		}
	}
	do(t, dir, Restart, "node-2")
	after := node(t, dir, "node-2")
	if after.State != Running || after.PID == before.PID || after.PID == 0 {
		t.Fatalf("after restart: %+v", after)
	}
	if after.GRPC != before.GRPC || after.REST != before.REST || after.Metrics != before.Metrics {
		t.Errorf("addresses changed: %+v, were %+v", after, before)
	}
	poet := pidsOf(t, dir)["poet-1"]
	do(t, dir, Restart, "poet-1") // of a process that runs
	if now := pidsOf(t, dir)["poet-1"]; now == poet || !isGone(poet) {
		t.Errorf("poet-1 has pid %d, had %d", now, poet)
	}
}

func TestAMovedProcessHasOtherAddresses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, fakeOptions(dir))
	before := node(t, dir, "node-2")
	do(t, dir, Kill, "node-2")
	do(t, dir, Move, "node-2")
	after := node(t, dir, "node-2")
	if after.State != Running || after.GRPC == before.GRPC || after.Metrics == before.Metrics || after.AppliedLayer == nil {
		t.Errorf("it moved to %+v, was %+v", after, before)
	}
	do(t, dir, Restart, "node-2") // it stays where it is now
	if now := node(t, dir, "node-2"); now.GRPC != after.GRPC {
		t.Errorf("after a restart it is at %s, was at %s", now.GRPC, after.GRPC)
	}
}

// Who drills adds arguments to single processes, and prepares the folder before anything
// runs; what fails there ends it.
func TestADrillPreparesAndAddsArguments(t *testing.T) {
	t.Parallel()
	o := fakeOptions(t.TempDir())
	o.Arguments = map[string][]string{"node-2": {"--smeshing=false"}}
	o.Prepared = func() error {
		if _, err := os.Stat(filepath.Join(o.Dir, networkFile)); err != nil {
			return err
		}
		if entries, err := filepath.Glob(filepath.Join(o.Dir, "node-*")); err != nil || len(entries) > 0 {
			return fmt.Errorf("there are %v, %w", entries, err)
		}
		return nil
	}
	start(t, o)
	for name, want := range map[string]bool{"node-1": false, "node-2": true} {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", node(t, o.Dir, name).PID))
		if err != nil {
			t.Skipf("NOT CHECKED: command lines of processes: %v", err)
		}
		if got := strings.Contains(string(line), "--smeshing=false\x00"); got != want {
			t.Errorf("%s has the argument: %v, want %v: %q", name, got, want, line)
		}
	}
	o = fakeOptions(t.TempDir())
	o.Prepared = func() error { return errors.New("no room") }
	if _, err := Up(t.Context(), o); err == nil || err.Error() != "no room" {
		t.Errorf("Up: %v", err)
	}
}

func TestARestartWhoseAddressIsTakenSaysSo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, fakeOptions(dir))
	was := node(t, dir, "node-2")
	do(t, dir, Kill, "node-2")
	lis, err := net.Listen("tcp", was.REST)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Do(t.Context(), dir, Restart, "node-2")
	want := fmt.Sprintf("address %s of node-2 is in use by another program: end it, then run `tweedle testnet restart node-2` again", was.REST)
	if err == nil || err.Error() != want {
		t.Errorf("restart: %v, want %s", err, want)
	}
	lis.Close()
	do(t, dir, Restart, "node-2")
}

// With --supervise a process is back after a crash and after a kill, at the
// addresses that others know it by; what is stopped in order stays down.
func TestSuperviseStartsAgainWhatCrashed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := fakeOptions(dir)
	o.Supervise = true
	r := start(t, o)
	first := node(t, dir, "node-1")
	if res, err := http.Get("http://" + first.Metrics + "/crash"); err == nil {
		res.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	back := func(last NodeStatus) NodeStatus {
		var now NodeStatus
		waitFor(t, last.Name+" running again", func() bool {
			now = node(t, dir, last.Name)
			return now.State == Running && now.PID != last.PID && now.AppliedLayer != nil
		})
		if now.GRPC != last.GRPC || now.Metrics != last.Metrics {
			t.Errorf("%s was at %s and %s, and is at %s and %s", last.Name, last.GRPC, last.Metrics, now.GRPC, now.Metrics)
		}
		return now
	}
	second := back(first)
	if c, ok := find(r.recorder, func(Crash) bool { return true }); !ok || !c.Supervised || !strings.Contains(c.text(), "it is started again") {
		t.Errorf("told as %+v", c)
	}
	do(t, dir, Kill, "node-1")
	back(second)
	do(t, dir, Down, "node-2")
	time.Sleep(2*restartFirst + restartLook)
	if got := node(t, dir, "node-2"); got.State != Stopped {
		t.Errorf("node-2 was stopped in order and is %s", got.State)
	}
}

func TestRestartsWaitLongerEachTime(t *testing.T) {
	t.Parallel()
	var got []time.Duration
	for _, crashes := range []int{1, 2, 3, 8, 1000} {
		got = append(got, restartWait(crashes))
	}
	want := []time.Duration{restartFirst, 2 * restartFirst, 4 * restartFirst, restartLongest, restartLongest}
	if !slices.Equal(got, want) {
		t.Errorf("waits %v, want %v", got, want)
	}
}

func TestACrashIsToldAtOnceWithItsReason(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, fakeOptions(dir))
	n := node(t, dir, "node-1")
	if res, err := http.Get("http://" + n.Metrics + "/crash"); err == nil {
		res.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	var c Crash
	waitFor(t, "the crash", func() (ok bool) {
		c, ok = find(r.recorder, func(Crash) bool { return true })
		return ok
	})
	if c.Name != "node-1" || c.PID != n.PID || c.Exit != "exit status 2" || len(c.Log) == 0 || c.Log[0] != "panic: the session table is full" {
		t.Errorf("told as %+v", c)
	}
	if got := node(t, dir, "node-1"); got.State != Crashed {
		t.Errorf("state = %v", got.State)
	}
	do(t, dir, Restart, "node-1")
	if got := node(t, dir, "node-1"); got.State != Running {
		t.Errorf("state after restart = %v", got.State)
	}
	// A kill from outside is nothing that we asked for.
	pid := pidsOf(t, dir)["node-2"]
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the second crash", func() bool {
		_, ok := find(r.recorder, func(c Crash) bool { return c.Name == "node-2" && c.Exit == "signal: killed" })
		return ok
	})
	r.end()
	if want := "node-2 crashed (signal: killed) and was not restarted"; !slices.Contains(r.sum.Reasons, want) || r.sum.OK {
		t.Errorf("summary %+v does not say: %s", r.sum, want)
	}
}

func TestAPausedProcessIsShownAndCanBeEnded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, fakeOptions(dir))
	do(t, dir, Pause, "node-1", "node-2")
	do(t, dir, Pause, "node-1") // again changes nothing
	if n := node(t, dir, "node-1"); n.State != Running || !n.Paused || n.AppliedLayer != nil || n.Error == "" {
		t.Errorf("paused node = %+v", n)
	}
	do(t, dir, Resume, "node-1")
	do(t, dir, Resume, "node-1")
	if n := node(t, dir, "node-1"); n.Paused || n.AppliedLayer == nil {
		t.Errorf("resumed node = %+v", n)
	}
	r.end() // node-2 is still paused
}

func TestAProcessThatIgnoresSIGTERMIsKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := fakeOptions(dir, stubbornEnv+"=1")
	o.grace = 300 * time.Millisecond
	r := start(t, o)
	pid := pidsOf(t, dir)["node-2"]
	do(t, dir, Down, "node-2")
	if !isGone(pid) {
		t.Error("it runs on")
	}
	if _, ok := find(r.recorder, func(n Note) bool { return n.Name == "node-2" && strings.Contains(n.Text, "killed") }); !ok {
		t.Error("nobody was told")
	}
	if n := node(t, dir, "node-2"); n.State != Stopped {
		t.Errorf("state = %v", n.State)
	}
}

func TestProcessesCanBeAdded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, fakeOptions(dir))
	if got := do(t, dir, Add, "node", "poet"); !slices.Equal(got, []string{"node-3", "poet-2"}) {
		t.Fatalf("added %v", got)
	}
	if n := node(t, dir, "node-3"); n.State != Running || n.AppliedLayer == nil {
		t.Errorf("node-3 = %+v", n)
	}
	if _, err := Do(t.Context(), dir, Add, "watch"); err == nil {
		t.Error("added a kind that does not exist")
	}
	r.end()
	// An ended testnet goes on with all of them.
	o := fakeOptions(dir)
	o.Nodes, o.Poets, o.Gateways = 0, 0, 0
	again := start(t, o)
	if s := again.status(); len(s.Nodes) != 3 || len(s.Poets) != 2 {
		t.Errorf("continued with %d nodes and %d PoETs", len(s.Nodes), len(s.Poets))
	}
	if _, ok := find(again.recorder, func(s Started) bool { return s.Resumed }); !ok {
		t.Error("not told that it continues")
	}
}

func TestDownEndsTheTestnetFromAnotherShell(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := start(t, fakeOptions(dir))
	pids := pidsOf(t, dir)
	do(t, dir, Down)
	for name, pid := range pids {
		if !isGone(pid) {
			t.Errorf("%s runs on", name)
		}
	}
	<-r.done
	if r.err != nil {
		t.Errorf("up says %v", r.err)
	}
	_, err := Do(t.Context(), dir, Restart, "node-1")
	if want := fmt.Sprintf("no testnet runs in %s: start it with `tweedle testnet up --dir %s`", dir, dir); err == nil || err.Error() != want {
		t.Errorf("restart without up: %v, want %s", err, want)
	}
}

func TestNoProcessOutlivesAnUpThatIsKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), launcherEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(out)
	up := map[string]bool{}
	for len(up) < 3 && lines.Scan() {
		var e struct{ Type, Name, State string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%v: %s", err, lines.Bytes())
		}
		if e.Type == "process" && e.State == string(Running) {
			up[e.Name] = true
		}
	}
	pids := pidsOf(t, dir)
	if len(pids) != 3 {
		t.Fatalf("running: %v", pids)
	}
	do(t, dir, Pause, "node-1") // even a process that cannot react
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for name, pid := range pids {
		waitFor(t, "the end of "+name, func() bool { return isGone(pid) || isZombie(pid) })
	}
	s, err := ReadStatus(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Nodes {
		if n.State != Stopped || n.Paused {
			t.Errorf("%s is told as %s", n.Name, n.State)
		}
	}
	// Nothing of it is in the way of the next.
	start(t, fakeOptions(dir))
}

// isGone tells whether no process has the id any more.
func isGone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// isZombie tells whether a process has ended but its new parent has not asked:
// in a container, process 1 may never do that.
func isZombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(rest, "Z")
}

func TestAProcessThatCannotStartEndsTheStartWithItsReason(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var rec recorder
	o := fakeOptions(dir, brokenEnv+"=node-2")
	o.View = &rec
	sum, err := Up(t.Context(), o)
	if err == nil || !strings.HasPrefix(err.Error(), "node-2 ended while it started (exit status 1): fake: no space left on device") || strings.Contains(err.Error(), "\n") {
		t.Errorf("up: %v", err)
	}
	if sum.OK || len(sum.Reasons) != 1 || sum.Reasons[0] != err.Error() {
		t.Errorf("summary: %+v", sum)
	}
	if last := rec.events[len(rec.events)-1]; last.kind() != "summary" {
		t.Errorf("the last event is %q", last.kind())
	}
	if left := pidsOf(t, dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
}

func TestCtrlCEndsEverythingAtAnyStage(t *testing.T) {
	t.Parallel()
	for _, after := range []string{"start", "process", "note", "poet_gateways"} {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		rec := &recorder{}
		o := fakeOptions(dir)
		o.View = interrupter{rec, after, cancel}
		if after == "note" {
			o.environ = append(o.environ, stubbornEnv+"=1") // one that has to be killed
			o.grace = 100 * time.Millisecond
			time.AfterFunc(500*time.Millisecond, cancel)
		}
		o.Epochs = 1
		sum, err := Up(ctx, o)
		if err != nil || sum.OK || !slices.Contains(sum.Reasons, "ended after 0 of 1 epochs with ballots: interrupted") {
			t.Errorf("after %s: %v %+v", after, err, sum)
		}
		if left := pidsOf(t, dir); len(left) > 0 {
			t.Errorf("after %s: still running: %v", after, left)
		}
		if last := rec.events[len(rec.events)-1]; last.kind() != "summary" {
			t.Errorf("after %s: the last event is %s", after, last.kind())
		}
	}
}

// interrupter is Ctrl-C at the first event of a kind.
type interrupter struct {
	*recorder
	after  string
	cancel context.CancelFunc
}

func (i interrupter) Event(at time.Time, e Event) {
	i.recorder.Event(at, e)
	if e.kind() == i.after {
		i.cancel()
	}
}
