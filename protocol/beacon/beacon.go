// Package beacon gives each epoch its randomness, by the published protocol
// (reference/protocol.md A7; docs/decisions/0012 says where it differs, and how long it takes).
//
// Machine finds a beacon, Ballots learns one from those who found it, Fallback is that of an epoch
// for which nobody proposed. It leaves to the caller: who takes part; to check
// messages before they are heard; to sign each vote once; to keep what was found.
package beacon
