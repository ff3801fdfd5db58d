package post

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"tweedle/base/durable"
)

// Info is what a directory says of itself, without a look at any label.
type Info struct {
	NodeID        string     `json:"smesher"`    // in hex
	CommitmentATX string     `json:"commitment"` // in hex
	NumUnits      uint32     `json:"units"`
	LabelsPerUnit uint64     `json:"labels_per_unit"`
	Labels        uint64     `json:"labels"`     // in the whole space
	FileSize      uint64     `json:"file_bytes"` // of a full one
	Files         uint64     `json:"files"`
	VRFNonce      *uint64    `json:"vrf_nonce"`        // null if none is found yet
	Done          uint64     `json:"labels_done"`      // labels that are finished, from the first on
	Finished      bool       `json:"finished"`         // all files are there in full size, and a nonce
	Damage        string     `json:"damage,omitempty"` // what is wrong with the files, if anything
	Parts         []PartInfo `json:"parts,omitempty"`
}

// PartInfo is a part that lies in the directory.
type PartInfo struct {
	Part
	Done     uint64 `json:"labels_done"`
	Finished bool   `json:"finished"`
}

// ReadInfo reads the metadata of a directory, of the whole space or of parts of it, and
// the sizes of its files.
func ReadInfo(dir string) (Info, error) {
	fs := durable.OS{}
	if _, err := fs.ReadDir(dir); err != nil {
		return Info{}, advise(err)
	}
	m, err := loadMetadata(fs, filepath.Join(dir, MetadataFile))
	if err != nil && !os.IsNotExist(err) {
		return Info{}, err
	}
	found := err == nil
	made, err := listParts(fs, dir)
	if err != nil {
		return Info{}, err
	}
	var parts []PartInfo
	for _, part := range made {
		if !found {
			m, found = part.meta, true
			m.Nonce, m.LastPosition = nil, new(uint64)
		}
		if err := part.inRange(dir); err != nil {
			return Info{}, err
		}
		first, end := part.meta.layout(dir).part(part.Part)
		done := uint64(0)
		if last := part.meta.LastPosition; last != nil {
			done = min(*last, end) - min(first, *last)
		}
		parts = append(parts, PartInfo{part.Part, done, done == end-first})
	}
	if !found {
		return Info{}, fmt.Errorf("post: %s has no %s: there is no space in it", dir, MetadataFile)
	}
	info := Info{
		NodeID: hex.EncodeToString(m.NodeID[:]), CommitmentATX: hex.EncodeToString(m.CommitmentATX[:]),
		NumUnits: m.NumUnits, LabelsPerUnit: m.LabelsPerUnit, Labels: m.NumLabels(),
		FileSize: m.MaxFileSize, Files: m.NumFiles(), VRFNonce: m.Nonce, Done: m.NumLabels(), Parts: parts,
	}
	if m.LastPosition != nil {
		info.Done = min(*m.LastPosition, info.Labels)
	}
	if info.Done == info.Labels {
		if _, err := Open(dir); err != nil {
			info.Damage = err.Error()
		}
		info.Finished = info.Damage == "" && m.Nonce != nil
	}
	return info, nil
}

// NoRoomError says that a disk is too small for what is to be filled.
type NoRoomError struct {
	Dir        string
	Need, Free uint64 // bytes
}

// Error says how much is missing.
func (e *NoRoomError) Error() string {
	return fmt.Sprintf("space in %s needs %s more, its disk has %s free: free some", e.Dir, Bytes(e.Need), Bytes(e.Free))
}

// Room returns a *NoRoomError if the disk of a directory cannot take what a space, or a
// part of it, still needs: better before hours are spent on it.
func Room(dir string, p Params, s Setup) error {
	need, err := missing(dir, p, s)
	if err != nil || need == 0 {
		return err
	}
	free, err := durable.OS{}.Free(dir)
	if err == nil && free < need {
		err = &NoRoomError{Dir: dir, Need: need, Free: free}
	}
	return err
}

// Bytes writes a number of bytes for people.
func Bytes(n uint64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB"}
	x, unit := float64(n), ""
	for _, u := range units {
		if x < 1024 {
			break
		}
		x, unit = x/1024, u
	}
	if unit == "" {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", x, unit)
}

// missing returns how many bytes the disk of a directory has still to take for a space or
// a part of it, with its metadata; 0 if all is there.
func missing(dir string, p Params, s Setup) (uint64, error) {
	labels, err := p.NumLabels(s.NumUnits)
	if err != nil {
		return 0, err
	}
	fs := durable.OS{}
	m := Metadata{LabelsPerUnit: p.LabelsPerUnit, NumUnits: s.NumUnits, MaxFileSize: s.MaxFileSize}
	if have, err := loadMetadata(fs, filepath.Join(dir, s.Part.MetadataName())); err == nil {
		m.MaxFileSize = have.MaxFileSize
	} else if m.MaxFileSize == 0 {
		m.MaxFileSize = DefaultFileSize
	}
	first, end := m.layout(dir).part(s.Part)
	if end > labels || first > end {
		return 0, nil // Init says what is wrong with it
	}
	need := (end - first) * LabelSize
	numbers, err := dataFiles(fs, dir)
	if err != nil && !os.IsNotExist(err) {
		return 0, err
	}
	for _, number := range numbers {
		if s.Part != (Part{}) && (number < s.Part.From || number >= s.Part.To) {
			continue
		}
		size, err := fileSize(fs, m.layout(dir).name(number))
		if err != nil {
			return 0, err
		}
		need -= min(need, uint64(size))
	}
	if need > 0 {
		need += 2 * MaxMetadataSize // and the new one beside the old
	}
	return need, nil
}
