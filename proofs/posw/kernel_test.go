package posw

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// FuzzKernels compares every kernel that runs here with crypto/sha256: a message of any
// length under every statement length that moves the block borders, chains of any input,
// and as many messages side by side as there are lanes.
func FuzzKernels(f *testing.F) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, size := range []int{0, 1, 31, 32, 33, 64, 200} {
		msg := make([]byte, size)
		for i := range msg {
			msg[i] = byte(rng.Uint32())
		}
		f.Add(msg, uint64(rng.Uint64N(MaxLeaves)), uint16(rng.IntN(1000)))
	}
	f.Add(bytes.Repeat([]byte{0xff}, 64), uint64(MaxLeaves-1), uint16(399))
	f.Fuzz(func(t *testing.T, msg []byte, i uint64, n uint16) {
		i %= MaxLeaves
		steps := int(n % 512)
		var parked [MaxHeight + 1]node
		d := node(sha256.Sum256(msg))
		for at := range parked {
			parked[at] = d
			d = sha256.Sum256(d[:])
		}
		for _, k := range runnable() {
			h, twin := newHasher(k, msg), newHasher(newKernel(portable), msg)
			if got, want := h.first(i, &parked), twin.first(i, &parked); got != want {
				t.Fatalf("%s: first hash %x, want %x", k.id(), got, want)
			}
			if got, want := h.parent(&parked[0], &parked[1]), twin.parent(&parked[0], &parked[1]); got != want {
				t.Fatalf("%s: parent %x, want %x", k.id(), got, want)
			}
			got, want := d, d
			k.chain(&got, steps)
			portable.chain(&want, steps)
			if got != want {
				t.Fatalf("%s: chain of %d gives %x, want %x", k.id(), steps, got, want)
			}
			for p := range k.beside {
				checkBeside(t, k, &k.beside[p], msg, &parked, 1+steps%k.beside[p].lanes, steps)
			}
		}
	})
}

// checkBeside compares some messages and chains side by side with the same ones by
// themselves.
func checkBeside(t *testing.T, k kernel, p *parallel, msg []byte, parked *[MaxHeight + 1]node, count, steps int) {
	t.Helper()
	h := newHasher(k, nil)
	var room []byte
	var msgs []span
	for i := range count {
		size := len(msg) * (i + 1) / count
		msgs = append(msgs, span{len(room) + i%5, size})
		room = append(room, make([]byte, i%5+padded(size))...)
		copy(room[msgs[i].at:], msg[:size])
	}
	h.sums(p, room, msgs)
	for i, m := range msgs {
		if want := node(sha256.Sum256(msg[:m.n])); h.several[i] != want {
			t.Fatalf("%s: sum %d of %d bytes is %x, want %x", k.id(), i, m.n, h.several[i], want)
		}
	}
	gots := [maxLanes]node(parked[7:])
	wants := gots
	p.chains(&gots, steps)
	for i := range p.lanes {
		portable.chain(&wants[i], steps)
	}
	if gots != wants {
		t.Fatalf("%s: chains of %d give %x, want %x", k.id(), steps, gots, wants)
	}
}

func TestEveryKernelPassesItsSelfTest(t *testing.T) {
	names := Kernels()
	for i, k := range runnable() {
		if err := selfTest(k); err != nil {
			t.Fatal(err)
		}
		if names[i] != k.id() {
			t.Errorf("kernel %s is listed as %s", k.id(), names[i])
		}
	}
	if name, err := Kernel(); err != nil || !slices.Contains(names, name) {
		t.Fatalf("kernel %q in use, error %v", name, err)
	}
	// Where the processor is chosen, as scripts/emulate-intel.sh does.
	if want := os.Getenv("TWEEDLE_EXPECT_KERNEL"); want != "" && !slices.Contains(names, want) {
		t.Fatalf("kernel %s does not run here", want)
	}
	t.Logf("run here: %s", strings.Join(names, ", "))
}

// fullest returns the kernel of this processor that has most parts.
func fullest(t *testing.T) kernel {
	t.Helper()
	all := runnable()
	k := slices.MaxFunc(all, func(a, b kernel) int { return cmp.Compare(a.score(), b.score()) })
	if k.blocks == nil {
		t.Skip("NOT TESTED: this processor has no SHA-256 instructions that posw has a kernel for")
	}
	return k
}

func (k kernel) score() int {
	n := len(k.beside)
	if k.blocks != nil {
		n += 10
	}
	return n
}

