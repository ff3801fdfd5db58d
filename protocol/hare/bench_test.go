package hare

import (
	"fmt"
	"testing"

	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"

	"tweedle/values/signing"
	"tweedle/values/types"
)

// What a node checks of the messages of a round in which 400 smeshers are for a set of 50 proposals: the signature,
// which is checked before the machine hears a message, and the proof of seats, a VRF, which it has checked.
// Signatures are checked at once, too: all with one equation. Proofs of seats cannot be. Such a proof is a hash
// of two points that whoever checks computes from it; there is no equation between points that could be added up.
func BenchmarkMessagesAreVerified(b *testing.B) {
	const smeshers, proposals = 400, 50
	params := Params{Committee: 400, Leaders: 5, Iterations: 4}
	draw := Draw{Layer: 7, Beacon: types.Beacon{1}, Total: smeshers}
	verifier := signing.NewVerifier(types.GenesisID{})
	var messages []*Message
	set := make([]types.ProposalID, proposals)
	for i := range set {
		set[i] = types.ProposalID{byte(i)}
	}
	for i := 0; len(messages) < smeshers; i++ {
		s, err := signing.NewSigner(signing.SeedFrom(fmt.Sprint(i)), types.GenesisID{})
		if err != nil {
			b.Fatal(err)
		}
		m := &Message{Layer: draw.Layer, Round: Preround, Smesher: s.NodeID(), Set: set, Proof: s.VRF(draw.Input(Preround))}
		if _, err := m.Seats(params, draw, 1, signing.VerifyVRF); err != nil {
			continue // it has none in this round
		}
		m.Signature = s.Sign(signing.Hare, SignedBytes(m.Layer, m.Round, m.Says()))
		messages = append(messages, m)
	}
	signature := func(m *Message) error { return m.Validate(params, verifier) }
	seats := func(m *Message) error {
		_, err := m.Seats(params, draw, 1, signing.VerifyVRF)
		return err
	}
	for _, c := range []struct {
		name   string
		checks []func(*Message) error
	}{{"signature", []func(*Message) error{signature}}, {"seats", []func(*Message) error{seats}}, {"both", []func(*Message) error{signature, seats}}} {
		b.Run(c.name, func(b *testing.B) {
			for i := range b.N {
				for _, check := range c.checks {
					if err := check(messages[i%smeshers]); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
	for _, size := range []int{8, 64, 400} {
		b.Run(fmt.Sprint("signatures-at-once-", size), func(b *testing.B) {
			for range b.N {
				batch := ed25519.NewBatchVerifierWithCapacity(size)
				for _, m := range messages[:size] {
					// As signing.Verifier has it: prefix of the network, domain, message.
					text := append(make([]byte, len(types.GenesisID{}), 128), byte(signing.Hare))
					batch.Add(m.Smesher[:], append(text, SignedBytes(m.Layer, m.Round, m.Says())...), m.Signature[:])
				}
				if !batch.VerifyBatchOnly(nil) {
					b.Fatal("a signature is wrong")
				}
			}
			b.ReportMetric(float64(size*b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
