package signing

import (
	"bytes"
	"strings"
	"testing"

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
	if !NewVerifier(types.GenesisID{1}).VerifyTransaction(a.NodeID(), []byte("tx"), a.SignTransaction([]byte("tx"))) {
		t.Error("transaction signature refused")
	}
	if NewVerifier(types.GenesisID{2}).VerifyTransaction(a.NodeID(), []byte("tx"), a.SignTransaction([]byte("tx"))) {
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
