package main

// amd64 returns the kernels for x86: on the SHA extensions (SHA-NI), with AVX encodings
// for all else, and wide ones on AVX2 and AVX-512.
//
// Two rules hold in each of these functions, and tests read the text for them. The SHA
// instructions have the legacy encoding, whose memory operands must be aligned to 16
// bytes: Intel faults, AMD does not. And the first instruction is VZEROUPPER: with
// upper halves of registers in use, as a preempted goroutine may leave them, Intel runs
// a mix of legacy and AVX encodings up to 125 times slower.
func amd64() string {
	t := new(text)
	t.head("")
	amd64Tables(t)
	wideTables(t)
	for _, late := range []bool{false, true} {
		amd64Blocks(t, late)
		amd64Chain(t, late)
	}
	amd64Chains(t)
	amd64Several(t)
	amd64Floor(t)
	wideChains(t, "chains8AVX2", false)
	wideChains(t, "chains16AVX512", true)
	wideSeveral(t, "several16AVX512")
	return t.String()
}

func amd64Tables(t *text) {
	keys := paddedKeys()
	t.table("keys", roundKeys[:]...)
	t.comment("The keys of a padded block: message words 8 to 15 are added.")
	t.table("padKeys", keys[:]...)
	t.comment("The initial state, and with it added the keys of the words that come raw,")
	t.comment("that is without it, from the hash before.")
	t.table("init", initial[:]...)
	raw := make([]uint32, 8)
	for i := range raw {
		raw[i] = initial[i] + roundKeys[i]
	}
	t.table("rawKeys", raw...)
	t.table("rawKeys2", raw[2], raw[3], 0, 0)
	t.table("initABEF", initial[5], initial[4], initial[1], initial[0])
	t.table("initCDGH", initial[7], initial[6], initial[3], initial[2])
	t.comment("The same with the constants of the first two rounds folded in, so that these")
	t.comment("rounds take the raw words: G is the H of round 1, and H takes back what the")
	t.comment("change of G does to round 0.")
	g := initial[6] + raw[1]
	h := initial[7] + raw[0] + choose(initial[4], initial[5], initial[6]) - choose(initial[4], initial[5], g)
	t.table("foldCDGH", h, g, initial[3], initial[2])
	t.comment("Message words 8 to 11 and 12 to 15, and SHA256MSG1 of the two.")
	t.table("words8", padding[:4]...)
	t.table("words12", padding[4:]...)
	var sum [4]uint32
	for i := range sum {
		sum[i] = padding[i] + smallSigma0(padding[i+1])
	}
	t.table("msg24", sum[:]...)
	t.comment("Byte order of the words of a message.")
	t.table("swap", 0x00010203, 0x04050607, 0x08090a0b, 0x0c0d0e0f)
}
