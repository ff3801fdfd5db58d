// Package gatewaypb is generated from api/proto/spacemesh/v1/gateway.proto: how
// a PoET server hands its proofs to the network.
package gatewaypb
