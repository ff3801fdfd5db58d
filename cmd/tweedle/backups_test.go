package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tweedle/edges/store"
	"tweedle/protocol/registration"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// backups is how many are made: some, and fifty in the night.
func backups() int {
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		return 50
	}
	return 3
}

// smesherOf is the key and the challenge of one of many smeshers.
func smesherOf(i uint64) (ed25519.PrivateKey, []byte) {
	seed := binary.BigEndian.AppendUint64(make([]byte, ed25519.SeedSize-8), i)
	return ed25519.NewKeyFromSeed(seed), binary.BigEndian.AppendUint64(bytes.Repeat([]byte{7}, 24), i)
}

// submit registers a smesher, from any goroutine, and returns its round; none if the server did not take it.
func submit(base string, i uint64) (round string, err error) {
	res, err := http.Get(base + "/v1/pow_params")
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var pow struct {
		PowParams struct{ Challenge []byte }
	}
	if err := json.NewDecoder(res.Body).Decode(&pow); err != nil {
		return "", err
	}
	key, challenge := smesherOf(i)
	public := key.Public().(ed25519.PublicKey)
	nonce, _ := registration.SolvePow(registration.PowParams{Challenge: pow.PowParams.Challenge}, public, challenge, 1)
	text := base64.StdEncoding.EncodeToString
	body := fmt.Sprintf(`{"nonce":"%d","powParams":{"challenge":%q},"challenge":%q,"pubkey":%q,"signature":%q}`,
		nonce, text(pow.PowParams.Challenge), text(challenge), text(public), text(ed25519.Sign(key, challenge)))
	answer, err := http.Post(base+"/v1/submit", "application/json", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", nil
	}
	var out struct{ RoundID string }
	err = json.NewDecoder(answer.Body).Decode(&out)
	return out.RoundID, err
}

