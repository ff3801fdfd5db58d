package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tweedle/edges/smeshing"
	"tweedle/edges/store"
	"tweedle/protocol/activation"
	"tweedle/protocol/core"
	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// anIdentity makes the folder of one, with a key, as "tweedle post init" does.
func anIdentity(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := smeshing.Key(filepath.Join(dir, "identity.key"), filepath.Join(dir, "post")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// published fails unless each identity has published in each of some epochs, as node 1 knows.
func (b *bubble) published(from, to types.Epoch, ids ...types.NodeID) {
	b.t.Helper()
	for epoch := from; epoch < to; epoch++ {
		atxs, err := b.nodes[1].db.EpochATXs(epoch)
		if err != nil {
			b.t.Fatal(err)
		}
		have := make(map[types.NodeID]int)
		for _, id := range atxs {
			record, err := b.nodes[1].db.ATXRecord(id)
			if err != nil {
				b.t.Fatal(err)
			}
			have[record.Smesher]++
		}
		for i, id := range ids {
			if have[id] != 1 {
				b.t.Errorf("identity %d has %d ATXs in epoch %d", i, have[id], epoch)
			}
		}
		if len(have) != len(ids) {
			b.t.Errorf("epoch %d has ATXs of %d smeshers, want %d", epoch, len(have), len(ids))
		}
	}
}

// A node with two identities: both publish, propose and sign, nobody takes them for one that
// does so twice, and the guard has a place for each. A restart keeps the records; the space of
// one is damaged then, and the other goes on; mended, both do.
func TestANodeWithTwoIdentities(t *testing.T) {
	dirs := t.TempDir()
	inBubble(t, func(t *testing.T) {
		b := newBubble(t, "several")
		b.startPoet()
		n := b.join(filepath.Join(dirs, "a"))
		n.cfg.Identities = []string{anIdentity(t, filepath.Join(dirs, "second"))}
		b.start(n)
		b.add(filepath.Join(dirs, "b"))
		ours := []types.NodeID{n.identities[0].NodeID(), n.identities[1].NodeID()}
		others := b.nodes[1].identities[0].NodeID()
		b.until(4, 0)
		b.same(n.schedule.First(4) - 2)
		b.published(1, 4, ours[0], ours[1], others)
		ballots, signatures := make(map[types.NodeID]types.Layer), make(map[types.NodeID]int)
		layers, err := b.nodes[1].db.BlockLayers(0, store.MaxPage)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			all, err := b.nodes[1].db.LayerBallots(l.Layer)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range all {
				ballot, err := b.nodes[1].db.Ballot(id)
				if err != nil {
					t.Fatal(err)
				}
				ballots[ballot.Smesher] = l.Layer
			}
			for _, id := range ours { // a certificate need not have all who signed
				if err := n.db.Guard(signing.Certify, id, uint64(l.Layer), types.Hash32{1}); errors.Is(err, store.ErrConflict) {
					signatures[id]++
				}
			}
		}
		for i, id := range ours {
			if ballots[id] == 0 || signatures[id] == 0 {
				t.Errorf("identity %d: newest ballot in layer %d, %d signatures", i, ballots[id], signatures[id])
			}
			if err := n.db.Guard(signing.Ballot, id, uint64(ballots[id]), types.Hash32{1}); !errors.Is(err, store.ErrConflict) {
				t.Errorf("identity %d: a second ballot in a layer: %v", i, err)
			}
		}
		for _, node := range b.nodes {
			if evil, err := (store.Core{Reader: node.db.Reader}).Malicious(); err != nil || len(evil) != 0 {
				t.Errorf("malicious are %v, %v", evil, err)
			}
		}
		st := n.Status()
		if st.NodeID != ours[0].String() || len(st.Others) != 1 || st.Others[0].NodeID != ours[1].String() || st.Others[0].ATXEpoch == nil || *st.Others[0].ATXEpoch != 3 || st.IdentityElsewhere {
			t.Errorf("the status is %+v", st)
		}
		screen, ok, err := n.Smesher()
		if err != nil || !ok || len(screen.Others) != 1 || len(screen.Slots)+len(screen.Others[0].Slots) == 0 {
			t.Errorf("the screen is %+v, %v", screen, err)
		}

		// A restart keeps both records.
		records := func() (out [2]activation.Record) {
			for i, id := range ours {
				if err := n.db.LoadStep(id, "smesher", &out[i]); err != nil {
					t.Fatal(err)
				}
			}
			return out
		}
		before := records()
		b.stop(n)
		space := filepath.Join(dirs, "second", "post")
		if err := os.Rename(space, space+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(space, space); err != nil { // it cannot be read, by nobody
			t.Fatal(err)
		}
		b.start(n)
		for i, r := range records() {
			if r.Last != before[i].Last || r.Last.IsZero() || r.Space == nil || r.Space.VRFNonce != before[i].Space.VRFNonce {
				t.Errorf("identity %d had the record %+v, and has %+v", i, before[i], r)
			}
		}
		if got := n.Status().Others; len(got) != 1 || got[0].Smesher.Error == "" {
			t.Errorf("the status is %+v", got)
		}
		b.until(7, 0)
		b.published(5, 7, ours[0], others)
		b.same(n.schedule.First(7) - 2)

		if err := errors.Join(os.Remove(space), os.Rename(space+".away", space)); err != nil {
			t.Fatal(err)
		}
		b.until(10, 0)
		b.published(9, 10, ours[0], ours[1], others)
		b.same(n.schedule.First(10) - 2)
		b.close()
	})
}

// Both would sign with one key: that is said at start, in one line.
func TestTheSameKeyTwiceIsRefusedAtStart(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "node"))
	cfg.Smeshing, cfg.Coinbase, cfg.Poets = true, stillNetworkCoinbase(), []string{"http://127.0.0.1:1"}
	second := anIdentity(t, filepath.Join(t.TempDir(), "second"))
	for _, identities := range [][]string{{second, second}, {cfg.Dir}} {
		cfg.Identities = identities
		n, err := Open(cfg)
		if err == nil {
			n.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "have the same key") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v", identities, err)
		}
	}
	cfg.Identities = []string{second}
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
}

