package drill

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"tweedle/services/testnet"
)

// insideVariable says that the program runs in a network of its own.
const insideVariable = "TWEEDLE_DRILL_INSIDE"

// Enter starts the program anew in a network of its own, if the drill drops packets: it
// takes the packet filter with it when it ends, however that is. It returns at once when
// that is not needed or has been done.
func Enter(s Script) error {
	if !s.Cuts || os.Getenv(insideVariable) != "" {
		return nil
	}
	needs := func(err error) error {
		return fmt.Errorf("drill %s drops packets between nodes (%w): run it as root, with nft installed (package nftables)", s.Name, err)
	}
	if _, err := exec.LookPath("nft"); err != nil {
		return needs(err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // what starts anew is this thread, and its network
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return needs(fmt.Errorf("a network of its own: %w", err))
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, append(os.Environ(), insideVariable+"=1"))
}

// loopbackUp switches on the loopback of a new network.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("the loopback of a new network: %w", err)
	}
	return nil
}

// cut drops what two parts of the nodes send each other, until join.
func (s *Stage) cut(one, other []string) error {
	a, b := ports(s.nodes(one)), ports(s.nodes(other))
	if a == "" || b == "" {
		return errors.New("the nodes that are to be parted do not run")
	}
	return nft(fmt.Sprintf("table inet drill { chain in { type filter hook input priority 0; udp sport {%[1]s} udp dport {%[2]s} drop; udp sport {%[2]s} udp dport {%[1]s} drop; }; }", a, b))
}

// join lets everything through again.
func (s *Stage) join() error { return nft("delete table inet drill") }

func nft(command string) error {
	if out, err := exec.Command("nft", command).CombinedOutput(); err != nil {
		return fmt.Errorf("nft %s: %w: %s", command, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ports returns where nodes hear their peers, as nft lists them.
func ports(nodes []testnet.NodeStatus) string {
	var out []string
	for _, n := range nodes {
		_, rest, _ := strings.Cut(n.P2P, "/udp/")
		if port, _, ok := strings.Cut(rest, "/"); ok {
			out = append(out, port)
		}
	}
	return strings.Join(out, ",")
}
