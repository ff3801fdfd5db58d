package vm

import (
	"errors"
	"fmt"
	"math"

	"tweedle/values/codec"
	"tweedle/values/types"
)

// Reasons why a transaction is not admitted to the pool, wrapped with what was
// found. In a block it is passed over without a fee for the same reasons, but
// for ErrSpawned and a balance that covers the intrinsic gas: there it fails
// and pays.
var (
	ErrMalformed  = errors.New("transaction is malformed")
	ErrSignature  = errors.New("signature is wrong: signed with another key or for another network")
	ErrNotSpawned = errors.New("account is not spawned: send a spawn first and wait until it is applied")
	ErrNonce      = errors.New("nonce is too low")
	ErrBalance    = errors.New("balance is too low")
	ErrGasPrice   = errors.New("gas price is zero: it must be at least 1")
	ErrSpawned    = errors.New("account is spawned already")
	ErrBlockGas   = errors.New("block has not enough gas left")
)

// Method selects what a transaction does (reference/protocol.md A11).
type Method uint8

// The methods.
const (
	MethodSpawn Method = 0  // creates the account that template and arguments name
	MethodSpend Method = 16 // moves coins from the principal
)

func (m Method) String() string {
	switch m {
	case MethodSpawn:
		return "spawn"
	case MethodSpend:
		return "spend"
	}
	return fmt.Sprintf("method %d", uint8(m))
}

// txVersion is the only version of the transaction's form.
const txVersion = 0

// Tx is a transaction that has been read. Reading looks at the form only;
// whether it can be executed is for Validate and Apply.
type Tx struct {
	Raw types.Transaction
	ID  types.TransactionID

	Principal types.Address // the account that signs and pays
	Method    Method
	Nonce     uint64
	GasPrice  uint64        // smidges per unit of gas
	Template  types.Address // spawn: of the new account
	To        types.Address // spend: the recipient; spawn: the new account
	Amount    uint64        // spend: smidges
	Signature []byte        // in the form that the principal's template asks for

	spawn  template
	signed bool // the signature was found right
}

// Parse reads a transaction. The error wraps ErrMalformed. The result shares
// memory with raw, which must not be changed.
func Parse(raw types.Transaction) (Tx, error) {
	if len(raw) > types.MaxTransactionSize {
		return Tx{}, fmt.Errorf("%w: %d bytes are over the limit of %d", ErrMalformed, len(raw), types.MaxTransactionSize)
	}
	tx := Tx{Raw: raw, ID: raw.ID()}
	d := codec.NewDecoder(raw)
	if err := tx.decodeBody(d); err != nil {
		return Tx{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	tx.Signature = raw[len(raw)-d.Remaining():]
	return tx, nil
}

func (tx *Tx) decodeBody(d *codec.Decoder) error {
	if version := d.Compact(); version != txVersion {
		return fmt.Errorf("version %d is unknown", version)
	}
	d.Raw(tx.Principal[:])
	method := d.Compact()
	tx.Method = Method(method)
	if method > math.MaxUint8 || (tx.Method != MethodSpawn && tx.Method != MethodSpend) {
		return fmt.Errorf("method %d is unknown", method)
	}
	if tx.Method == MethodSpawn {
		d.Raw(tx.Template[:])
	}
	tx.Nonce, tx.GasPrice = d.Compact(), d.Compact()
	if tx.Method == MethodSpend {
		d.Raw(tx.To[:])
		tx.Amount = d.Compact()
	} else if tx.spawn = decodeTemplate(tx.Template, d); tx.spawn != nil {
		tx.To = types.DeriveAddress(tx.Template, spawnArgs(tx.spawn))
	}
	switch {
	case d.Err() != nil:
		return d.Err()
	case tx.Method == MethodSpawn && tx.spawn == nil:
		return fmt.Errorf("template %x is unknown", tx.Template)
	case tx.Nonce == math.MaxUint64:
		return errors.New("nonce has no successor")
	case !tx.To.IsReserved():
		return fmt.Errorf("recipient %x is not the address of any account", tx.To)
	}
	return nil
}

func spawnArgs(t template) []byte {
	e := codec.NewEncoder(128)
	t.encodeArgs(e)
	return e.Bytes()
}

// EncodeTo appends the canonical encoding; without Signature that is what is
// signed, after the genesis id.
func (tx Tx) EncodeTo(e *codec.Encoder) {
	e.Compact(txVersion)
	e.Raw(tx.Principal[:])
	e.Compact(uint64(tx.Method))
	if tx.Method == MethodSpawn {
		e.Raw(tx.Template[:])
	}
	e.Compact(tx.Nonce)
	e.Compact(tx.GasPrice)
	if tx.Method == MethodSpawn {
		tx.spawn.encodeArgs(e)
	} else {
		e.Raw(tx.To[:])
		e.Compact(tx.Amount)
	}
	e.Raw(tx.Signature)
}

// body returns what is signed.
func (tx *Tx) body() []byte { return tx.Raw[:len(tx.Raw)-len(tx.Signature)] }

// selfSpawn tells whether the transaction spawns its own principal.
func (tx *Tx) selfSpawn() bool { return tx.Method == MethodSpawn && tx.To == tx.Principal }

// cost returns the most that the transaction can take from its principal, or
// false when that is more than any balance.
func (tx *Tx) cost(g Gas) (uint64, bool) {
	charge, ok := fee(g.Max, tx.GasPrice)
	return charge + tx.Amount, ok && charge+tx.Amount >= charge
}
