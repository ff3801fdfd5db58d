package processor

// Ticks is a clock that runs on at an even pace, whatever its unit. It is for comparing
// kernels, and nothing that is computed may depend on it. Some processors count only
// every 40 ns.
func Ticks() uint64 { return cntvct() }

func cntvct() uint64
