// Package processor tells which of the instructions that kernels need this processor
// has. It promises not to name one that faults; it leaves it to the caller to test what
// kernels compute.
package processor

// Features is what processor and operating system support of what kernels for x86 need.
// AES is that with AVX encodings, VAES that on 32 bytes.
type Features struct{ SHA, AVX2, AVX512, AES, VAES bool }