// A kernel that is wrong in one function, even in one bit and rarely, must not be used.
func TestAWrongKernelIsRefused(t *testing.T) {
	good := fullest(t)
	calls := 0
	spoils := map[string]func(*kernel){
		"blocks": func(k *kernel) {
			k.blocks = func(d *node, p *byte, n int) {
				if good.blocks(d, p, n); n > 20 {
					d[31] ^= 1
				}
			}
		},
		"chain": func(k *kernel) {
			k.chain = func(d *node, n int) {
				if good.chain(d, n); n == LeafHashes-1 {
					d[0] ^= 0x80
				}
			}
		},
		"parent": func(k *kernel) {
			k.blocks = func(d *node, p *byte, n int) {
				if good.blocks(d, p, n); n == 1 {
					if calls++; calls%100 == 0 {
						d[5] ^= 4
					}
				}
			}
		},
	}
	for i := range good.beside {
		was := good.beside[i]
		spoils[fmt.Sprintf("several of %d", was.lanes)] = func(k *kernel) {
			k.beside[i].several = func(states *[maxLanes]node, room []byte, at *[maxLanes]uint32, n int) {
				if was.several(states, room, at, n); n > 1 {
					states[was.lanes-1][31] ^= 1
				}
			}
		}
		spoils[fmt.Sprintf("chains of %d", was.lanes)] = func(k *kernel) {
			k.beside[i].chains = func(d *[maxLanes]node, n int) {
				if was.chains(d, n); n > 0 {
					d[was.lanes-1][9] ^= 1
				}
			}
		}
	}
	for name, spoil := range spoils {
		bad := good
		bad.name = "broken " + name
		bad.beside = slices.Clone(good.beside)
		spoil(&bad)
		k, err := choose([]kernel{bad, good}, ticks())
		if k.id() != good.id() || err == nil || !strings.Contains(err.Error(), bad.name) {
			t.Errorf("%s: chose %s, error %v", bad.name, k.id(), err)
		}
		if k, err := choose([]kernel{bad}, ticks()); k.id() != "portable" || err == nil {
			t.Errorf("%s alone: chose %s, error %v", bad.name, k.id(), err)
		}
	}
	if k, err := choose(nil, ticks()); k.id() != "portable" || err != nil {
		t.Errorf("no candidates: chose %s, error %v", k.id(), err)
	}
}

// made is a kernel whose parts take so many ticks a call.
func made(now *uint64, name string, chain uint64, beside map[string]uint64) kernel {
	s := portable
	s.name = name
	s.chain = func(d *node, n int) { *now += chain; portable.chain(d, n) }
	var parts []parallel
	for _, p := range []parallel{{name: "", lanes: 4}, {name: "eight", lanes: 8}, {name: "sixteen", lanes: 16}} {
		cost, ok := beside[p.name]
		if !ok {
			continue
		}
		p.chains = func(d *[maxLanes]node, n int) {
			*now += cost
			for i := range p.lanes {
				portable.chain(&d[i], n)
			}
		}
		parts = append(parts, p)
	}
	return newKernel(s, parts...)
}

func TestTheFastestKernelIsChosen(t *testing.T) {
	var now uint64
	clock := func() uint64 { return now }
	for _, c := range []struct {
		kernels []kernel
		want    string
		plan    plan // of 0 to 16 messages
	}{
		{[]kernel{made(&now, "simple", 1000, nil), made(&now, "clever", 900, nil)}, "clever", plan{}},
		{[]kernel{made(&now, "simple", 1000, nil), made(&now, "clever", 1100, nil)}, "simple", plan{}},
		{[]kernel{made(&now, "simple", 1000, nil), made(&now, "clever", 995, nil)}, "simple", plan{}}, // as good as equal
		// Side by side counts between kernels with the same chain only.
		{[]kernel{made(&now, "simple", 1000, map[string]uint64{"": 500}), made(&now, "clever", 900, nil)}, "clever", plan{}},
		{[]kernel{made(&now, "one", 142, map[string]uint64{"": 386}), made(&now, "one", 142, map[string]uint64{"": 386, "sixteen": 816})}, "one+sixteen",
			plan{0, 0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2}}, // two at a time are not worth four lanes
		{[]kernel{made(&now, "one", 35, map[string]uint64{"": 54}), made(&now, "one", 35, map[string]uint64{"": 54, "sixteen": 253})}, "one",
			plan{0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1}},
	} {
		k, err := choose(c.kernels, clock)
		if err != nil || k.id() != c.want || k.plan != c.plan {
			t.Errorf("%s with plan %v, want %s with %v; error %v", k.id(), k.plan, c.want, c.plan, err)
		}
	}
}

// A disturbed call says nothing: the shortest of many is believed.
func TestADisturbedMeasurementChoosesAsAQuietOne(t *testing.T) {
	var now uint64
	rng := rand.New(rand.NewPCG(7, 8))
	clock := func() uint64 {
		if rng.IntN(4) == 0 {
			now += rng.Uint64N(100_000)
		}
		return now
	}
	for range 20 {
		k, err := choose([]kernel{made(&now, "simple", 1000, nil), made(&now, "clever", 900, nil)}, clock)
		if err != nil || k.id() != "clever" {
			t.Fatalf("%s, error %v", k.id(), err)
		}
	}
}

func TestAnUnknownKernelIsRefusedWithTheNames(t *testing.T) {
	inUse, _ := Kernel()
	if err := UseKernel(inUse); err != nil {
		t.Errorf("the kernel in use: %v", err)
	}
	err := UseKernel("fast")
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), strings.Join(Kernels(), ", ")) {
		t.Errorf("error %v", err)
	}
	for _, name := range Kernels() {
		if name == inUse {
			continue
		}
		if err := UseKernel(name); err == nil || !strings.Contains(err.Error(), "in use already") {
			t.Errorf("%s after the first use: %v", name, err)
		}
	}
}
