package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tweedle/edges/preset"
	"tweedle/edges/smeshing"
	"tweedle/edges/store"
	"tweedle/services/node"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// A backup of a node that runs has its keys and what it has signed; a node that starts
// from it signs nothing at first. What is not there is left out, and nothing is replaced.
func TestABackupOfANode(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "backup.tar")
	network, me := types.GenesisID{1}, types.NodeID{2}
	db, err := store.Open(dir, network)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Guard(signing.ATX, me, 3, types.Hash32{4}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"identity.key", "p2p.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	size, lost, err := backupNode(dir, out)
	if lost != nil {
		t.Error(lost)
	}
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(out); err != nil || info.Size() != size || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, said to have %d bytes", info, err, size)
	}
	if names, want := inTar(t, out), []string{"local.db", "p2p.key", "identity.key"}; !slices.Equal(names, want) {
		t.Errorf("it holds %v, want %v", names, want)
	}
	restored := t.TempDir()
	if said, err := exec.Command("tar", "-xpf", out, "-C", restored).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	again, err := store.Open(restored, network)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Guard(signing.ATX, me, 9, types.Hash32{9}); !errors.Is(err, store.ErrRolledBack) {
		t.Errorf("a node from a backup signs: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), ".tweedle-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, c := range []struct{ dir, out, want string }{
		{dir, out, "is never overwritten"},
		{t.TempDir(), filepath.Join(t.TempDir(), "x"), "local.db"},
		{dir, filepath.Join(t.TempDir(), "missing", "x"), "no such file"},
	} {
		if _, _, err := backupNode(c.dir, c.out); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.out, err, c.want)
		}
	}
}

// smeshingNode is what a node that smeshes with some more identities is told. It talks to nobody.
func smeshingNode(network, dir string, identities ...string) (node.Config, error) {
	n, err := preset.Load(network)
	return node.Config{
		Network: n, Dir: dir, Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"},
		Smeshing: true, Coinbase: types.Address{23: 1}, Poets: []string{"http://127.0.0.1:1"}, Identities: identities,
	}, err
}

// signs tells why an identity does not sign with the local.db of a folder.
func signs(t *testing.T, network, dir string, id types.NodeID) error {
	t.Helper()
	n, err := preset.Load(network)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(dir, n.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	return db.Guard(signing.ATX, id, 3, types.Hash32{4})
}

// A backup of a node with several identities has the key of each, what describes its space,
// and what it has signed, without being told where they are. Restored, with the labels
// beside them, all smesh, and none signs at first. One whose disk is gone is missed aloud, and
// the others are backed up.
func TestABackupHasAllIdentities(t *testing.T) {
	at := t.TempDir()
	network, dir, out := filepath.Join(at, "network.json"), filepath.Join(at, "node"), filepath.Join(at, "backup.tar")
	mustTweedle(t, "network", "new", "--preset", "test", "--out", network)
	others := []string{filepath.Join(at, "disk2"), filepath.Join(at, "disk3")}
	for _, d := range append([]string{dir}, others...) {
		mustTweedle(t, "post", "init", "--network", network, "--dir", filepath.Join(d, "post"), "--key", filepath.Join(d, "identity.key"))
	}
	ids := func(dir string, others ...string) (ids []string) {
		t.Helper()
		cfg, err := smeshingNode(network, dir, others...)
		if err != nil {
			t.Fatal(err)
		}
		n, err := node.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		st := n.Status()
		ids = []string{st.NodeID}
		for _, o := range st.Others {
			ids = append(ids, o.NodeID)
			if o.Smesher.Error != "" {
				t.Errorf("%s: %s", o.NodeID, o.Smesher.Error)
			}
		}
		return ids
	}
	before := ids(dir, others...)
	second := smeshing.Other(types.GenesisID{}, others[0]).Signer.NodeID()
	if err := signs(t, network, dir, second); err != nil {
		t.Fatal(err)
	}
	if said := mustTweedle(t, "node", "backup", "--dir", dir, "--out", out); !strings.Contains(said, "to restore it") {
		t.Error(said)
	}
	restored := filepath.Join(at, "restored")
	if err := os.Mkdir(restored, 0o700); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command("tar", "-xpf", out, "-C", restored).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	var again []string
	for i, d := range append([]string{dir}, others...) {
		to := restored
		if i > 0 {
			id, err := hex.DecodeString(before[i])
			if err != nil {
				t.Fatal(err)
			}
			to = filepath.Join(restored, smeshing.OthersFolder, types.NodeID(id).Short())
			again = append(again, to)
		}
		for _, name := range []string{"identity.key", "post/postdata_metadata.json"} {
			was, err := os.ReadFile(filepath.Join(d, name))
			if err != nil {
				t.Fatal(err)
			}
			if is, err := os.ReadFile(filepath.Join(to, name)); err != nil || !bytes.Equal(was, is) {
				t.Errorf("%s of identity %d is not what it was: %v", name, i, err)
			}
		}
		if err := os.Rename(filepath.Join(d, "post", "postdata_0.bin"), filepath.Join(to, "post", "postdata_0.bin")); err != nil {
			t.Fatal(err)
		}
	}
	if after := ids(restored, again...); !slices.Equal(before, after) {
		t.Errorf("the identities were %v, and are %v", before, after)
	}
	if err := signs(t, network, restored, second); !errors.Is(err, store.ErrRolledBack) {
		t.Errorf("an identity from a backup signs: %v", err)
	}

	// Its disk is gone.
	if err := os.Rename(others[1], others[1]+".gone"); err != nil {
		t.Fatal(err)
	}
	without := filepath.Join(at, "without.tar")
	if said := refused(t, false, "node", "backup", "--dir", dir, "--out", without); !strings.Contains(said, others[1]) || !strings.Contains(said, "without an identity") || strings.Contains(said, "\n") {
		t.Error(said)
	}
	if names := inTar(t, without); len(names) != 6 || !slices.Contains(names, filepath.Join(smeshing.OthersFolder, second.Short(), "identity.key")) {
		t.Errorf("it holds %v", names)
	}
	// A node that is started without them has none.
	_ = ids(dir)
	one := filepath.Join(at, "one.tar")
	mustTweedle(t, "node", "backup", "--dir", dir, "--out", one)
	if names := inTar(t, one); len(names) != 4 {
		t.Errorf("it holds %v", names)
	}
}
