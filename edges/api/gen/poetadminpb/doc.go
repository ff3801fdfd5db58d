// Package poetadminpb is generated from api/proto/tweedle/poet/v1: the PoET
// server's admin API.
package poetadminpb
