package types

import (
	"encoding/hex"
	"strings"
	"testing"
)

// walletTemplate is the template that the vectors below are derived from.
var walletTemplate = Address{23: 1}

// Addresses that the ecosystem's own tools show: the wallet template, and two
// keys of the Zondax hardware wallet's test suite.
func TestAddressesAreThoseOfTheEcosystem(t *testing.T) {
	if got := walletTemplate.Bech32("sm"); got != "sm1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqg56ypy7" {
		t.Errorf("wallet template: %s", got)
	}
	for key, want := range map[string]string{
		"136d3aee6442288da85f936f7fe6822186f1d3c63c050721c66bcb7a2095655d": "sm1qqqqqqyjdl0e9t6s3cxx3pqgtmxh998w5l74v5syjt6w5",
		"b7ec1a92bf5fd19cff888c2b7a278ceb6d649f5b678b89fb5c29bb1546f4a594": "sm1qqqqqqp6qjvvlg7h9z748an72kcx3sjqyjcvrkg0jfst2",
	} {
		args, err := hex.DecodeString(key)
		if err != nil {
			t.Fatal(err)
		}
		if got := DeriveAddress(walletTemplate, args).Bech32("sm"); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

func TestAnAddressSurvivesItsWrittenForm(t *testing.T) {
	for i := range 256 {
		a := DeriveAddress(Address{23: byte(i)}, []byte{1, 2, 3})
		s := a.Bech32("stest")
		for _, spelling := range []string{s, strings.ToUpper(s)} {
			if got, err := ParseAddress(spelling, "stest"); err != nil || got != a {
				t.Fatalf("%s: %x, %v", spelling, got, err)
			}
		}
	}
}

func TestABadAddressIsRefusedWithItsReason(t *testing.T) {
	good := DeriveAddress(walletTemplate, []byte("x")).Bech32("stest")
	short := bech32Encode("stest", regroup(make([]byte, 20), 8, 5))
	groups := regroup(make([]byte, 24), 8, 5)
	groups[len(groups)-1] |= 1
	padded := bech32Encode("stest", groups)
	swapped := []byte(good)
	swapped[20] = bech32Alphabet[(strings.IndexByte(bech32Alphabet, swapped[20])+1)%32]
	for name, tc := range map[string]struct{ in, reason string }{
		"another network":    {DeriveAddress(walletTemplate, []byte("x")).Bech32("sm"), `network "sm", this one is "stest"`},
		"a typing mistake":   {string(swapped), "checksum"},
		"a missing letter":   {good[:len(good)-1], "checksum"},
		"a foreign letter":   {good[:10] + "b" + good[11:], "does not use"},
		"mixed case":         {strings.ToUpper(good[:10]) + good[10:], "mixes"},
		"no prefix":          {"qqqq", "prefix"},
		"nothing":            {"", "prefix"},
		"20 bytes":           {short, "characters after its prefix"},
		"padding":            {padded, "padding"},
		"no reserved bytes":  {Address{1}.Bech32("stest"), "zero bytes"},
		"a reference vector": {"stest1fejq2x3d79ukpkw06t7h6lndjuwzxdnj59npghsg43mh4", "zero bytes"},
		"much too long":      {"stest1" + strings.Repeat("q", 200), "longer"},
	} {
		_, err := ParseAddress(tc.in, "stest")
		if err == nil || !strings.Contains(err.Error(), tc.reason) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, tc.reason)
		}
	}
}

// The vectors of BIP-173.
func TestBech32IsThatOfBIP173(t *testing.T) {
	for _, s := range []string{
		"A12UEL5L",
		"a12uel5l",
		"an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
		"abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
		"11qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqc8247j",
		"split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w",
		"?1ezyfcl",
	} {
		hrp, groups, err := bech32Decode(s)
		if err != nil {
			t.Errorf("%q refused: %v", s, err)
			continue
		}
		if again := bech32Encode(hrp, groups); again != strings.ToLower(s) {
			t.Errorf("%q comes back as %q", s, again)
		}
	}
	for name, s := range map[string]string{
		"prefix character out of range 0x20": " 1nwldj5",
		"prefix character out of range 0x7f": "\x7f1axkwrx",
		"prefix character out of range 0x80": "\u00801eym55h",
		"overall length":                     "an84characterslonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1569pvx",
		"no separator":                       "pzry9x0s0muk",
		"empty prefix":                       "1pzry9x0s0muk",
		"invalid data character":             "x1b4n0q5v",
		"too short checksum":                 "li1dgmt3",
		"invalid character in checksum":      "de1lg7wt\xff",
		"checksum with upper-case prefix":    "A1G7SGD8",
		"empty prefix again":                 "10a06t8",
		"empty prefix once more":             "1qzzfhee",
	} {
		if _, _, err := bech32Decode(s); err == nil {
			t.Errorf("%s: %q accepted", name, s)
		}
	}
}

func TestANetworksPrefixHasItsLimits(t *testing.T) {
	longest := strings.Repeat("a", MaxHRP)
	for _, hrp := range []string{"sm", "stest", "x1", longest} {
		if err := CheckHRP(hrp); err != nil {
			t.Error(err)
		}
	}
	if s := (Address{}).Bech32(longest); len(s) != maxBech32 {
		t.Errorf("the longest address has %d characters", len(s))
	}
	for _, hrp := range []string{"", "SM", "s m", "s\u00e9", longest + "a"} {
		if CheckHRP(hrp) == nil {
			t.Errorf("%q accepted", hrp)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add(Address{23: 1}.Bech32("sm"))
	f.Add(Address{1}.Bech32("sm"))
	f.Add("sm1")
	f.Add("A12UEL5L")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s, "sm")
		if err == nil && a.Bech32("sm") != strings.ToLower(s) {
			t.Fatalf("%q is read as %q", s, a.Bech32("sm"))
		}
	})
}
