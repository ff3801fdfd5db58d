//go:build linux

package network

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeebo/blake3"
)

// wallet is a key made by `tweedle wallet new`, whose transactions are encoded
// here, from what is published about them (reference/protocol.md A11).
type wallet struct {
	file, address string
	key           ed25519.PrivateKey
}

func newWallet(t *testing.T, name string) wallet {
	t.Helper()
	w := wallet{file: filepath.Join(t.TempDir(), name+".key")}
	w.address = strings.TrimSpace(must(t, "wallet", "new", "--key", w.file))
	text, err := os.ReadFile(w.file)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(seed) != ed25519.SeedSize {
		t.Fatalf("%s holds a seed of %d bytes: %v", w.file, len(seed), err)
	}
	w.key = ed25519.NewKeyFromSeed(seed)
	return w
}

// An address has this many bytes: zeroes, then the end of a hash.
const addressSize, addressHash = 24, 20

// template is the address of the single-key wallet's code.
func template() []byte { return append(make([]byte, addressSize-1), 1) }

func (w wallet) public() []byte { return w.key.Public().(ed25519.PublicKey) }

func (w wallet) principal() []byte {
	sum := blake3.Sum256(slices.Concat(template(), w.public()))
	return append(make([]byte, addressSize-addressHash), sum[len(sum)-addressHash:]...)
}

// Methods of a transaction.
const methodSpawn, methodSpend = 0, 16

// spawn returns the body of the transaction that makes the account spend.
func (w wallet) spawn(nonce, gasPrice uint64) []byte {
	return slices.Concat(compact(0), w.principal(), compact(methodSpawn), template(), compact(nonce), compact(gasPrice), w.public())
}

// spend returns the body of a transfer, in smidges.
func (w wallet) spend(to wallet, amount, nonce, gasPrice uint64) []byte {
	return slices.Concat(compact(0), w.principal(), compact(methodSpend), compact(nonce), compact(gasPrice), to.principal(), compact(amount))
}

// sign adds the signature for a network, whose id is hexadecimal.
func (w wallet) sign(t *testing.T, genesis string, body []byte) []byte {
	t.Helper()
	id, err := hex.DecodeString(genesis)
	if err != nil || len(id) != 20 {
		t.Fatalf("genesis id %q", genesis)
	}
	return slices.Concat(body, ed25519.Sign(w.key, slices.Concat(id, body)))
}

// compact is SCALE's compact integer.
func compact(v uint64) []byte {
	switch {
	case v < 1<<6:
		return []byte{byte(v << 2)}
	case v < 1<<14:
		return binary.LittleEndian.AppendUint16(nil, uint16(v<<2|1))
	case v < 1<<30:
		return binary.LittleEndian.AppendUint32(nil, uint32(v<<2|2))
	}
	digits := binary.LittleEndian.AppendUint64(nil, v)
	for len(digits) > 4 && digits[len(digits)-1] == 0 {
		digits = digits[:len(digits)-1]
	}
	return append([]byte{byte(len(digits)-4)<<2 | 3}, digits...)
}

// transactionID is how the API names a transaction.
func transactionID(raw []byte) []byte {
	sum := blake3.Sum256(raw)
	return sum[:]
}

// account is what a node tells of an account, amounts in smidges.
type account struct{ Current, Projected accountState }

type accountState struct{ Nonce, Balance uint64 }

func readAccount(t *testing.T, addr, address string) account {
	t.Helper()
	type state struct {
		Counter uint64 `json:",string"`
		Balance struct {
			Value uint64 `json:",string"`
		}
	}
	w := ask[struct {
		AccountWrapper struct {
			AccountID      struct{ Address string }
			StateCurrent   state
			StateProjected state
		}
	}](t, addr, "spacemesh.v1.GlobalStateService/Account", fmt.Sprintf(`{"account_id":{"address":%q}}`, address)).AccountWrapper
	if w.AccountID.Address != address {
		t.Fatalf("asked for account %s, told of %s", address, w.AccountID.Address)
	}
	now, next := w.StateCurrent, w.StateProjected
	return account{accountState{now.Counter, now.Balance.Value}, accountState{next.Counter, next.Balance.Value}}
}

// submission is the request that submits a transaction.
func submission(raw []byte) string {
	b, _ := json.Marshal(map[string][]byte{"transaction": raw}) // it has nothing that cannot be marshalled
	return string(b)
}

// receipt is what became of a transaction.
type receipt struct {
	State  string
	Status string // of its execution
	Gas    uint64
	Fee    uint64
	Layer  int
}

// transaction asks a node about a transaction.
func transaction(t *testing.T, addr string, id []byte) receipt {
	t.Helper()
	name, _ := json.Marshal(id)
	states := ask[struct {
		TransactionsState []struct {
			ID    struct{ ID []byte }
			State string
		}
	}](t, addr, "spacemesh.v1.TransactionService/TransactionsState", fmt.Sprintf(`{"transaction_id":[{"id":%s}]}`, name)).TransactionsState
	if len(states) != 1 || !slices.Equal(states[0].ID.ID, id) {
		t.Fatalf("asked for transaction %x, told of %v", id, states)
	}
	r := receipt{State: states[0].State}
	if r.State != "TRANSACTION_STATE_PROCESSED" {
		return r
	}
	result := ask[struct {
		Status      string
		GasConsumed uint64 `json:",string"`
		Fee         uint64 `json:",string"`
		Layer       int
	}](t, addr, "spacemesh.v1.TransactionService/StreamResults", fmt.Sprintf(`{"id":%s}`, name))
	r.Status, r.Gas, r.Fee, r.Layer = result.Status, result.GasConsumed, result.Fee, result.Layer
	return r
}
