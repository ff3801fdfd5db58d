package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tweedle/base/telemetry"
)

// systemCall is one call as strace saw it. Begin and end are the lines of its
// entry and its return: a call whose begin is behind another's end came after it.
type systemCall struct {
	begin, end int
	name       string
	path       string // of the file or the connection
	target     string // of a renaming
	args       string
	result     int64
}

func (c systemCall) String() string { return fmt.Sprintf("%s(%s) = %d", c.name, c.args, c.result) }

func (c systemCall) isSync() bool { return c.name == "fsync" || c.name == "fdatasync" }

// isHead tells whether a write of the database is that of one of its two heads,
// which makes a transaction valid.
func (c systemCall) isHead() bool {
	at, err := strconv.ParseInt(c.args[strings.LastIndexByte(c.args, ' ')+1:], 10, 64)
	return err == nil && at < 8192
}

var (
	callLine    = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumedLine = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
	resultPart  = regexp.MustCompile(`^(.*)\) += (-?\d+).*$`)
	pathOfFile  = regexp.MustCompile(`^\d+<(.+?)>(?:,|$)`)
	quoted      = regexp.MustCompile(`"([^"]*)"`)
)

// readTrace reads the output of strace -f -yy.
func readTrace(t *testing.T, r io.Reader) (calls []systemCall) {
	t.Helper()
	unfinished := map[string]int{} // thread -> index
	lines := bufio.NewScanner(r)
	for n := 0; lines.Scan(); n++ {
		line := lines.Text()
		if m := resumedLine.FindStringSubmatch(line); m != nil {
			if i, ok := unfinished[m[1]]; ok {
				delete(unfinished, m[1])
				calls[i].finish(calls[i].args+m[2], n)
			}
			continue
		}
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		c := systemCall{begin: n, end: 1 << 60, name: m[2]}
		if args, cut := strings.CutSuffix(m[3], "<unfinished ...>"); cut {
			c.args = args
			unfinished[m[1]] = len(calls)
		} else {
			c.finish(m[3], n)
		}
		calls = append(calls, c)
	}
	return calls
}

func (c *systemCall) finish(text string, line int) {
	m := resultPart.FindStringSubmatch(text)
	if m == nil {
		return
	}
	c.end, c.args = line, strings.TrimSpace(m[1])
	c.result, _ = strconv.ParseInt(m[2], 10, 64)
	if m := pathOfFile.FindStringSubmatch(c.args); m != nil {
		c.path = m[1]
	} else if m := quoted.FindAllStringSubmatch(c.args, -1); m != nil {
		c.path, c.target = m[0][1], m[len(m)-1][1]
	}
}

// trace is what a server did, in order.
type trace struct {
	t     *testing.T
	calls []systemCall
}

// step is a call that must come, in words and as a condition.
type step struct {
	what string
	is   func(systemCall) bool
}

// then wants the steps one after the other, from a line on, each to begin when the
// one before has ended. It returns the last of them.
func (tr trace) then(from int, steps ...step) (last systemCall) {
	tr.t.Helper()
	for _, s := range steps {
		i := slices.IndexFunc(tr.calls, func(c systemCall) bool { return c.begin > from && c.result >= 0 && s.is(c) })
		if i < 0 {
			tr.t.Fatalf("after line %d there is no %s", from, s.what)
		}
		last = tr.calls[i]
		from = last.end
	}
	return last
}

func (tr trace) must(ok bool, format string, args ...any) {
	tr.t.Helper()
	if !ok {
		tr.t.Errorf(format, args...)
	}
}

// writes are the steps of making a new file visible under a name: write, sync,
// rename, sync of the folder. Its temporary name begins with the name.
func writes(path string) []step {
	temp := func(c systemCall) bool { return strings.HasPrefix(c.path, path+".") }
	return []step{
		{"write of " + path, func(c systemCall) bool { return c.name == "pwrite64" && temp(c) }},
		{"sync of " + path, func(c systemCall) bool { return c.isSync() && temp(c) }},
		{"renaming to " + path, func(c systemCall) bool { return strings.HasPrefix(c.name, "renameat") && c.target == path }},
		{"sync of the folder of " + path, func(c systemCall) bool { return c.isSync() && c.path == filepath.Dir(path) }},
	}
}

