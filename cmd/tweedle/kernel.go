package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tweedle/proofs/post"
	"tweedle/proofs/posw"
)

// kernelVar chooses the kernels of every command that computes or verifies sequential
// work or space, where no flag does.
const kernelVar = "TWEEDLE_KERNEL"

// registerKernel registers the flag that chooses the kernels.
func registerKernel(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "kernel", "", "kernel of SHA-256 (see \"tweedle poet bench\"), of space, or both with a comma, such as \"sha-ni,avx2\"; \"portable\" is for both (default the fastest that a short measurement finds, or "+kernelVar+")")
}

// useKernel chooses the kernels of this process: the named ones, else those of the
// environment, else the fastest. It comes before anything is computed.
func useKernel(names string) error {
	if names == "" {
		names = os.Getenv(kernelVar)
	}
	if names == "" {
		return nil
	}
	var work, space string // the last that is named for each
	for _, name := range strings.Split(names, ",") {
		forWork, forSpace := slices.Contains(posw.Kernels(), name), slices.Contains(post.Kernels(), name)
		if !forWork && !forSpace {
			return usageError{fmt.Errorf("no kernel %q runs on this processor, choose of SHA-256: %s; of space: %s",
				name, strings.Join(posw.Kernels(), ", "), strings.Join(post.Kernels(), ", "))}
		}
		if forWork {
			work = name
		}
		if forSpace {
			space = name
		}
	}
	if work != "" {
		if err := posw.UseKernel(work); err != nil {
			return usageError{err}
		}
	}
	if space != "" {
		if err := post.UseKernel(space); err != nil {
			return usageError{err}
		}
	}
	return nil
}
