#!/bin/sh
# Runs the kernels of proofs/posw on an emulated Intel processor with SHA-NI and AVX-512
# (Bochs, Cannon Lake): the instructions as Intel documents them, faults on unaligned
# operands among them. For machines that lack these instructions. It says nothing of
# speed, and takes some minutes.
#
#   scripts/emulate-intel.sh VMLINUZ
#
# VMLINUZ is a Linux kernel for PCs, such as that of Debian's linux-image-cloud-amd64.
# Needs Debian's bochs, bochsbios, bochs-term, vgabios, grub-pc-bin, grub-common, xorriso,
# mtools and cpio.
#
# The test is the first process of the machine. The kernel tells its exit status when it
# ends, since nothing is left to run then; what the test prints is not seen. It fails if
# the emulated processor has not all kernels.
set -eu
test $# = 1 || { echo "usage: $0 VMLINUZ" >&2; exit 2; }
for program in bochs-bin grub-mkrescue xorriso mformat cpio; do
	command -v "$program" >/dev/null || { echo "SKIPPED: $program is missing, nothing was tested" >&2; exit 1; }
done
dir=$(mktemp -d)
bochs= reader=
trap 'for p in $bochs $reader; do kill -9 "$p" 2>/dev/null || :; done; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
mkdir -p "$dir/iso/boot/grub"
cp "$1" "$dir/iso/vmlinuz"
CGO_ENABLED=0 GOARCH=amd64 go test -c -trimpath -ldflags '-s -w' -o "$dir/init" ./proofs/posw
(cd "$dir" && echo init | cpio -o -H newc --quiet >iso/initrd)

# Bochs describes the saved state of protection keys (515, 516) and of compact saves
# (321, 323, 324) in a way that Linux does not take: without these it takes the rest.
cat >"$dir/iso/boot/grub/grub.cfg" <<END
set timeout=0
linux /vmlinuz console=ttyS0 loglevel=5 rdinit=/init panic=-1 clearcpuid=515,516,321,323,324 mitigations=off tsc=reliable TWEEDLE_EXPECT_KERNEL=sha-ni-late+avx512 -- '-test.run=^TestEveryKernel|^FuzzKernels|^TestProofsAre|^TestAWrongKernel'
initrd /initrd
boot
END
grub-mkrescue -o "$dir/cd.iso" "$dir/iso" >/dev/null 2>&1
cat >"$dir/bochsrc" <<END
display_library: term
plugin_ctrl: unmapped=1, biosdev=1, speaker=0, serial=1
cpu: model=corei3_cnl, count=1, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
megs: 512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=$dir/cd.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$dir/serial
log: $dir/log
error: action=ignore
clock: sync=none
END
echo c >"$dir/debugger" # Debian's Bochs waits in its debugger: continue
TERM=xterm bochs-bin -q -f "$dir/bochsrc" -rc "$dir/debugger" >"$dir/out" 2>&1 </dev/null &
bochs=$!
for _ in $(seq 1800); do # seconds
	sleep 1
	if [ -z "$reader" ]; then # Bochs stops when nobody reads its screen
		screen=$(sed -n 's/^Bochs connected to screen "\(.*\)"$/\1/p' "$dir/out")
		test -z "$screen" || { cat "$screen" >/dev/null & reader=$!; }
	fi
	status=$(sed -n 's/.*Attempted to kill init! exitcode=\(0x[0-9a-f]*\).*/\1/p' "$dir/serial" 2>/dev/null | head -n 1)
	case $status in
	"") kill -0 "$bochs" 2>/dev/null || break ;;
	0x00000000) echo "ok: every kernel computes right on the emulated processor"; exit 0 ;;
	*) echo "FAIL: the test ended with $status on the emulated processor" >&2; exit 1 ;;
	esac
done
echo "FAIL: the emulated machine did not come to an end:" >&2
tail -n 5 "$dir/serial" "$dir/out" >&2
exit 1
