package types

// MaxTransactionSize is in bytes (reference/protocol.md A11).
const MaxTransactionSize = 1024

// Transaction is a transaction as it was signed and sent. Its inner form is
// the business of package vm.
type Transaction []byte

// ID returns the transaction's name, which covers the signature.
func (t Transaction) ID() TransactionID { return TransactionID(Sum(t)) }

// Address names an account: four zero bytes, then the end of a hash over the
// template and its arguments (reference/protocol.md A11).
type Address [24]byte
