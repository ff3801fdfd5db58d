package p2p

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

const (
	// ProtocolVersion is what two hosts must have in common.
	ProtocolVersion = 1
	// MaxNetworkName bounds NetworkID.Name, in bytes.
	MaxNetworkName = 64
	// MaxHello is the longest hello, in bytes.
	MaxHello = len(helloMagic) + 2 + genesisSize + 1 + MaxNetworkName

	helloMagic  = "tweedle\n"
	genesisSize = 20
)

// NetworkID names a network: two networks with the same name have different genesis ids, and two
// with the same genesis id and different names are not one either (design.md section 7, item 7).
type NetworkID struct {
	GenesisID [genesisSize]byte
	Name      string // printable, 1 to MaxNetworkName bytes
}

func (n NetworkID) String() string {
	return fmt.Sprintf("%q (%s)", n.Name, hex.EncodeToString(n.GenesisID[:]))
}

func (n NetworkID) validate() error {
	if n.Name == "" || len(n.Name) > MaxNetworkName {
		return fmt.Errorf("p2p: network name has %d bytes: give it 1 to %d", len(n.Name), MaxNetworkName)
	}
	if !utf8.ValidString(n.Name) {
		return fmt.Errorf("p2p: network name %q is not utf-8", n.Name)
	}
	for _, r := range n.Name {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("p2p: network name %q is not printable", n.Name)
		}
	}
	return nil
}

// hello is what each side of a connection says first:
//
//	magic [8] | version uint16 LE | genesis id [20] | length of name uint8 | name
//
// A later version may change all that follows the version.
type hello struct {
	version uint16
	network NetworkID
}

var errNotTweedle = errors.New("peer does not speak our protocol")

func encodeHello(h hello) []byte {
	b := make([]byte, 0, MaxHello)
	b = append(b, helloMagic...)
	b = binary.LittleEndian.AppendUint16(b, h.version)
	b = append(b, h.network.GenesisID[:]...)
	b = append(b, byte(len(h.network.Name)))
	return append(b, h.network.Name...)
}

// decodeHello returns only the version, and no error, for a hello of another version.
func decodeHello(b []byte) (hello, error) {
	var h hello
	rest, ok := bytes.CutPrefix(b, []byte(helloMagic))
	if !ok || len(rest) < 2 {
		return h, errNotTweedle
	}
	h.version, rest = binary.LittleEndian.Uint16(rest), rest[2:]
	if h.version != ProtocolVersion {
		return h, nil
	}
	if len(rest) < genesisSize+1 {
		return h, errors.New("hello is too short")
	}
	copy(h.network.GenesisID[:], rest)
	rest = rest[genesisSize:]
	if int(rest[0]) != len(rest)-1 {
		return h, errors.New("hello does not have the length that it names")
	}
	h.network.Name = string(rest[1:])
	return h, h.network.validate()
}

// A MismatchError says that a peer is not of our network, or not of our protocol version. The dial
// that met it returns it, and Refusal carries it on both sides.
type MismatchError struct {
	Peer                     PeerID
	TheirVersion, OurVersion uint16
	TheirNetwork, OurNetwork NetworkID // TheirNetwork is zero when the versions differ
}

func (e *MismatchError) Error() string {
	if e.TheirVersion != e.OurVersion {
		return fmt.Sprintf("peer %s speaks protocol version %d, we speak %d: refused", e.Peer, e.TheirVersion, e.OurVersion)
	}
	return fmt.Sprintf("peer %s is of network %s, we are of %s: refused", e.Peer, e.TheirNetwork, e.OurNetwork)
}

// check compares what a peer said with what we are.
func (h hello) check(theirs hello, from PeerID) error {
	if h == theirs {
		return nil
	}
	return &MismatchError{
		Peer:         from,
		TheirVersion: theirs.version, OurVersion: h.version,
		TheirNetwork: theirs.network, OurNetwork: h.network,
	}
}
