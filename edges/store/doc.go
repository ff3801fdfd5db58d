// Package store keeps what a node knows in two SQLite files of one directory.
//
// state.db is everything that the network knows too: ATXs, PoET proofs,
// ballots, blocks, certificates, transactions, and the state that follows from
// them. It may be deleted; a node fetches it again. local.db is what nobody
// else has: the steps of our smeshers towards their next ATX, and the guard of
// what they have signed. Losing it may cost an epoch; restoring an old copy
// without noticing could make us sign two conflicting messages, which the
// guard detects and refuses (ErrRolledBack).
//
// It promises:
//   - A write is whole or absent after a crash. In local.db, and for PoET
//     proofs in state.db, it also survives the loss of power once the call has
//     returned. Other writes to state.db survive the death of the process;
//     power loss may take the newest of them, always from the end.
//   - What is read is what was written. Every row carries a checksum, and every
//     object that is named by its hash is hashed again; damage is reported as
//     ErrCorrupt, naming table and id, and never answered from.
//   - A directory belongs to one network, one process and one schema. Anything
//     else is refused with one line that says what to do.
//   - One writer and a few readers, which do not block each other. Whoever
//     owns the consensus state (Loop), strangers (Public) and the rest have
//     connections of their own, so that nobody waits for the others' reads.
//     All methods may be called from many goroutines, and inside a synctest
//     bubble. No goroutine outlives the call that started it.
//   - An error is an answer or a fault (Fatal). Faults have classes, and the
//     first one is told to whoever waits for it (Failed).
//
// It leaves to the caller: whether a value is valid (it stores what it is
// given), the order in which layers are applied and reverted, to forget what is
// old (ForgetSigned, ForgetBallots), and when to delete state.db. A call lasts as long as the disk; lists that can grow take
// a limit.
//
// # Which table follows from which
//
// Given the objects, these can be computed again: atxs (by validating ATXs in
// order of epoch), poet_proofs and ballots. Given blocks, transactions and
// certificates, executing the layers from genesis yields layers, transactions,
// tx_addresses, tx_results, rewards and accounts. Objects and certificates themselves come from peers. Nothing in
// local.db follows from anything.
package store