// Somebody sends what one of two identities signed and this copy does not know: that one signs
// nothing until it is safe, also after a restart, and the other goes on. An old local.db is of both.
func TestADoubtOfOneIdentityDoesNotStopTheOther(t *testing.T) {
	cfg := config(filepath.Join(t.TempDir(), "node"))
	cfg.Smeshing, cfg.Coinbase, cfg.Poets = true, stillNetworkCoinbase(), []string{"http://127.0.0.1:1"}
	cfg.Identities = []string{anIdentity(t, filepath.Join(t.TempDir(), "second"))}
	var old []byte
	layer := uint64(stillLayer)
	for start := range 3 {
		n, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		first, second := n.identities[0], n.identities[1]
		switch start {
		case 0:
			if err := n.db.Guard(signing.Ballot, first.NodeID(), layer, types.Hash32{1}); err != nil {
				t.Fatal(err)
			}
			n.seen(core.OwnSeen{Smesher: first.NodeID(), Slot: core.Slot{Domain: signing.Ballot, Place: uint64(stillLayer), Hash: types.Hash32{1}}}) // it is ours
			n.seen(core.OwnSeen{Smesher: second.NodeID(), Slot: core.Slot{Domain: signing.Ballot, Place: uint64(stillLayer), Hash: types.Hash32{1}}})
			fallthrough
		case 1:
			if first.trustIn != 0 || second.trustIn != n.epoch()+2 {
				t.Errorf("start %d: they sign again in epochs %d and %d", start, first.trustIn, second.trustIn)
			}
			if err := n.db.Guard(signing.Ballot, first.NodeID(), layer+1+uint64(start), types.Hash32{1}); err != nil {
				t.Error(err)
			}
			if err := n.db.Guard(signing.Ballot, second.NodeID(), layer+1, types.Hash32{1}); !errors.Is(err, store.ErrRolledBack) {
				t.Errorf("the guard says %v", err)
			}
			if start == 0 {
				break
			}
			if err := n.trust(n.schedule.EpochStart(second.trustIn)); err != nil {
				t.Fatal(err)
			}
			if err := n.db.Guard(signing.Ballot, second.NodeID(), layer+1, types.Hash32{1}); err != nil {
				t.Error(err)
			}
		case 2: // what was signed since the first end is lost
			if first.trustIn != n.epoch()+2 || second.trustIn == 0 {
				t.Errorf("with an old local.db they sign again in epochs %d and %d", first.trustIn, second.trustIn)
			}
		}
		tip := n.snapshot.Load().Tip.Layer // with the next layer state.db gets to know how much was signed
		if err := n.db.Apply(store.LayerResult{Layer: tip + 1, Base: tip, Outcome: vm.Outcome{State: n.state()}}); err != nil {
			t.Fatal(err)
		}
		n.Close()
		path := filepath.Join(cfg.Dir, "local.db")
		switch start {
		case 0:
			old, err = os.ReadFile(path)
		case 1:
			err = os.WriteFile(path, old, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
