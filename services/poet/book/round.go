package book

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"

	"tweedle/services/poet"
)

// Round is what is stored of a round.
// Statement and Members are set from StateExecuting on; Leaves when it is proved.
type Round struct {
	Number    uint32
	State     poet.RoundState
	Statement [32]byte
	Members   uint64
	Leaves    uint64
}

// ID returns the round's name: its number in decimal (reference/poet.md 1.7).
func (r Round) ID() string { return poet.RoundID(r.Number) }

func (r Round) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, r.Number)
	b = append(b, byte(r.State))
	b = append(b, r.Statement[:]...)
	b = binary.BigEndian.AppendUint64(b, r.Members)
	return binary.BigEndian.AppendUint64(b, r.Leaves)
}

func decodeRound(b []byte) (Round, error) {
	if len(b) != 4+1+32+8+8 || b[4] > byte(poet.StateProved) {
		return Round{}, fmt.Errorf("%s: round: %w: restore the file from a copy", DatabaseName, poet.ErrDamaged)
	}
	return Round{
		Number:    binary.BigEndian.Uint32(b),
		State:     poet.RoundState(b[4]),
		Statement: [32]byte(b[5:]),
		Members:   binary.BigEndian.Uint64(b[37:]),
		Leaves:    binary.BigEndian.Uint64(b[45:]),
	}, nil
}

func putRound(tx *bbolt.Tx, r Round) error {
	return put(tx.Bucket(bucketRounds), bucketRounds, roundKey(r.Number), r.encode())
}
