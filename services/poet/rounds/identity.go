package rounds

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tweedle/base/durable"
	"tweedle/services/poet"
	"tweedle/services/poet/book"
	"tweedle/values/types"
)

// IdentityName is the file of the server's key in the data directory.
const IdentityName = "identity.key"

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

// loadIdentity returns the key of the data directory, making it in a new one. want,
// if not nil, is the key that it must be. The database is made after the key, so
// one without a key has lost it; anew makes another one then.
func loadIdentity(fs durable.FS, dir string, want ed25519.PrivateKey, anew bool) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, IdentityName)
	data, err := durable.Secret(fs, path, func() ([]byte, error) {
		key := want
		if key == nil {
			if _, err := os.Lstat(filepath.Join(dir, book.DatabaseName)); err == nil && !anew {
				return nil, fmt.Errorf("%s is missing and %s is there: restore the key from a backup, or start once with --new-identity to be another server, whose receipts say nothing of the old ones",
					path, book.DatabaseName)
			}
			var err error
			if _, key, err = ed25519.GenerateKey(nil); err != nil {
				return nil, err
			}
		}
		// If we stop in here, the next start finds no key and makes one; nobody
		// has seen this one.
		return base64.StdEncoding.AppendEncode(nil, key), nil
	})
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

// checkLost refuses a directory without its database: the folder of journals is made after it.
func checkLost(dir string) error {
	db, journals := filepath.Join(dir, book.DatabaseName), filepath.Join(dir, roundsDir)
	if _, err := os.Lstat(db); !errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if _, err := os.Lstat(journals); err != nil {
		return nil
	}
	return fmt.Errorf("%s is missing and %s is there: restore it from a backup, or, if its registrations and proofs are lost, move %s away to begin anew", db, journals, journals)
}

// receipt makes the answer to a stored registration.
func (s *Service) receipt(round uint32, id types.NodeID, m book.Member) poet.Receipt {
	r := poet.Receipt{
		PoetReceipt: types.PoetReceipt{Round: poet.RoundID(round), NodeID: id, Challenge: m.Challenge, Time: time.UnixMilli(m.Time)},
		End:         s.cfg.Schedule.End(round),
	}
	r.Sign(s.key)
	return r
}