// commits are the steps of a transaction of at least so many bytes in one write.
func commits(db string, bytes int64) []step {
	write := func(head bool) func(systemCall) bool {
		return func(c systemCall) bool {
			return c.name == "pwrite64" && c.path == db && c.isHead() == head && (head || c.result >= bytes)
		}
	}
	sync := step{"sync of " + db, func(c systemCall) bool { return c.isSync() && c.path == db }}
	return []step{{"write of pages of " + db, write(false)}, sync, {"write of a head of " + db, write(true)}, sync}
}

// answer finds when a request that begins with these words was read, and the
// answer that begins with others.
func (tr trace) answer(request, reply string) (asked, answered systemCall) {
	tr.t.Helper()
	for i, c := range tr.calls {
		if c.name != "read" || !strings.Contains(c.args, `"`+request) {
			continue
		}
		for _, a := range tr.calls[i:] {
			if a.name == "write" && a.path == c.path && a.begin > c.end && strings.Contains(a.args, `"`+reply) {
				return c, a
			}
		}
	}
	tr.t.Fatalf("no %s was answered with %s", request, reply)
	return asked, answered
}

// straced runs the server under strace from registration to proof, and returns
// what it did.
func straced(t *testing.T, dir string) trace {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("SKIPPED: there is no strace, so NOTHING was tested of what the program asks of the disk: apt-get install strace")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, out := filepath.Join(t.TempDir(), "tweedle"), filepath.Join(t.TempDir(), "trace")
	if err := os.Symlink(self, program); err != nil { // TestMain runs main under this name
		t.Fatal(err)
	}
	cmd := exec.Command(strace, "-f", "-yy", "-s", "24", "-e", "signal=none", "-o", out, "-e",
		"trace=openat,read,write,pwrite64,fsync,fdatasync,msync,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat",
		program, "poet", "--dir", dir, "--genesis-time", time.Now().UTC().Add(time.Second).Format(time.RFC3339), "--epoch-duration=4s",
		"--phase-shift=3s", "--cycle-gap=1s", "-r", "127.0.0.1:0", "-w", "127.0.0.1:0", "--adminlisten=127.0.0.1:0", "--ballast-bytes=65536",
		"--max-leaves-per-second=4000", "--leaves-per-second=4000", "--checkpoint-interval=200ms")
	var log bytes.Buffer
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // strace and the server, to stop both
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // it was killed, or ended below
	}()
	var e telemetry.Endpoints
	for wait := time.Now().Add(30 * time.Second); e.REST == ""; time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(filepath.Join(dir, telemetry.EndpointsFile)); err == nil {
			_ = json.Unmarshal(b, &e) // the file appears whole
		}
		if time.Now().After(wait) {
			if strings.Contains(log.String(), "Operation not permitted") {
				t.Skipf("SKIPPED: this machine lets nobody trace a process, so NOTHING was tested of what the program asks of the disk: %s", &log)
			}
			t.Fatalf("the server does not start: %s", &log)
		}
	}
	round := register(t, "http://"+e.REST)
	for wait := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if status, _ := fetch(t, "GET", "http://"+e.REST+"/v1/proofs/"+round, nil); status == http.StatusOK {
			break
		}
		if time.Now().After(wait) {
			t.Fatalf("there is no proof: %s", &log)
		}
	}
	// The journal goes last.
	for wait := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "rounds", round+".journal")); os.IsNotExist(err) || time.Now().After(wait) {
			break
		}
	}
	if err := syscall.Kill(e.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &log)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return trace{t, readTrace(t, f)}
}

