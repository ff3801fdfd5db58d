package preset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// File is the usual name of a network file.
const File = "network.json"

// maxFileSize bounds what Load reads, in bytes.
const maxFileSize = 16 << 20

// Load reads and checks a network file.
func Load(path string) (Network, error) {
	f, err := os.Open(path)
	if err != nil {
		return Network{}, fmt.Errorf("network file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return Network{}, fmt.Errorf("network file: %w", err)
	}
	if len(b) > maxFileSize {
		return Network{}, fmt.Errorf("network file %s has more than %d bytes: it cannot be one", path, maxFileSize)
	}
	n, err := parse(b)
	if err != nil {
		return n, fmt.Errorf("network file %s: %w", path, err)
	}
	return n, nil
}

// parse reads the content of a network file. Unknown fields are an error: they
// are rules that the others follow and we do not know.
func parse(b []byte) (Network, error) {
	var n Network
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&n); err != nil {
		return n, err
	}
	if _, err := d.Token(); err != io.EOF {
		return n, errors.New("something stands after its end")
	}
	return n, n.Validate()
}

// Marshal returns the content of the network's file.
func (n Network) Marshal() ([]byte, error) {
	if err := n.Validate(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(n, "", "  ")
	return append(b, '\n'), err
}
