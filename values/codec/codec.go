// Package codec is the canonical binary encoding of everything that is
// hashed, signed, gossiped or stored: the SCALE format, restricted so that a
// value has exactly one encoding.
//
// It promises: decoding never panics, never reads past its limits, and
// rejects what encoding would not have written (integers that are not
// minimal, booleans other than 0 and 1, trailing bytes). Memory used while
// decoding is bounded by the size of the input, not by the lengths that the
// input claims.
//
// It leaves to the caller: a limit for every list and byte string (there is
// no unlimited read), and the meaning of the bytes.
//
// Both directions are sticky: after the first error the remaining calls do
// nothing, so a type encodes or decodes ten fields without error plumbing and
// the caller looks once.
package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Errors of the decoder. They are wrapped with the place where they happened.
var (
	ErrShort      = errors.New("input ends inside a value")
	ErrTrailing   = errors.New("bytes left after the value")
	ErrNotMinimal = errors.New("integer is not in its shortest form")
	ErrTooLong    = errors.New("length is over its limit")
	ErrRange      = errors.New("value is out of range")
)

// Encodable is a value that can append its canonical encoding.
type Encodable interface{ EncodeTo(e *Encoder) }

// Decodable is a value that can read itself from its canonical encoding.
type Decodable interface{ DecodeFrom(d *Decoder) }

// Encode returns the canonical encoding of v.
func Encode(v Encodable) []byte {
	e := NewEncoder(256) // most messages; the rest grows
	v.EncodeTo(e)
	return e.Bytes()
}

// Decode reads v from b, which must hold exactly one value.
func Decode(b []byte, v Decodable) error {
	d := NewDecoder(b)
	v.DecodeFrom(d)
	return d.Done()
}

// Encoder appends values to a buffer. The zero value is ready to use.
type Encoder struct{ buf []byte }

// NewEncoder returns an encoder with room for size bytes; it takes more.
func NewEncoder(size int) *Encoder { return &Encoder{buf: make([]byte, 0, size)} }

// Bytes returns what has been encoded so far. The encoder keeps using it.
func (e *Encoder) Bytes() []byte { return e.buf }

// Raw appends b as it is: the form of fixed-size arrays.
func (e *Encoder) Raw(b []byte) { e.buf = append(e.buf, b...) }

// U8 appends one byte.
func (e *Encoder) U8(v uint8) { e.buf = append(e.buf, v) }

// Bool appends 0 or 1.
func (e *Encoder) Bool(v bool) {
	if v {
		e.U8(1)
	} else {
		e.U8(0)
	}
}

// Compact appends v in SCALE's compact form: the two lowest bits of the first
// byte tell the width (1, 2, 4 bytes, or a byte count for larger values).
func (e *Encoder) Compact(v uint64) {
	switch {
	case v < 1<<6:
		e.buf = append(e.buf, byte(v)<<2)
	case v < 1<<14:
		e.buf = binary.LittleEndian.AppendUint16(e.buf, uint16(v)<<2|1)
	case v < 1<<30:
		e.buf = binary.LittleEndian.AppendUint32(e.buf, uint32(v)<<2|2)
	default:
		n := 4
		for n < 8 && v>>(8*n) != 0 {
			n++
		}
		e.buf = append(e.buf, byte(n-4)<<2|3)
		for i := range n {
			e.buf = append(e.buf, byte(v>>(8*i)))
		}
	}
}

// ByteSlice appends the length of b and b.
func (e *Encoder) ByteSlice(b []byte) {
	e.Compact(uint64(len(b)))
	e.Raw(b)
}

// String appends s like a byte slice.
func (e *Encoder) String(s string) { e.ByteSlice([]byte(s)) }

// Option appends the presence byte of an optional value; the caller appends
// the value itself if present.
func (e *Encoder) Option(present bool) { e.Bool(present) }

// EncodeList appends the number of elements, then each of them.
func EncodeList[T any, P interface {
	*T
	Encodable
}](e *Encoder, list []T) {
	e.Compact(uint64(len(list)))
	for i := range list {
		P(&list[i]).EncodeTo(e)
	}
}

// Decoder reads values from a byte slice. After the first error every read
// returns a zero value; Err and Done tell the error.
type Decoder struct {
	buf []byte
	off int
	err error
}

