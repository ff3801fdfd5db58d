package poet

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tweedle/base/durable"
	"tweedle/values/types"
)

// IdentityName is the file of the server's key in the data directory.
const IdentityName = "identity.key"

// receiptPrefix begins everything that a receipt's signature is over, so that it
// can stand for nothing else.
const receiptPrefix = "tweedle poet receipt 1\x00"

// message returns what the receipt's signature is over: prefix, length of the
// round's name in one byte, round, public key, challenge, unix milliseconds as
// eight bytes, big endian.
func (r *Receipt) message() []byte {
	b := append([]byte(receiptPrefix), byte(len(r.Round)))
	b = append(b, r.Round...)
	b = append(b, r.NodeID[:]...)
	b = append(b, r.Challenge[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(r.Time.UnixMilli()))
}

// Verify tells whether the PoET that the receipt names has signed it.
func (r *Receipt) Verify() bool {
	return len(r.Round) <= types.MaxPoetRoundID &&
		ed25519.Verify(r.PoetID[:], r.message(), r.Signature[:])
}

func (r *Receipt) sign(key ed25519.PrivateKey) {
	r.PoetID = types.NodeID(key.Public().(ed25519.PublicKey))
	r.Signature = types.Signature(ed25519.Sign(key, r.message()))
}

// ParseKey reads a private key in base64, as in the reference's environment
// variable and in our key file.
func ParseKey(text string) (ed25519.PrivateKey, error) {
	// The content is a secret: no error repeats it.
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(b) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("private key is not %d bytes in base64", ed25519.PrivateKeySize)
	}
	key := ed25519.NewKeyFromSeed(b[:ed25519.SeedSize])
	if !bytes.Equal(key, b) {
		return nil, errors.New("private key and its public half do not belong together")
	}
	return key, nil
}

// loadIdentity returns the key of the data directory, making it if there is none.
// want, if not nil, is the key that it must be.
func loadIdentity(fs durable.FS, dir string, want ed25519.PrivateKey) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, IdentityName)
	data, err := durable.ReadFile(fs, path, 1<<10)
	if errors.Is(err, os.ErrNotExist) {
		key := want
		if key == nil {
			if _, key, err = ed25519.GenerateKey(nil); err != nil {
				return nil, err
			}
		}
		// If we stop in here, the next start finds no key and makes one; nobody
		// has seen this one.
		return key, durable.WriteFile(fs, path, []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600)
	}
	if err != nil {
		return nil, err
	}
	key, err := ParseKey(string(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: restore it from a copy", path, err)
	}
	if want != nil && !key.Equal(want) {
		return nil, fmt.Errorf("%s holds another key than the one that was given: remove one of them", path)
	}
	return key, nil
}

// receipt makes the answer to a stored registration.
func (s *Service) receipt(round uint32, id types.NodeID, m member) Receipt {
	r := Receipt{
		Round: RoundID(round), NodeID: id, Challenge: m.challenge,
		Time: time.UnixMilli(m.time), End: s.cfg.Schedule.End(round),
	}
	r.sign(s.key)
	return r
}
