package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tweedle/base/durable"
	"tweedle/protocol/activation"
	"tweedle/values/codec"
)

// maxEvidence bounds the file of `poet evidence`, in bytes.
const maxEvidence = 1<<20 + 32*activation.MaxOmissionMembers

// poetEvidence verifies what a node wrote down about a PoET that left it out.
func poetEvidence() *cobra.Command {
	return &cobra.Command{
		Use:   "evidence FILE",
		Short: "Verify a node's evidence that a PoET signed for a registration and left it out",
		Long: "Verify a node's evidence that a PoET signed for a registration and left it out of its round: the receipt, the round's proof of work\n" +
			"and its members. PoETs do not sign proofs, so make sure that nodes know the printed proof as that of the round.",
		Example: "  tweedle poet evidence ~/node/evidence/cafe000000000001-17.omission",
		Args:    exactArgs(1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := durable.ReadFile(durable.OS{}, args[0], maxEvidence)
			if err != nil {
				return err
			}
			var o activation.Omission
			if err := codec.Decode(b, &o); err != nil {
				return fmt.Errorf("%s is not evidence: %w", args[0], err)
			}
			if err := o.Verify(); err != nil {
				return fmt.Errorf("%s shows nothing: %w", args[0], err)
			}
			r := &o.Receipt
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "PoET %s signed on %s that challenge %s of smesher %s is in its round %s.\n"+
				"It is not among the %d members that proof %s covers.\n",
				r.PoetID, r.Time.UTC().Format(time.RFC3339), r.Challenge, r.NodeID, r.Round, len(o.Members), o.Proof.Proof.Ref())
			return err
		},
	}
}