// What the program asks of the system for a registration, a journal and a proof:
// no promise is given before the disk was told to keep what it rests on. An
// expected registration reads
//
//	read(9<TCP:[..]>, "POST /v1/submit"...)
//	pwrite64(12<poet.db>, pages)  fdatasync(12<poet.db>)
//	pwrite64(12<poet.db>, head)   fdatasync(12<poet.db>)
//	write(9<TCP:[..]>, "HTTP/1.1 200 OK"...)
func TestNothingIsPromisedBeforeItIsSynced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "poet")
	tr := straced(t, dir)
	if len(tr.calls) < 100 {
		t.Fatalf("only %d calls were seen", len(tr.calls))
	}
	db, journal := filepath.Join(dir, "poet.db"), filepath.Join(dir, "rounds", "0.journal")
	asked, answered := tr.answer("POST /v1/submit", "HTTP/1.1 200 OK")
	t.Run("a registration", func(t *testing.T) {
		tr := trace{t, tr.calls}
		stored := tr.then(asked.end, commits(db, 1)...)
		tr.must(stored.end < answered.begin, "it was answered in line %d, and on the disk in line %d", answered.begin, stored.end)
	})
	for _, name := range []string{"poet.db", "identity.key", "admin.token", telemetry.EndpointsFile, "ballast", "rounds/0.journal"} {
		t.Run(name, func(t *testing.T) {
			tr := trace{t, tr.calls}
			path := filepath.Join(dir, name)
			steps := writes(path)
			if name == "rounds/0.journal" {
				steps = steps[1:] // it begins without a node
			}
			visible := tr.then(-1, steps...)
			// The endpoints are for who looks while the server runs, as we did: they are
			// read, and used, as soon as the file has its name, which is before the
			// folder is synced.
			if !slices.Contains([]string{"ballast", "rounds/0.journal", telemetry.EndpointsFile}, name) {
				tr.must(visible.end < asked.begin, "the file is durable in line %d, after a request in line %d", visible.end, asked.begin)
			}
			// Not a byte comes between the sync of the temporary file and the name.
			renamed := tr.then(-1, writes(path)[2])
			for _, c := range tr.calls {
				if c.name == "pwrite64" && strings.HasPrefix(c.path, path+".") && c.begin < renamed.begin {
					synced := tr.then(c.end, writes(path)[1])
					tr.must(synced.end < renamed.begin, "%s was renamed in line %d, and %v synced in line %d", path, renamed.begin, c, synced.end)
				}
			}
		})
	}
	t.Run("the database's length", func(t *testing.T) {
		tr, grown := trace{t, tr.calls}, 0
		for _, c := range tr.calls {
			if c.name == "ftruncate" && strings.HasPrefix(c.path, db) {
				grown++
				synced := tr.then(c.end, step{"sync of the new length", func(s systemCall) bool { return s.name == "fsync" && s.path == c.path }})
				head := tr.then(c.end, commits(c.path, 0)[2])
				tr.must(synced.end < head.begin, "%v is used in line %d, and synced in line %d", c, head.begin, synced.end)
			}
		}
		tr.must(grown > 0, "the database never grew")
	})
	removed := tr.then(answered.end, step{"removal of " + journal, func(c systemCall) bool { return c.name == "unlinkat" && c.path == journal }})
	t.Run("the journal", func(t *testing.T) {
		tr, appended := trace{t, tr.calls}, 0
		for _, c := range tr.calls {
			if c.name == "pwrite64" && c.path == journal {
				appended++
				synced := tr.then(c.end, step{"sync of " + c.String(), func(s systemCall) bool { return s.isSync() && s.path == journal }})
				tr.must(synced.end < removed.begin, "%v is synced in line %d only", c, synced.end)
			}
		}
		tr.must(appended > 1, "%d writes of the journal were seen", appended)
		tr.then(removed.end, step{"sync of the folder of the removed journal", func(c systemCall) bool { return c.isSync() && c.path == filepath.Dir(journal) }})
	})
	t.Run("the proof", func(t *testing.T) {
		tr := trace{t, tr.calls}
		_, shown := tr.answer("GET /v1/proofs/0", "HTTP/1.1 200 OK")
		const proof = 20_000 // bytes that only a proof has
		stored := tr.then(answered.end, commits(db, proof)...)
		tr.must(stored.end < shown.begin, "it was shown in line %d, and on the disk in line %d", shown.begin, stored.end)
		tr.must(stored.end < removed.begin, "the journal went in line %d, and the proof was on the disk in line %d", removed.begin, stored.end)
	})
}
