package legacy

import "encoding/binary"

// xdr reads the few forms of XDR (RFC 4506) that the reference stores. The
// first mistake makes everything after it empty; end tells of it.
type xdr struct {
	b   []byte
	bad bool
}

func (d *xdr) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad = true
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *xdr) uint32() uint32 {
	b := d.take(4)
	if d.bad {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func (d *xdr) uint64() uint64 {
	b := d.take(8)
	if d.bad {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// opaque reads bytes of variable length, which are padded with zeros to a
// multiple of four.
func (d *xdr) opaque(limit int) []byte {
	n := d.uint32()
	if uint64(n) > uint64(limit) {
		d.bad = true
		return nil
	}
	out := d.take(int(n))
	for _, pad := range d.take(int(-n & 3)) {
		d.bad = d.bad || pad != 0
	}
	if d.bad {
		return nil
	}
	return out
}

// nodes reads a list of opaque values that must have 32 bytes each.
func nodes[H ~[32]byte](d *xdr, limit int) []H {
	n := d.uint32()
	if uint64(n) > uint64(limit) || uint64(n)*36 > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	out := make([]H, 0, n)
	for range n {
		b := d.opaque(32)
		if len(b) != 32 {
			d.bad = true
			return nil
		}
		out = append(out, H(b))
	}
	return out
}

// end returns errForm unless everything was read, and right.
func (d *xdr) end() error {
	if d.bad || len(d.b) != 0 {
		return errForm
	}
	return nil
}
