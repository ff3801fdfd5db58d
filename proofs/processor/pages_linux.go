package processor

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// PreferHugePages asks the system for huge pages where v is, as far as they lie in it
// whole. Large memory that is read in no order is slow without: a page of 4 KiB would be
// sought in the page tables nearly every time. The system may decline.
func PreferHugePages[T any](v []T) {
	const huge = 2 << 20
	size := int(unsafe.Sizeof(*new(T))) * len(v)
	if size < 2*huge {
		return
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), size)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(v))) % huge)
	_ = unix.Madvise(b[skip:][:(size-skip)/huge*huge], unix.MADV_HUGEPAGE)
}
