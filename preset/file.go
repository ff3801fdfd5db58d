package preset

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// File is the usual name of a network file.
const File = "network.json"

// maxFileSize bounds what Load reads, in bytes.
const maxFileSize = 16 << 20

// Load reads and checks a network file.
func Load(path string) (Network, error) {
	var n Network
	info, err := os.Stat(path)
	if err != nil {
		return n, fmt.Errorf("network file: %w", err)
	}
	if info.Size() > maxFileSize {
		return n, fmt.Errorf("network file %s has %d bytes: it cannot be one", path, info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return n, fmt.Errorf("network file: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&n); err != nil {
		return n, fmt.Errorf("network file %s: %w", path, err)
	}
	if err := n.Validate(); err != nil {
		return n, fmt.Errorf("network file %s: %w", path, err)
	}
	return n, nil
}

// Marshal returns the content of the network's file.
func (n Network) Marshal() ([]byte, error) {
	if err := n.Validate(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(n, "", "  ")
	return append(b, '\n'), err
}