// unpacked restores a backup in another folder.
func unpacked(t *testing.T, file string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-xpf", file, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// proofsOf reads the proofs that a server has stored, by round.
func proofsOf(t *testing.T, base, dir string) map[string]string {
	t.Helper()
	var list struct {
		Proofs []struct {
			Round string `json:"round_id"`
		}
	}
	if err := json.Unmarshal([]byte(mustTweedle(t, "poet", "proofs", "list", "--dir", dir, "--json")), &list); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, p := range list.Proofs {
		status, b := fetch(t, http.MethodGet, base+"/v1/proofs/"+p.Round, nil)
		if status != http.StatusOK {
			t.Fatalf("round %s: %d %s", p.Round, status, b)
		}
		all[p.Round] = string(b)
	}
	return all
}

// A PoET is backed up while smeshers register as fast as it takes them and rounds of two
// seconds end. Each backup, restored, is the same server: its name, each proof that was stored and
// each registration that was acknowledged before the backup was begun.
func TestABackupUnderLoadOfAPoet(t *testing.T) {
	dir, shelf := filepath.Join(t.TempDir(), "poet"), t.TempDir()
	short := []string{"--genesis-time=2026-01-01T00:00:00Z", "--epoch-duration=2s", "--phase-shift=1s", "--cycle-gap=1s",
		"--max-leaves-per-second=1000", "--rate-limit=0", "--key-rate=0"}
	e, stop := poetServer(t, dir, short...)
	base := "http://" + e.REST
	var mu sync.Mutex // guards what was acknowledged
	acknowledged := map[string][]uint64{}
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() {
		for i := uint64(0); ctx.Err() == nil; {
			round, err := submit(base, i)
			if err != nil {
				t.Error(err)
				return
			}
			if round != "" {
				mu.Lock()
				acknowledged[round] = append(acknowledged[round], i)
				mu.Unlock()
				i++
			}
		}
	})
	defer load.Wait()
	defer cancel()
	_, name := fetch(t, http.MethodGet, base+"/v1/info", nil)
	var id struct{ ServicePubkey []byte }
	if err := json.Unmarshal(name, &id); err != nil || len(id.ServicePubkey) == 0 {
		t.Fatalf("%v: %s", err, name)
	}
	for n := range backups() {
		proofs := proofsOf(t, base, dir)
		for ; n == 0 && len(proofs) < 2; proofs = proofsOf(t, base, dir) { // there is something to keep
			time.Sleep(100 * time.Millisecond)
		}
		mu.Lock()
		before := maps.Clone(acknowledged)
		mu.Unlock()
		file := filepath.Join(shelf, strconv.Itoa(n)+".tar")
		mustTweedle(t, "poet", "backup", "--dir", dir, "--out", file)
		restored := unpacked(t, file)
		again, end := poetServer(t, restored, short...)
		var other struct{ ServicePubkey []byte }
		if _, b := fetch(t, http.MethodGet, "http://"+again.REST+"/v1/info", nil); json.Unmarshal(b, &other) != nil || !bytes.Equal(other.ServicePubkey, id.ServicePubkey) {
			t.Fatalf("backup %d: the server is %x, it was %x", n, other.ServicePubkey, id.ServicePubkey)
		}
		var list struct {
			Rounds []struct {
				ID      string
				Members int
			}
		}
		if err := json.Unmarshal([]byte(mustTweedle(t, "poet", "rounds", "--dir", restored, "--json")), &list); err != nil {
			t.Fatal(err)
		}
		members := map[string]int{}
		for _, r := range list.Rounds {
			members[r.ID] = r.Members
		}
		after := proofsOf(t, "http://"+again.REST, restored)
		for round, p := range proofs {
			if after[round] != p {
				t.Errorf("backup %d: the proof of round %s is not what it was", n, round)
			}
		}
		for round, smeshers := range before {
			if after[round] == "" && members[round] < len(smeshers) {
				t.Errorf("backup %d: round %s has %d members, %d were acknowledged before it was made", n, round, members[round], len(smeshers))
			}
			for _, i := range smeshers {
				if _, challenge := smesherOf(i); after[round] != "" && !strings.Contains(after[round], base64.StdEncoding.EncodeToString(challenge)) {
					t.Errorf("backup %d: the proof of round %s leaves a smesher out", n, round)
				}
			}
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.RemoveAll(restored), os.Remove(file)); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	load.Wait()
	registered := 0
	for _, smeshers := range acknowledged {
		registered += len(smeshers)
	}
	t.Logf("%d backups, %d registrations, %d proofs", backups(), registered, len(proofsOf(t, base, dir)))
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A node is backed up while it signs as fast as its disk takes it. Each backup, restored, has its
// keys and every signature that was allowed before the backup was begun, and signs nothing at first.
func TestABackupUnderLoadOfANode(t *testing.T) {
	dir, shelf := t.TempDir(), t.TempDir()
	network, me := types.GenesisID{1}, types.NodeID{2}
	db, err := store.Open(dir, network)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"identity.key", "p2p.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hash := func(slot uint64) types.Hash32 {
		return types.Hash32(binary.BigEndian.AppendUint64(make([]byte, 24), slot))
	}
	var signed atomic.Uint64
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() {
		for slot := uint64(1); ctx.Err() == nil; slot++ {
			if err := db.Guard(signing.Ballot, me, slot, hash(slot)); err != nil {
				t.Error(err)
				return
			}
			signed.Store(slot)
		}
	})
	for n := range backups() {
		for signed.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		before, file := signed.Load(), filepath.Join(shelf, strconv.Itoa(n)+".tar")
		if _, lost, err := backupNode(dir, file); err != nil || lost != nil {
			t.Fatal(err, lost)
		}
		restored := unpacked(t, file)
		for _, name := range []string{"identity.key", "p2p.key"} {
			if b, err := os.ReadFile(filepath.Join(restored, name)); err != nil || string(b) != name {
				t.Errorf("backup %d: %s holds %q, %v", n, name, b, err)
			}
		}
		again, err := store.Open(restored, network)
		if err != nil {
			t.Fatal(err)
		}
		// It knows what was signed: of that, and of what comes, it signs nothing.
		if err := again.Guard(signing.Ballot, me, before, types.Hash32{9}); err == nil {
			t.Errorf("backup %d: it signs another thing in slot %d", n, before)
		}
		if err := again.Guard(signing.Ballot, me, 1<<40, hash(1)); !errors.Is(err, store.ErrRolledBack) {
			t.Errorf("backup %d: a node from it signs: %v", n, err)
		}
		if err := again.TrustLocal(me); err != nil { // its epoch is over
			t.Fatal(err)
		}
		for _, slot := range []uint64{1, (before + 1) / 2, before} {
			if err := again.Guard(signing.Ballot, me, slot, types.Hash32{9}); !errors.Is(err, store.ErrConflict) {
				t.Errorf("backup %d: of slot %d, signed before it was made, it says %v", n, slot, err)
			}
		}
		if err := errors.Join(again.Close(), os.RemoveAll(restored), os.Remove(file)); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	load.Wait()
	t.Logf("%d backups, %d signatures", backups(), signed.Load())
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
