package main

import (
	"os"

	"github.com/spf13/cobra"

	"tweedle/proofs/posw"
)

// kernelVar chooses the SHA-256 kernel of every command that computes or verifies
// sequential work, where no flag does.
const kernelVar = "TWEEDLE_KERNEL"

// registerKernel registers the flag that chooses the kernel.
func registerKernel(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "kernel", "", "SHA-256 kernel, see \"tweedle poet bench\" (default the fastest that a short measurement finds, or "+kernelVar+")")
}

// useKernel chooses the kernel of this process: the named one, else that of the
// environment, else the fastest. It comes before anything is computed.
func useKernel(name string) error {
	if name == "" {
		name = os.Getenv(kernelVar)
	}
	if name == "" {
		return nil
	}
	if err := posw.UseKernel(name); err != nil {
		return usageError{err}
	}
	return nil
}
