package signing

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/oasisprotocol/curve25519-voi/curve"
	"github.com/oasisprotocol/curve25519-voi/curve/scalar"
	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519/extra/ecvrf"
	"github.com/oasisprotocol/curve25519-voi/primitives/h2c"

	"tweedle/values/types"
)

func signer(t *testing.T, name string, network types.GenesisID) *Signer {
	t.Helper()
	s, err := NewSigner(SeedFrom(name), network)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestASignatureIsBoundToNetworkDomainKeyAndMessage(t *testing.T) {
	a := signer(t, "a", types.GenesisID{1})
	sig := a.Sign(Ballot, []byte("m"))
	v := NewVerifier(types.GenesisID{1})
	if !v.Verify(Ballot, a.NodeID(), []byte("m"), sig) {
		t.Fatal("own signature refused")
	}
	other := signer(t, "b", types.GenesisID{1})
	for name, ok := range map[string]bool{
		"network": NewVerifier(types.GenesisID{2}).Verify(Ballot, a.NodeID(), []byte("m"), sig),
		"domain":  v.Verify(Proposal, a.NodeID(), []byte("m"), sig),
		"key":     v.Verify(Ballot, other.NodeID(), []byte("m"), sig),
		"message": v.Verify(Ballot, a.NodeID(), []byte("n"), sig),
		"garbage": v.Verify(Ballot, a.NodeID(), []byte("m"), types.Signature{1}),
		"as tx":   v.VerifyTransaction(a.NodeID(), []byte("m"), sig),
	} {
		if ok {
			t.Errorf("accepted with another %s", name)
		}
	}
}

func TestTransactionAndPrefixedSignatures(t *testing.T) {
	a := signer(t, "a", types.GenesisID{1})
	tx := make([]byte, MinTransactionBody)
	if !NewVerifier(types.GenesisID{1}).VerifyTransaction(a.NodeID(), tx, a.SignTransaction(tx)) {
		t.Error("transaction signature refused")
	}
	if NewVerifier(types.GenesisID{2}).VerifyTransaction(a.NodeID(), tx, a.SignTransaction(tx)) {
		t.Error("transaction signature of another network accepted")
	}
	sig := a.SignPrefixed([]byte("p"), []byte("c"))
	if !VerifyPrefixed([]byte("p"), a.NodeID(), []byte("c"), sig) || VerifyPrefixed([]byte("q"), a.NodeID(), []byte("c"), sig) {
		t.Error("prefixed signature is not bound to its prefix")
	}
}

func TestVRFIsDeterministicAndBoundToKeyAndMessage(t *testing.T) {
	a, b := signer(t, "a", types.GenesisID{}), signer(t, "b", types.GenesisID{})
	v := a.VRF([]byte("m"))
	if v != a.VRF([]byte("m")) {
		t.Fatal("two values for one message")
	}
	if !VerifyVRF(a.NodeID(), []byte("m"), v) {
		t.Fatal("own value refused")
	}
	if VerifyVRF(b.NodeID(), []byte("m"), v) || VerifyVRF(a.NodeID(), []byte("n"), v) || VerifyVRF(types.NodeID{}, []byte("m"), v) {
		t.Fatal("value accepted for another key or message")
	}
}

// The published form of a transaction has no domain, and begins with a byte
// that is also the domain of ATXs.
func TestASignatureOfAnATXIsNoneOfATransaction(t *testing.T) {
	a := signer(t, "a", types.GenesisID{1})
	id := types.Sum([]byte("an ATX"))
	sig := a.Sign(ATX, id[:])
	if NewVerifier(types.GenesisID{1}).VerifyTransaction(a.NodeID(), append([]byte{byte(ATX)}, id[:]...), sig) {
		t.Error("the signature of an ATX is one of a transaction")
	}
	defer func() {
		if recover() == nil {
			t.Error("a transaction is signed that could be an ATX")
		}
	}()
	a.SignTransaction(append([]byte{byte(ATX)}, id[:]...))
}

// grind makes another proof of a smesher's value for msg: Gamma plus a point of
// small order. One in eight of its random tries verifies, as that point drops
// out when the challenge is a multiple of eight.
func grind(s *Signer, msg []byte, torsion *curve.EdwardsPoint) types.VRFSignature {
	secret := sha512.Sum512(s.key[:SeedSize])
	secret[0] &= 248
	secret[31] = secret[31]&127 | 64
	var x scalar.Scalar
	must(x.SetBits(secret[:32]))
	public := s.key[SeedSize:]
	h := must(h2c.Edwards25519_XMD_SHA512_ELL2_NU([]byte("ECVRF_edwards25519_XMD:SHA-512_ELL2_NU_\x04"), slices.Concat(public, msg)))
	var gamma curve.EdwardsPoint
	gamma.Mul(h, &x)
	gamma.Add(&gamma, torsion)
	for try := uint64(0); ; try++ {
		wide := sha512.Sum512(binary.LittleEndian.AppendUint64([]byte("nonce"), try))
		var k, c, z scalar.Scalar
		must(k.SetBytesModOrderWide(wide[:]))
		var kB, kH curve.EdwardsPoint
		kB.MulBasepoint(curve.ED25519_BASEPOINT_TABLE, &k)
		kH.Mul(h, &k)
		sum := sha512.New()
		sum.Write([]byte{4, 2})
		sum.Write(public)
		for _, p := range []*curve.EdwardsPoint{h, &gamma, &kB, &kH} {
			sum.Write(compress(p))
		}
		sum.Write([]byte{0})
		challenge := append(sum.Sum(nil)[:16], make([]byte, 16)...)
		if challenge[0]%8 != 0 {
			continue
		}
		must(c.SetBits(challenge))
		z.Mul(&c, &x)
		z.Add(&z, &k)
		var proof types.VRFSignature
		copy(proof[:32], compress(&gamma))
		copy(proof[32:48], challenge)
		if err := z.ToBytes(proof[48:]); err != nil {
			panic(err)
		}
		return proof
	}
}

func compress(p *curve.EdwardsPoint) []byte {
	var c curve.CompressedEdwardsY
	c.SetEdwardsPoint(p)
	return c[:]
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestASmesherHasOneVRFValueForAMessage(t *testing.T) {
	s, msg := signer(t, "grinder", types.GenesisID{}), []byte("slot 7")
	honest := s.VRF(msg)
	for i, torsion := range curve.EIGHT_TORSION {
		p := grind(s, msg, torsion)
		if ok, _ := ecvrf.Verify(ed25519.PublicKey(s.key[SeedSize:]), p[:], msg); !ok {
			t.Fatalf("proof %d is not what the library takes: the attack is not played", i)
		}
		same := bytes.Equal(p[:32], honest[:32]) // Gamma, of which the value is made
		if got := VerifyVRF(s.NodeID(), msg, p); got != same {
			t.Errorf("proof %d: verifies %v, has the honest Gamma %v", i, got, same)
		}
	}
}

func TestReadSeedTakesWhatIsWrittenAndNothingElse(t *testing.T) {
	seed := SeedFrom("x")
	got, err := ReadSeed(strings.NewReader(types.Hash32(seed).String() + "\n"))
	if err != nil || !bytes.Equal(got, seed) {
		t.Fatalf("%x, %v", got, err)
	}
	for _, bad := range []string{"", "zz", strings.Repeat("a", 63), strings.Repeat("a", 66)} {
		if _, err := ReadSeed(strings.NewReader(bad)); err == nil || (bad != "" && strings.Contains(err.Error(), bad)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("m"), make([]byte, 64), make([]byte, 80), make([]byte, 32))
	f.Fuzz(func(t *testing.T, msg, sig, vrf, key []byte) {
		var s types.Signature
		var v types.VRFSignature
		var id types.NodeID
		copy(s[:], sig)
		copy(v[:], vrf)
		copy(id[:], key)
		NewVerifier(types.GenesisID{}).Verify(ATX, id, msg, s)
		VerifyVRF(id, msg, v)
	})
}
