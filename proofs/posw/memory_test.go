package posw

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// quick is the kernel with the 399 hashes of a chain left out. All that takes memory
// is as it is in a real round.
func quick() kernel {
	k := chosen().kernel
	k.name = "quick"
	k.chain = func(*node, int) {}
	k.beside = slices.Clone(k.beside)
	for i := range k.beside {
		k.beside[i].chains = func(*[maxLanes]node, int) {}
	}
	return k
}

// memoryLimit is what a round may take besides its members, in bytes.
const memoryLimit = 64 << 20

// resident returns the resident memory of the process after a collection, and the
// live heap, in bytes.
func resident(t *testing.T) (rss, heap uint64) {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, m.HeapAlloc // not Linux: the heap alone
	}
	var size, pages uint64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * uint64(os.Getpagesize()), m.HeapAlloc
}

// A round whose kept nodes go to a file takes the same memory after each doubling of
// its leaves, proof included. To 2^26 with TWEEDLE_NIGHTLY=1, else to 2^20.
func TestMemoryOfARoundStaysFlat(t *testing.T) {
	const k, first = 8, 16
	last := uint(20)
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		last = 26
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "kept"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := NewProver(vectorStatement(), k)
	p.hash = newHasher(quick(), vectorStatement())
	kept := make([]byte, 0, 1<<16)
	var firstHeap uint64
	for height := uint(first); height <= last; height++ {
		for p.Leaves() < 1<<height {
			kept = p.Advance(1<<12, kept[:0])
			if _, err := file.Write(kept); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.Prove(io.NewSectionReader(file, 0, int64(p.Kept()*NodeSize)), 2, nil); err != nil {
			t.Fatal(err)
		}
		rss, heap := resident(t)
		t.Logf("2^%d leaves: %d kB resident, %d kB live heap, %d kB of kept nodes in the file",
			height, rss>>10, heap>>10, p.Kept()*NodeSize>>10)
		if height == first {
			firstHeap = heap
		}
		if heap > firstHeap+256<<10 || rss > memoryLimit {
			t.Fatalf("memory grew: live heap %d, was %d bytes; resident %d, limit %d", heap, firstHeap, rss, memoryLimit)
		}
	}
}

// counted is an endless stream of made-up kept nodes.
type counted struct{ i uint64 }

func (c *counted) Read(b []byte) (int, error) {
	n := len(b) / NodeSize * NodeSize
	clear(b[:n])
	for at := 0; at < n; at += NodeSize {
		binary.LittleEndian.PutUint64(b[at:], c.i)
		c.i++
	}
	return n, nil
}

// What a round of 2^36 leaves allocates when it is resumed and proved at k = 14 is
// what one of 2^26 does. The kept nodes are made up, so the proof must fail on the
// first subtrees recomputed: after all memory is taken and the whole stream is read.
func TestMemoryOfTheLongestRound(t *testing.T) {
	const k = 14
	taken := func(leaves uint64) (uint64, error) {
		p := NewProver(vectorStatement(), k)
		p.hash = newHasher(quick(), vectorStatement())
		stream := bufio.NewReader(&counted{})
		for range leaves >> k {
			var n node
			if _, err := io.ReadFull(stream, n[:]); err != nil {
				t.Fatal(err)
			}
			p.spine.push(p.hash, k, n, func(spot, node) {})
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		resumed, err := Resume(vectorStatement(), k, &counted{}, p.Kept())
		if err != nil {
			t.Fatal(err)
		}
		resumed.hash = p.hash
		_, err = resumed.Prove(&counted{}, 2, nil)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc, err
	}
	for _, height := range []uint{20, 26, 36} {
		bytes, err := taken(1 << height)
		t.Logf("2^%d leaves: %d kB allocated by Resume and Prove, all told", height, bytes>>10)
		if bytes > 4<<20 {
			t.Errorf("2^%d leaves: %d bytes allocated", height, bytes)
		}
		if err == nil || !strings.Contains(err.Error(), "do not match their kept node") {
			t.Errorf("2^%d leaves: error %v", height, err)
		}
	}
}
