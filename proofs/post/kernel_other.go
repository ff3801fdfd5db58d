//go:build !amd64 && !arm64

package post

// labelKernels returns the kernels for labels that this processor can run: only the
// portable one is written for it.
func labelKernels() []labelKernel { return []labelKernel{portableLabels} }

// scanKernels returns those for scanning: likewise.
func scanKernels() []scanKernel { return []scanKernel{portableScan} }
