package types

// MaxTransactionSize is in bytes (reference/protocol.md A11).
const MaxTransactionSize = 1024

// Transaction is a transaction as it was signed and sent. Its inner form is
// the business of package vm.
type Transaction []byte

// ID returns the transaction's name, which covers the signature.
func (t Transaction) ID() TransactionID { return TransactionID(Sum(t)) }
