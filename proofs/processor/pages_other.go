//go:build !linux

package processor

// PreferHugePages asks the system for huge pages where v is. Not written for this system.
func PreferHugePages[T any](v []T) {}
