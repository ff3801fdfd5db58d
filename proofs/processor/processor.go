// Package processor tells which of the instructions that kernels need this processor
// has, and asks for the memory that they are fast on. It promises not to name an
// instruction that faults, and to change nothing that is computed; it leaves it to the
// caller to test what kernels compute.
package processor

// Features is what processor and operating system support of what kernels for x86 need.
// AES is that with AVX encodings, VAES that on 32 bytes.
type Features struct{ SHA, AVX2, AVX512, AES, VAES bool }
