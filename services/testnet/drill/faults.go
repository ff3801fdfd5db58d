package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tweedle/edges/p2p"
	"tweedle/services/testnet"
)

// kill sends SIGKILL to processes at once, as any other hand would: the testnet and the
// watch learn of it by themselves.
func kill(names ...string) func(context.Context, *Stage) error {
	return func(_ context.Context, s *Stage) error {
		before := map[string]testnet.NodeStatus{}
		pids := map[string]int{}
		for _, n := range s.now().Nodes {
			before[n.Name] = n
			pids[n.Name] = n.PID
		}
		for _, p := range s.now().Poets {
			pids[p.Name] = p.PID
		}
		s.remember(func(m *memory) { m.before, m.faultAt = before, time.Now() })
		for _, name := range names {
			p, err := os.FindProcess(pids[name])
			if err == nil {
				err = p.Kill()
			}
			if err != nil {
				return fmt.Errorf("kill %s: %w", name, err)
			}
		}
		s.tl.note(fmt.Sprintf("SIGKILL to %v", names))
		return nil
	}
}

const (
	floodTimeout = 5 * time.Second  // for one stranger's visit to all nodes
	floodBound   = 45 * time.Second // for all visits but the first of each
)

// flood has strangers open sessions with every node, again when they are sent away, until
// it is enough or floodBound is over. A stranger is a host of its own: it passes the
// hello, and says nothing.
func flood(strangers int, enough func(*Stage) bool) func(context.Context, *Stage) error {
	return func(ctx context.Context, s *Stage) error {
		s.clock() // reads the network
		network := p2p.NetworkID{GenesisID: s.net.ID(), Name: s.net.Name}
		var hosts []*p2p.Host
		var runs sync.WaitGroup
		defer func() {
			for _, h := range hosts {
				h.Close()
			}
			runs.Wait()
		}()
		for range strangers {
			h, err := stranger(network)
			if err != nil {
				return err
			}
			hosts = append(hosts, h)
			failed := make(chan error, 1)
			runs.Go(func() { failed <- h.Run(ctx) })
			select {
			case <-h.Running():
			case err := <-failed:
				return errors.Join(err, ctx.Err())
			}
		}
		came, visits := 0, 0
		for end := time.Now().Add(floodBound); visits < strangers || !enough(s) && time.Now().Before(end); visits++ {
			took, err := visit(ctx, hosts[visits%strangers], s.now().Nodes)
			if err != nil {
				return err
			}
			came += took
		}
		s.tl.note(fmt.Sprintf("%d strangers asked every node %.1f times, and were let in %d times", strangers, float64(visits)/float64(strangers), came))
		sleep(ctx, time.Second) // for the last to be counted
		return nil
	}
}

func stranger(network p2p.NetworkID) (*p2p.Host, error) {
	key, err := p2p.NewKey()
	if err != nil {
		return nil, err
	}
	return p2p.New(p2p.Config{Network: network, Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, Key: key, MinPeers: 1})
}

// visit opens a session with each node and returns how many took it.
func visit(ctx context.Context, h *p2p.Host, nodes []testnet.NodeStatus) (took int, err error) {
	ctx, cancel := context.WithTimeout(ctx, floodTimeout)
	defer cancel()
	g := errgroup.Group{}
	answers := make([]bool, len(nodes))
	for i, n := range nodes {
		g.Go(func() error {
			answers[i] = h.Connect(ctx, n.P2P) == nil
			return nil
		})
	}
	_ = g.Wait() // none fails
	if ctx.Err() == context.Canceled {
		return 0, interrupted(ctx)
	}
	for _, ok := range answers {
		if ok {
			took++
		}
	}
	return took, nil
}

// ballast is the file that a PoET gives up for a proof on a full disk.
const ballast = "ballast"

// bystander is the file of a program that has nothing to do with the network.
const bystander = "bystander"

// mount gives each of the processes a file system of its own, of so many bytes. Without
// the right to it, it says so, and they have none.
func (s *Stage) mount(names []string, size int64) error {
	for _, name := range names {
		path := filepath.Join(s.dir, name)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		if err := mountMemory(path, size); err != nil {
			s.unmount()
			s.noDisk = fmt.Sprintf("a small disk cannot be mounted here (%v): run it as root", err)
			s.tl.note("NOT CHECKED: what a full disk does: " + s.noDisk)
			return nil
		}
		s.disks = append(s.disks, path)
	}
	return nil
}

func (s *Stage) unmount() {
	for _, path := range s.disks {
		if err := unmount(path); err != nil {
			s.tl.note(fmt.Sprintf("%s cannot be unmounted: %v", path, err))
		}
	}
	s.disks = nil
}

// fillDisks has a bystander take all room on the PoETs' disks.
func (s *Stage) fillDisks() error {
	for _, path := range s.disks {
		f, err := os.OpenFile(filepath.Join(path, bystander), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		written := int64(0)
		for block := make([]byte, 64<<10); len(block) > 0; {
			n, err := f.Write(block)
			written += int64(n)
			if err != nil {
				block = block[:len(block)/2]
			}
		}
		if err := f.Close(); err != nil && !errors.Is(err, io.ErrShortWrite) {
			return err
		}
		s.tl.note(fmt.Sprintf("a bystander takes the last %d KiB of the disk of %s", written>>10, filepath.Base(path)))
	}
	return nil
}

// freeDisks has the operator take the bystander's files away.
func (s *Stage) freeDisks() error {
	for _, path := range s.disks {
		if err := os.Remove(filepath.Join(path, bystander)); err != nil {
			return err
		}
	}
	if len(s.disks) > 0 {
		s.tl.note("the operator takes the bystander's files away")
	}
	return nil
}

// poetBytes returns the size of all files of the PoETs, but for what they hold back.
func (s *Stage) poetBytes() (n int64) {
	for _, p := range s.now().Poets {
		_ = filepath.WalkDir(filepath.Join(s.dir, p.Name), func(_ string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() == bystander || d.Name() == ballast {
				return nil // it may have gone just now
			}
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
			return nil
		})
	}
	return n
}
