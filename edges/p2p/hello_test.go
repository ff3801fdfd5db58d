package p2p

import (
	"bytes"
	"strings"
	"testing"
)

func TestHelloSurvivesTheWire(t *testing.T) {
	h := hello{ProtocolVersion, testNetwork("test")}
	got, err := decodeHello(encodeHello(h))
	if err != nil || got != h {
		t.Fatalf("decode(encode(%+v)) = %+v, %v", h, got, err)
	}
	longest := hello{ProtocolVersion, NetworkID{Name: strings.Repeat("n", MaxNetworkName)}}
	if n := len(encodeHello(longest)); n != MaxHello {
		t.Errorf("longest hello has %d bytes, MaxHello is %d", n, MaxHello)
	}
}

func TestHelloGolden(t *testing.T) {
	h := hello{ProtocolVersion, NetworkID{Name: "ab"}}
	h.network.GenesisID[0], h.network.GenesisID[19] = 1, 2
	want := "tweedle\n" + "\x01\x00" + "\x01" + strings.Repeat("\x00", 18) + "\x02" + "\x02ab"
	if got := string(encodeHello(h)); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestBadHellosAreRefused(t *testing.T) {
	good := string(encodeHello(hello{ProtocolVersion, NetworkID{Name: "ab"}}))
	for name, b := range map[string]string{
		"empty":            "",
		"other magic":      "T" + good[1:],
		"no version":       good[:9],
		"no genesis":       good[:10],
		"no name":          good[:31],
		"name too short":   good[:32],
		"trailing byte":    good + "c",
		"empty name":       good[:30] + "\x00",
		"name too long":    good[:30] + "\x41" + strings.Repeat("n", MaxNetworkName+1),
		"unprintable name": good[:30] + "\x01\n",
		"not utf-8":        good[:30] + "\x01\xff",
	} {
		if h, err := decodeHello([]byte(b)); err == nil {
			t.Errorf("%s: decoded as %+v", name, h)
		}
	}
}

func TestEveryDifferenceIsNamed(t *testing.T) {
	ours := hello{1, NetworkID{Name: "a"}}
	same := ours
	if err := ours.check(same, "p"); err != nil {
		t.Fatal(err)
	}
	otherName, otherGenesis, otherVersion := ours, ours, hello{version: 2}
	otherName.network.Name = "b"
	otherGenesis.network.GenesisID[19] = 1
	for theirs, want := range map[hello]string{
		otherName:    `network "b" (0000000000000000000000000000000000000000), we are of "a" (0000000000000000000000000000000000000000): refused`,
		otherGenesis: `network "a" (0000000000000000000000000000000000000001), we are of "a" (0000000000000000000000000000000000000000): refused`,
		otherVersion: `speaks protocol version 2, we speak 1: refused`,
	} {
		if err := ours.check(theirs, "p"); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("got %v\nwant ..%s", err, want)
		}
	}
}

func FuzzDecodeHello(f *testing.F) {
	f.Add(encodeHello(hello{ProtocolVersion, NetworkID{Name: "ab"}}))
	f.Add(encodeHello(hello{2, NetworkID{Name: "ab"}}))
	f.Add([]byte(helloMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err != nil {
			return
		}
		if h.version != ProtocolVersion { // the rest is not ours to read
			if h.network != (NetworkID{}) {
				t.Fatalf("read %+v from another version", h)
			}
			return
		}
		if again := encodeHello(h); !bytes.Equal(again, b) {
			t.Fatalf("decoded %x, encoded %x", b, again)
		}
	})
}
