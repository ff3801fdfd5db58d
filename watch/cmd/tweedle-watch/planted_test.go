//go:build linux

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// planted is a fault that no program has by itself: the real one is built once more, with
// a file of its source changed or added (go build -overlay). GOROOT/ names the library's.
type planted struct{ file, old, new string }

var (
	// The first goroutine of the node that hears SIGUSR2 panics.
	panicsOnSignal = planted{"services/node/planted.go", "", `package node

import (
	"os"
	"os/signal"
	"syscall"
)

func init() {
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGUSR2)
	go func() {
		<-heard
		panic("the nodes are out of sessions")
	}()
}
`}
	// It pays a smidge more for each layer than the others do.
	paysMore = planted{"protocol/vm/issuance.go", "return p.Economics.issued(n+1) - p.Economics.issued(n)", "return p.Economics.issued(n+1) - p.Economics.issued(n) + 1"}
	// Its clock is ten seconds ahead, five layers.
	tenSecondsAhead = planted{"GOROOT/src/time/time.go", "	sec, nsec, mono := runtimeNow()\n", "	sec, nsec, mono := runtimeNow()\n	sec += 10\n"}
)

// build makes the program with a fault, and returns where it is.
func (n *testnet) build(p planted) string {
	n.t.Helper()
	source, err := filepath.Abs("../../..")
	if err != nil {
		n.t.Fatal(err)
	}
	file := filepath.Join(source, p.file)
	if rest, library := strings.CutPrefix(p.file, "GOROOT/"); library {
		file = filepath.Join(runtime.GOROOT(), rest)
	}
	text := p.new
	if p.old != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			n.t.Fatal(err)
		}
		if strings.Count(string(b), p.old) != 1 {
			n.t.Fatalf("%s is not as it was when the fault was written: it does not have once %q", file, p.old)
		}
		text = strings.Replace(string(b), p.old, p.new, 1)
	}
	dir := n.t.TempDir()
	replaced := filepath.Join(dir, filepath.Base(file))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: replaced}})
	if err != nil {
		n.t.Fatal(err)
	}
	for name, content := range map[string]string{replaced: text, filepath.Join(dir, "overlay"): string(overlay)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "tweedle")
	// A fault in the library compiles everything anew: the network beside must not stand still for that.
	if said, err := exec.Command("nice", "-n", "19", "go", "build", "-C", source, "-overlay", filepath.Join(dir, "overlay"), "-o", out, "./cmd/tweedle").CombinedOutput(); err != nil {
		n.t.Fatalf("%v: %s", err, said)
	}
	return out
}

// runs has a process of the network run another build of the program; what is started after
// it is the honest one again.
func (n *testnet) runs(name, program string) {
	n.t.Helper()
	path := filepath.Join(n.bin, "tweedle")
	n.put(program, path)
	defer n.put(filepath.Join(n.bin, "honest"), path)
	n.do("restart", name)
	for end := time.Now().Add(20 * time.Second); n.member(name).State != "running"; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("%s does not run: %+v", name, n.member(name))
		}
	}
}

// put makes a path be a program, which may be running under that path.
func (n *testnet) put(program, path string) {
	n.t.Helper()
	if out, err := exec.Command("/bin/sh", "-c", `cp "$1" "$2.new" && mv "$2.new" "$2"`, "sh", program, path).CombinedOutput(); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
}
