package codec

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"testing"
)

// Vectors of the SCALE specification's compact integers.
func TestCompactIntegersHaveTheScaleForm(t *testing.T) {
	for _, tc := range []struct {
		v   uint64
		hex string
	}{
		{0, "00"},
		{1, "04"},
		{42, "a8"},
		{63, "fc"},
		{64, "0101"},
		{69, "1501"},
		{16383, "fdff"},
		{16384, "02000100"},
		{1<<30 - 1, "feffffff"},
		{1 << 30, "0300000040"},
		{math.MaxUint32, "03ffffffff"},
		{1 << 32, "070000000001"},
		{100000000000000, "0b00407a10f35a"},
		{math.MaxUint64, "13ffffffffffffffff"},
	} {
		var e Encoder
		e.Compact(tc.v)
		if got := hex.EncodeToString(e.Bytes()); got != tc.hex {
			t.Errorf("Compact(%d) = %s, want %s", tc.v, got, tc.hex)
		}
		d := NewDecoder(e.Bytes())
		if got := d.Compact(); got != tc.v || d.Done() != nil {
			t.Errorf("decoded %d as %d (%v)", tc.v, got, d.Err())
		}
	}
}

func TestOnlyOneEncodingIsAccepted(t *testing.T) {
	for _, tc := range []struct {
		name, hex string
		read      func(*Decoder)
		want      error
	}{
		{"one in two bytes", "0500", func(d *Decoder) { d.Compact() }, ErrNotMinimal},
		{"one in four bytes", "06000000", func(d *Decoder) { d.Compact() }, ErrNotMinimal},
		{"one in big form", "0301000000", func(d *Decoder) { d.Compact() }, ErrNotMinimal},
		{"five bytes for four", "07ffffffff00", func(d *Decoder) { d.Compact() }, ErrNotMinimal},
		{"nine byte integer", "17ffffffffffffffffff", func(d *Decoder) { d.Compact() }, ErrRange},
		{"boolean two", "02", func(d *Decoder) { d.Bool() }, ErrRange},
		{"trailing byte", "0400", func(d *Decoder) { d.Compact() }, ErrTrailing},
		{"ends inside integer", "01", func(d *Decoder) { d.Compact() }, ErrShort},
		{"nothing", "", func(d *Decoder) { d.Compact() }, ErrShort},
		{"claims more than it has", "fc00", func(d *Decoder) { d.ByteSlice(100) }, ErrShort},
		{"claims more than allowed", "fc00", func(d *Decoder) { d.ByteSlice(3) }, ErrTooLong},
		{"32 bit overflow", "070000000001", func(d *Decoder) { d.Compact32() }, ErrRange},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := hex.DecodeString(tc.hex)
			if err != nil {
				t.Fatal(err)
			}
			d := NewDecoder(b)
			tc.read(d)
			if err := d.Done(); !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestErrorsAreSticky(t *testing.T) {
	d := NewDecoder([]byte{2, 4, 4})
	d.Bool()
	first := d.Err()
	if d.Compact() != 0 || d.U8() != 0 || d.ByteSlice(9) != nil || d.Err() != first {
		t.Fatal("a read after an error returned something")
	}
}

type pair struct {
	A uint64
	B []byte
}

func (p *pair) EncodeTo(e *Encoder)   { e.Compact(p.A); e.ByteSlice(p.B) }
func (p *pair) DecodeFrom(d *Decoder) { p.A = d.Compact(); p.B = d.ByteSlice(16) }

type pairs struct{ L []pair }

func (p *pairs) EncodeTo(e *Encoder)   { EncodeList(e, p.L) }
func (p *pairs) DecodeFrom(d *Decoder) { p.L = DecodeList[pair](d, 1<<20) }

func TestAFalseListLengthAllocatesNothing(t *testing.T) {
	var e Encoder
	e.Compact(1 << 20)
	if got := testing.AllocsPerRun(10, func() {
		var p pairs
		if Decode(e.Bytes(), &p) == nil {
			t.Fatal("accepted")
		}
	}); got > 8 {
		t.Fatalf("%v allocations for an empty list", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(&pairs{[]pair{{1, []byte("x")}, {1 << 40, nil}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p pairs
		if Decode(b, &p) == nil && !bytes.Equal(Encode(&p), b) {
			t.Fatalf("%x was accepted but encodes as %x", b, Encode(&p))
		}
	})
}
