package merkle

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"
)

type number uint64

func (n number) LeafHash() [32]byte {
	return blake3.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

// slowRoot is the rule of the root read aloud: find the first bit in which
// the keys do not agree, split, repeat.
func slowRoot(content map[Key]number) [32]byte {
	var keys []Key
	for k := range content {
		keys = append(keys, k)
	}
	switch len(keys) {
	case 0:
		return [32]byte{}
	case 1:
		leaf := content[keys[0]].LeafHash()
		return blake3.Sum256(slices.Concat([]byte{2}, keys[0][:], leaf[:]))
	}
	for bit := range 192 {
		zeros, ones := map[Key]number{}, map[Key]number{}
		for _, k := range keys {
			if k[bit/8]&(0x80>>(bit%8)) == 0 {
				zeros[k] = content[k]
			} else {
				ones[k] = content[k]
			}
		}
		if len(zeros) > 0 && len(ones) > 0 {
			l, r := slowRoot(zeros), slowRoot(ones)
			return blake3.Sum256(slices.Concat([]byte{3, byte(bit)}, l[:], r[:]))
		}
	}
	panic("two equal keys")
}

func sorted(content map[Key]number) []Account[number] {
	var out []Account[number]
	for k, v := range content {
		out = append(out, Account[number]{k, v})
	}
	slices.SortFunc(out, func(a, b Account[number]) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return out
}

// crowded draws keys that share long prefixes, where mistakes would be.
func crowded() *rapid.Generator[Key] {
	return rapid.Custom(func(t *rapid.T) Key {
		var k Key
		for _, bit := range rapid.SliceOfN(rapid.SampledFrom([]int{0, 1, 7, 8, 63, 100, 190, 191}), 0, 4).Draw(t, "bits") {
			k[bit/8] ^= 0x80 >> (bit % 8)
		}
		return k
	})
}

func TestTheRootFollowsItsRuleWhateverTheOrderOfInserts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		content := map[Key]number{}
		var tree Accounts[number]
		type moment struct {
			tree Accounts[number]
			root [32]byte
		}
		var past []moment
		for range rapid.IntRange(0, 12).Draw(t, "changes") {
			batch := map[Key]number{}
			for range rapid.IntRange(0, 6).Draw(t, "batch") {
				batch[crowded().Draw(t, "key")] = number(rapid.Uint64Range(0, 3).Draw(t, "value"))
			}
			past = append(past, moment{tree, tree.Root()})
			tree = tree.Set(sorted(batch)...)
			for k, v := range batch {
				content[k] = v
			}
		}
		if tree.Root() != slowRoot(content) {
			t.Fatalf("root of %v does not follow the rule", content)
		}
		var all []Account[number]
		for k, v := range tree.All() {
			all = append(all, Account[number]{k, v})
		}
		if !slices.Equal(all, sorted(content)) {
			t.Fatalf("holds %v, want %v", all, content)
		}
		for _, m := range past {
			if m.tree.Root() != m.root {
				t.Fatal("an old map changed")
			}
		}
	})
}

func TestEveryKeyHasAProofOfPresenceOrAbsenceAndNoFalseOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		content := map[Key]number{}
		for range rapid.IntRange(0, 12).Draw(t, "size") {
			content[crowded().Draw(t, "key")] = number(rapid.Uint64Range(0, 3).Draw(t, "value"))
		}
		tree := Accounts[number]{}.Set(sorted(content)...)
		key := crowded().Draw(t, "asked")
		proof := tree.Prove(key)
		leaf, present, err := proof.Verify(tree.Root(), key)
		want, there := content[key]
		if got, ok := tree.Get(key); ok != there || got != want {
			t.Fatalf("holds %d, %v", got, ok)
		}
		if err != nil || present != there || (there && leaf != want.LeafHash()) {
			t.Fatalf("proof says %v, %v, content says %v", present, err, there)
		}
		// The proof of one key must not pass for another that the tree
		// treats differently.
		other := crowded().Draw(t, "other")
		if _, present, err := proof.Verify(tree.Root(), other); err == nil {
			if _, there := content[other]; there != present {
				t.Fatal("proof of one key lies about another")
			}
		}
		if len(content) == 0 {
			return
		}
		broken := AccountProof{slices.Clone(proof.Steps), proof.Key, proof.Leaf}
		switch at := rapid.IntRange(0, len(broken.Steps)+1).Draw(t, "break"); at {
		case len(broken.Steps):
			broken.Key[rapid.IntRange(0, 23).Draw(t, "byte")]++
		case len(broken.Steps) + 1:
			broken.Leaf[0]++
		default:
			if rapid.Bool().Draw(t, "bit") {
				broken.Steps[at].Bit++
			} else {
				broken.Steps[at].Sibling[5]++
			}
		}
		if _, _, err := broken.Verify(tree.Root(), key); err == nil {
			t.Fatal("a broken proof is accepted")
		}
	})
}

// Frozen: a change here is a change of protocol.
func TestRootsOfAccountsAreFrozen(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	content := map[Key]number{}
	for n, want := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"48bfc0e749a9fcc1a6b6415e743b025d0c135051bd4496a9d3838d3c9d779052",
		"e778e5c41fc97c11e902754701f6bff1669778a8cd043a8a65ce152cafa4c84e",
		"ea1426f416807b133d3ac271a442c9e3a0a048dbac2e4d530dbbad3258a61ddf",
	} {
		root := Accounts[number]{}.Set(sorted(content)...).Root()
		if got := hex.EncodeToString(root[:]); got != want {
			t.Errorf("%d accounts: %q", n, got)
		}
		var k Key
		binary.LittleEndian.PutUint64(k[4:], r.Uint64())
		content[k] = number(n)
	}
}

func TestAccountsToSetMustAscend(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("no panic")
		}
	}()
	Accounts[number]{}.Set(Account[number]{Key{1}, 1}, Account[number]{Key{1}, 2})
}

func FuzzAccountProof(f *testing.F) {
	tree := Accounts[number]{}.Set(Account[number]{Key{1}, 1}, Account[number]{Key{2}, 2}, Account[number]{Key{3}, 3})
	encode := func(p AccountProof) []byte {
		b := slices.Concat(p.Key[:], p.Leaf[:])
		for _, s := range p.Steps {
			b = append(append(b, s.Bit), s.Sibling[:]...)
		}
		return b
	}
	for i := range 5 {
		f.Add(encode(tree.Prove(Key{byte(i)})), byte(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, first byte) {
		var p AccountProof
		b = b[copy(p.Key[:], b):]
		b = b[copy(p.Leaf[:], b):]
		for len(b) > 0 {
			s := AccountStep{Bit: b[0]}
			b = b[1:]
			b = b[copy(s.Sibling[:], b):]
			p.Steps = append(p.Steps, s)
		}
		key := Key{first}
		leaf, present, err := p.Verify(tree.Root(), key)
		if err != nil {
			return
		}
		if want, there := tree.Get(key); there != present || (there && leaf != want.LeafHash()) {
			t.Fatalf("forged proof for %d", first)
		}
	})
}

func BenchmarkAccountsSet(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	draw := func(n int) []Account[number] {
		content := map[Key]number{}
		for range n {
			var k Key
			for i := 4; i < len(k); i++ {
				k[i] = byte(r.Uint32())
			}
			content[k] = 1
		}
		return sorted(content)
	}
	tree := Accounts[number]{}.Set(draw(100_000)...)
	batch := draw(3000)
	b.ResetTimer()
	for range b.N {
		tree.Set(batch...)
	}
}
