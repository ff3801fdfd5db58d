package vm

import "math/bits"

// The prices of the published gas table (reference/protocol.md A11). Those
// marked "word" are per 8 bytes, rounded up.
const (
	gasTx            = 20_000
	gasSpawn         = 30_000
	gasVerify        = 3_000 // one ed25519 signature
	gasAccountAccess = 2_500
	gasDataWord      = 128   // of the transaction itself
	gasStoreWord     = 5_000 // of new state
	gasUpdateWord    = 725   // of changed state
	gasLoadWord      = 182   // of state that is read
)

func words(size int) uint64 { return uint64(size+7) / 8 }

// Gas is what a transaction costs, in units of gas.
type Gas struct {
	Intrinsic uint64 // for being in a block; who cannot pay it is not charged
	Max       uint64 // for being executed too; always charged in full
}

// fee returns gas * price, or false when that is more than any balance.
func fee(gas, price uint64) (uint64, bool) {
	high, low := bits.Mul64(gas, price)
	return low, high == 0
}
