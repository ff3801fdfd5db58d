package front

import "encoding/binary"

// wire follows the frames of an HTTP/2 connection in one direction, however they are
// cut (RFC 9113, 4.1). grpc refuses what it has no handler for without a word to
// anybody here: that it passes by is all there is to see.
type wire struct {
	head [frameHead + codeSize]byte // of the frame that passes, and the code of one that has a code
	have int
	skip int // bytes until the next frame begins
}

// Frames (RFC 9113, 4.1, 6 and 7).
const (
	preface   = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") // what a client says before its first frame
	frameHead = 9
	codeSize  = 4

	frameHeaders      = 1
	frameReset        = 3
	frameContinuation = 9

	codeFrameSize     = 6 // of a reset: grpc has it for headers that are too large, and for nothing else
	codeRefusedStream = 7 // and this one for a call over the limit of its connection
)

// frame is what is known of a frame when its head has passed.
type frame struct {
	kind byte
	size int    // of the payload
	code uint32 // of a reset
}

// pass sees b pass.
func (w *wire) pass(b []byte, saw func(frame)) {
	for len(b) > 0 {
		if w.skip > 0 {
			n := min(w.skip, len(b))
			w.skip -= n
			b = b[n:]
			continue
		}
		want := frameHead
		if w.have >= frameHead {
			want += codeSize
		}
		n := copy(w.head[w.have:want], b)
		w.have += n
		b = b[n:]
		if w.have < want {
			return
		}
		f := frame{kind: w.head[3], size: int(w.head[0])<<16 | int(w.head[1])<<8 | int(w.head[2])}
		if f.kind == frameReset && f.size == codeSize {
			if want == frameHead {
				continue // its code comes
			}
			f.code = binary.BigEndian.Uint32(w.head[frameHead:])
		}
		w.skip, w.have = f.size-(want-frameHead), 0
		saw(f)
	}
}

// unpacked is how many times a request's headers may be over their limit before grpc
// itself refuses them: it has no words for that, or ends the whole connection. What is
// less is refused by tap. Huffman's code of HPACK (RFC 7541, B) has 5 bits for what is
// shortest, so what is more than twice the limit is over it before it is unpacked too.
const unpacked = 2

// heard sees what a gRPC client sends, and counts headers that are over the limit when
// they come: if grpc ends the connection for them, nothing is told. Not counted are those
// that name what came before again and again and go on in another frame when they are
// over the limit already, for which it is ended too: no client packs so.
func (c *conn) heard(f frame) {
	switch {
	case f.kind == frameHeaders:
		c.block = 0
	case f.kind != frameContinuation:
		return
	}
	before := c.block
	if c.block += f.size; before > c.guard.limits.Header || c.block <= c.guard.limits.Header {
		return
	}
	c.refuse(limitHeader)
	c.mu.Lock()
	c.told++
	c.mu.Unlock()
}

// largeHeaders counts headers that are refused, unless they were counted when they came.
func (c *conn) largeHeaders() {
	c.mu.Lock()
	known := c.told > 0
	if known {
		c.told--
	}
	c.mu.Unlock()
	if !known {
		c.refuse(limitHeader)
	}
}

// said sees what grpc answers. A client that knows MAX_CONCURRENT_STREAMS waits with its
// calls, and there is nothing to count; here come those of one that does not keep to it.
func (c *conn) said(f frame) {
	switch f.code {
	case codeRefusedStream:
		c.refuse(limitStreams)
	case codeFrameSize:
		c.largeHeaders()
	}
}
