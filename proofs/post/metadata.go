package post

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
)

const (
	// MetadataFile describes the data files beside it.
	MetadataFile = "postdata_metadata.json"
	// MaxMetadataSize bounds MetadataFile, in bytes.
	MaxMetadataSize = 1 << 16
	// MinFileSize bounds Metadata.MaxFileSize from below, in bytes.
	MinFileSize = 1024
	// DefaultFileSize is MaxFileSize where a Setup does not say, in bytes.
	DefaultFileSize = 4 << 30

	// maxPosition bounds LastPosition, so that adding a batch cannot overflow.
	maxPosition = 1 << 62
)

// Metadata says what a directory's data files hold. Both published forms of
// its file are read; the one with tabs is written (reference/post.md 1.2).
type Metadata struct {
	NodeID        [32]byte // the identity
	CommitmentATX [32]byte // the ATX the labels are bound to
	LabelsPerUnit uint64   // labels in a unit
	NumUnits      uint32   // units of space
	MaxFileSize   uint64   // bytes of every data file but the last

	// Nonce is the index of the VRF nonce, nil as long as none is found.
	Nonce *uint64
	// NonceValue is the stored part of its label, nil if the writer of the
	// file left it out.
	NonceValue *[LabelSize]byte
	// LastPosition says that all labels before it were searched for the VRF
	// nonce and, within the space, are durable. Other programs write it only
	// for positions beyond the space, and it is nil in their files otherwise.
	LastPosition *uint64
}

// NumLabels returns the labels in the whole space.
func (m Metadata) NumLabels() uint64 { return m.LabelsPerUnit * uint64(m.NumUnits) }

// metadataJSON is the file's form. Absent and null mean the same.
type metadataJSON struct {
	NodeId          []byte //nolint:revive // the file's name for it
	CommitmentAtxId []byte //nolint:revive // the file's name for it
	LabelsPerUnit   uint64
	NumUnits        uint32
	MaxFileSize     uint64
	Nonce           *uint64 `json:",omitempty"`
	NonceValue      *string `json:",omitempty"`
	LastPosition    *uint64 `json:",omitempty"`
}

func encodeMetadata(m Metadata) []byte {
	j := metadataJSON{
		NodeId: m.NodeID[:], CommitmentAtxId: m.CommitmentATX[:],
		LabelsPerUnit: m.LabelsPerUnit, NumUnits: m.NumUnits, MaxFileSize: m.MaxFileSize,
		Nonce: m.Nonce, LastPosition: m.LastPosition,
	}
	if m.NonceValue != nil {
		value := hex.EncodeToString(m.NonceValue[:])
		j.NonceValue = &value
	}
	out, err := json.MarshalIndent(j, "", "\t")
	if err != nil {
		panic(fmt.Sprintf("post: metadata does not encode: %v", err))
	}
	return append(out, '\n')
}

func decodeMetadata(in []byte) (m Metadata, err error) {
	var j metadataJSON
	if err := json.Unmarshal(in, &j); err != nil {
		return m, err
	}
	m = Metadata{
		LabelsPerUnit: j.LabelsPerUnit, NumUnits: j.NumUnits, MaxFileSize: j.MaxFileSize,
		Nonce: j.Nonce, LastPosition: j.LastPosition,
	}
	if len(j.NodeId) != 32 || len(j.CommitmentAtxId) != 32 {
		return m, fmt.Errorf("NodeId has %d bytes and CommitmentAtxId %d, both must have 32", len(j.NodeId), len(j.CommitmentAtxId))
	}
	m.NodeID, m.CommitmentATX = [32]byte(j.NodeId), [32]byte(j.CommitmentAtxId)
	if j.NonceValue != nil {
		value, err := hex.DecodeString(*j.NonceValue)
		if err != nil || len(value) != LabelSize {
			return m, fmt.Errorf("NonceValue must be %d bytes in hex", LabelSize)
		}
		m.NonceValue = (*[LabelSize]byte)(value)
	}
	high, labels := bits.Mul64(m.LabelsPerUnit, uint64(m.NumUnits))
	switch {
	case high != 0 || labels == 0 || labels > maxPosition:
		return m, fmt.Errorf("%d units of %d labels is not a space", m.NumUnits, m.LabelsPerUnit)
	case m.MaxFileSize < MinFileSize || m.MaxFileSize > maxPosition:
		return m, fmt.Errorf("MaxFileSize %d is out of range", m.MaxFileSize)
	case m.LastPosition != nil && *m.LastPosition > maxPosition:
		return m, fmt.Errorf("LastPosition %d is out of range", *m.LastPosition)
	case m.NonceValue != nil && m.Nonce == nil:
		return m, errors.New("NonceValue without Nonce")
	}
	return m, nil
}
