package types

import (
	"errors"
	"fmt"
	"strings"
)

// Address names an account: AddressReserved zero bytes, then the end of a
// hash over the template and its arguments (reference/protocol.md A11).
type Address [24]byte

// AddressReserved is how many leading bytes of an address are zero.
const AddressReserved = 4

// DeriveAddress returns the address of the account that a template makes of
// its canonically encoded arguments (reference/protocol.md A11).
func DeriveAddress(template Address, args []byte) Address {
	h := Sum(template[:], args)
	var a Address
	copy(a[AddressReserved:], h[len(h)-(len(a)-AddressReserved):])
	return a
}

// IsReserved tells whether the leading zero bytes are there. An address
// without them belongs to no account that could ever be spawned.
func (a Address) IsReserved() bool {
	return [AddressReserved]byte(a[:AddressReserved]) == [AddressReserved]byte{}
}

// IsZero tells whether the address is absent.
func (a Address) IsZero() bool { return a == Address{} }

// Compare orders addresses by their bytes: -1, 0 or 1.
func (a Address) Compare(b Address) int { return strings.Compare(string(a[:]), string(b[:])) }

// MaxHRP is in characters: the longest network prefix, so that an address
// stays within the 90 characters of BIP-173.
const MaxHRP = maxBech32 - 1 - (len(Address{})*8+4)/5 - checksumSize

// CheckHRP returns what is wrong with a network's prefix of addresses: it has
// 1 to MaxHRP lower-case letters or digits.
func CheckHRP(hrp string) error {
	bad := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }
	if hrp == "" || len(hrp) > MaxHRP || strings.ContainsFunc(hrp, bad) {
		return fmt.Errorf("address prefix %.100q is not 1 to %d lower-case letters or digits", hrp, MaxHRP)
	}
	return nil
}

// Bech32 returns the address as people write it, under the prefix of its
// network ("sm", "stest"). It panics unless the prefix passes CheckHRP.
func (a Address) Bech32(hrp string) string {
	if err := CheckHRP(hrp); err != nil {
		panic("types: " + err.Error())
	}
	return bech32Encode(hrp, regroup(a[:], 8, 5))
}

// ParseAddress reads what Bech32 wrote for the network with prefix hrp. Its
// errors say which part is wrong: checksum, network, length or reserved bytes.
func ParseAddress(s, hrp string) (Address, error) {
	got, groups, err := bech32Decode(s)
	switch {
	case err != nil:
		return Address{}, fmt.Errorf("address %.100q: %w", s, err)
	case got != hrp:
		return Address{}, fmt.Errorf("address %s is of network %q, this one is %q", s, got, hrp)
	}
	var a Address
	if want := (len(a)*8 + 4) / 5; len(groups) != want {
		return Address{}, fmt.Errorf("address %s has %d characters after its prefix, not %d",
			s, len(groups)+checksumSize, want+checksumSize)
	}
	// The last group has bits to spare; they must be zero, or one address
	// would have several spellings.
	if spare := len(groups)*5 - len(a)*8; groups[len(groups)-1]&(1<<spare-1) != 0 {
		return Address{}, fmt.Errorf("address %s has padding that is not zero", s)
	}
	copy(a[:], regroup(groups, 5, 8))
	if !a.IsReserved() {
		return Address{}, fmt.Errorf("address %s does not start with %d zero bytes", s, AddressReserved)
	}
	return a, nil
}

// Bech32 (BIP-173): the alphabet, its limit, and the errors of its form.
const (
	bech32Alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	maxBech32      = 90 // characters in all
	checksumSize   = 6
)

var (
	errChecksum  = errors.New("checksum is wrong: look for a typing mistake")
	errCharacter = errors.New("contains a character that bech32 does not use")
	errMixedCase = errors.New("mixes upper and lower case")
	errSeparator = errors.New("has no network prefix, or nothing after it")
	errBech32Len = fmt.Errorf("is longer than %d characters", maxBech32)
)

// polymod is the checksum's generator: BIP-173, "Checksum".
func polymod(sum uint32, group byte) uint32 {
	generator := [5]uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3}
	top := sum >> 25
	sum = (sum&0x1ffffff)<<5 ^ uint32(group)
	for i, g := range generator {
		if top>>i&1 == 1 {
			sum ^= g
		}
	}
	return sum
}

// polymodPrefix returns the checksum state after the prefix.
func polymodPrefix(hrp string) uint32 {
	sum := uint32(1)
	for i := range len(hrp) {
		sum = polymod(sum, hrp[i]>>5)
	}
	sum = polymod(sum, 0)
	for i := range len(hrp) {
		sum = polymod(sum, hrp[i]&31)
	}
	return sum
}

// bech32Encode writes a lower-case prefix and 5-bit groups.
func bech32Encode(hrp string, groups []byte) string {
	sum := polymodPrefix(hrp)
	var s strings.Builder
	s.WriteString(hrp)
	s.WriteByte('1')
	for _, g := range groups {
		sum = polymod(sum, g)
		s.WriteByte(bech32Alphabet[g])
	}
	for range checksumSize {
		sum = polymod(sum, 0)
	}
	sum ^= 1
	for i := range checksumSize {
		s.WriteByte(bech32Alphabet[sum>>(5*(checksumSize-1-i))&31])
	}
	return s.String()
}

// bech32Decode returns the prefix and the 5-bit groups without checksum.
func bech32Decode(s string) (hrp string, groups []byte, err error) {
	if len(s) > maxBech32 {
		return "", nil, errBech32Len
	}
	if strings.ContainsFunc(s, unprintable) {
		return "", nil, errCharacter
	}
	lower := strings.ToLower(s)
	if s != lower && s != strings.ToUpper(s) {
		return "", nil, errMixedCase
	}
	at := strings.LastIndexByte(lower, '1')
	if at < 1 || len(lower)-at-1 < checksumSize {
		return "", nil, errSeparator
	}
	sum := polymodPrefix(lower[:at])
	for i := at + 1; i < len(lower); i++ {
		g := strings.IndexByte(bech32Alphabet, lower[i])
		if g < 0 {
			return "", nil, errCharacter
		}
		groups = append(groups, byte(g))
		sum = polymod(sum, byte(g))
	}
	if sum != 1 {
		return "", nil, errChecksum
	}
	return lower[:at], groups[:len(groups)-checksumSize], nil
}

func unprintable(r rune) bool { return r < 33 || r > 126 }

// regroup cuts a big-endian string of from-bit groups into to-bit groups. On
// the way to smaller groups the last one is filled with zero bits; on the way
// back bits that fill no group are dropped.
func regroup(in []byte, from, to uint) []byte {
	var out []byte
	var acc uint32
	var bits uint
	for _, b := range in {
		acc = (acc<<from | uint32(b)) & 0xffff
		bits += from
		for bits >= to {
			bits -= to
			out = append(out, byte(acc>>bits&(1<<to-1)))
		}
	}
	if bits > 0 && to < from {
		out = append(out, byte(acc<<(to-bits)&(1<<to-1)))
	}
	return out
}