// NewDecoder returns a decoder of b, which it does not modify.
func NewDecoder(b []byte) *Decoder { return &Decoder{buf: b} }

// Err returns the first error, or nil.
func (d *Decoder) Err() error { return d.err }

// Done returns the first error, or ErrTrailing if input is left.
func (d *Decoder) Done() error {
	if d.err == nil && d.off != len(d.buf) {
		d.Fail(ErrTrailing)
	}
	return d.err
}

// Remaining returns how many bytes have not been read.
func (d *Decoder) Remaining() int { return len(d.buf) - d.off }

// Fail records err, with the offset, unless an error is recorded already.
func (d *Decoder) Fail(err error) {
	if d.err == nil {
		d.err = fmt.Errorf("at byte %d: %w", d.off, err)
	}
}

// take returns the next n bytes, or nil and an error. The result aliases the
// input.
func (d *Decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n > d.Remaining() {
		d.Fail(ErrShort)
		return nil
	}
	b := d.buf[d.off : d.off+n]
	d.off += n
	return b
}

// Raw fills dst, the form of fixed-size arrays.
func (d *Decoder) Raw(dst []byte) { copy(dst, d.take(len(dst))) }

// U8 reads one byte.
func (d *Decoder) U8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

// Bool reads 0 or 1 and rejects anything else.
func (d *Decoder) Bool() bool {
	switch d.U8() {
	case 0:
		return false
	case 1:
		return true
	}
	d.Fail(ErrRange)
	return false
}

// Option reads a presence byte.
func (d *Decoder) Option() bool { return d.Bool() }

// Compact reads a compact integer and rejects one that is not minimal.
func (d *Decoder) Compact() uint64 {
	if d.err != nil || d.Remaining() == 0 {
		d.Fail(ErrShort)
		return 0
	}
	first := d.buf[d.off]
	var v, least uint64
	switch first & 3 {
	case 0:
		d.take(1)
		return uint64(first >> 2)
	case 1:
		if b := d.take(2); b != nil {
			v, least = uint64(binary.LittleEndian.Uint16(b)>>2), 1<<6
		}
	case 2:
		if b := d.take(4); b != nil {
			v, least = uint64(binary.LittleEndian.Uint32(b)>>2), 1<<14
		}
	case 3:
		n := int(first>>2) + 4
		if n > 8 {
			d.Fail(ErrRange)
			return 0
		}
		if b := d.take(1 + n); b != nil {
			for i, x := range b[1:] {
				v |= uint64(x) << (8 * i)
			}
			least = 1 << 30
			if n > 4 {
				least = 1 << (8 * (n - 1))
			}
		}
	}
	if d.err == nil && v < least {
		d.Fail(ErrNotMinimal)
		return 0
	}
	return v
}

// Compact32 reads a compact integer that must fit 32 bits.
func (d *Decoder) Compact32() uint32 {
	v := d.Compact()
	if v > math.MaxUint32 {
		d.Fail(ErrRange)
		return 0
	}
	return uint32(v)
}

// Count reads the length of a list of at most limit elements.
func (d *Decoder) Count(limit int) int {
	v := d.Compact()
	if v > uint64(limit) {
		d.Fail(ErrTooLong)
		return 0
	}
	return int(v)
}

// ByteSlice reads a byte string of at most limit bytes and returns a copy;
// the empty string is nil.
func (d *Decoder) ByteSlice(limit int) []byte {
	n := d.Count(limit)
	b := d.take(n)
	if len(b) == 0 {
		return nil
	}
	return append(make([]byte, 0, n), b...)
}

// String reads a string of at most limit bytes.
func (d *Decoder) String(limit int) string { return string(d.take(d.Count(limit))) }

// DecodeList reads at most limit elements; the empty list is nil. The list
// grows as elements are read, so a false length costs nothing.
func DecodeList[T any, P interface {
	*T
	Decodable
}](d *Decoder, limit int) []T {
	n := d.Count(limit)
	var list []T
	for i := range n {
		before := d.Remaining()
		list = append(list, *new(T)) // read where it stays: an element of its own would be garbage
		P(&list[i]).DecodeFrom(d)
		if d.err != nil {
			return nil
		}
		if i == 0 { // room for as many as the input may have, if all are like this one
			list = slices.Grow(list, min(n-1, d.Remaining()/max(before-d.Remaining(), 1)))
		}
	}
	return list
}
