package posw

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"strings"
	"testing"
)

// fast returns the kernels beside the portable one that this processor runs.
func fast(t testing.TB) []kernel {
	t.Helper()
	found := accelerated()
	if len(found) == 0 {
		t.Skip("NOT TESTED: this processor has no SHA-256 instructions that posw has a kernel for")
	}
	return found
}

// FuzzKernels compares every kernel with crypto/sha256: a message of any length under
// every statement length that moves the block borders, and chains of any input.
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
		var several [lanes]node
		copy(several[:], parked[7:])
		for _, k := range fast(t) {
			h, twin := newHasher(k, msg), newHasher(portable, msg)
			if got, want := h.first(i, &parked), twin.first(i, &parked); got != want {
				t.Fatalf("%s: first hash %x, want %x", k.name, got, want)
			}
			if got, want := h.parent(&parked[0], &parked[1]), twin.parent(&parked[0], &parked[1]); got != want {
				t.Fatalf("%s: parent %x, want %x", k.name, got, want)
			}
			msgs := make([][]byte, 1+steps%lanes)
			for i := range msgs {
				size := len(msg) * (i + 1) / (1 + steps%lanes)
				msgs[i] = append(make([]byte, 0, padded(size)), msg[:size]...)
			}
			h.sums(msgs...)
			for i, msg := range msgs {
				if want := node(sha256.Sum256(msg)); h.several[i] != want {
					t.Fatalf("%s: sum %d of %d bytes is %x, want %x", k.name, i, len(msg), h.several[i], want)
				}
			}
			got, want := d, d
			k.chain(&got, steps)
			portable.chain(&want, steps)
			if got != want {
				t.Fatalf("%s: chain of %d gives %x, want %x", k.name, steps, got, want)
			}
			gots, wants := several, several
			k.chains(&gots, steps)
			portable.chains(&wants, steps)
			if gots != wants {
				t.Fatalf("%s: chains of %d give %x, want %x", k.name, steps, gots, wants)
			}
		}
	})
}

func TestEveryKernelPassesItsSelfTest(t *testing.T) {
	if err := selfTest(portable); err != nil {
		t.Fatal(err)
	}
	for _, k := range fast(t) {
		if err := selfTest(k); err != nil {
			t.Fatal(err)
		}
	}
	name, err := Kernel()
	if err != nil || name != fast(t)[0].name {
		t.Fatalf("kernel %q in use, error %v", name, err)
	}
}

// A kernel that is wrong in one function, even in one bit and rarely, must not be used.
func TestAWrongKernelIsRefused(t *testing.T) {
	good := fast(t)[0]
	calls := 0
	for name, spoil := range map[string]func(*kernel){
		"blocks": func(k *kernel) {
			k.blocks = func(d *node, p *byte, n int) {
				if good.blocks(d, p, n); n > 20 {
					d[31] ^= 1
				}
			}
		},
		"several": func(k *kernel) {
			k.several = func(d *[lanes]node, p *[lanes]*byte, n int) {
				if good.several(d, p, n); n > 1 {
					d[1][31] ^= 1
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
		"chains": func(k *kernel) {
			k.chains = func(d *[lanes]node, n int) {
				if good.chains(d, n); n > 0 {
					d[lanes-1][9] ^= 1
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
	} {
		bad := good
		bad.name = "broken " + name
		spoil(&bad)
		k, err := choose([]kernel{bad, good})
		if k.name != good.name || err == nil || !strings.Contains(err.Error(), bad.name) {
			t.Errorf("%s: chose %s, error %v", bad.name, k.name, err)
		}
		if k, err := choose([]kernel{bad}); k.name != "portable" || err == nil {
			t.Errorf("%s alone: chose %s, error %v", bad.name, k.name, err)
		}
	}
	if k, err := choose(nil); k.name != "portable" || err != nil {
		t.Errorf("no candidates: chose %s, error %v", k.name, err)
	}
}
