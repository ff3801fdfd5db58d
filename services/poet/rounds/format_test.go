package rounds

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"tweedle/protocol/registration"
	"tweedle/services/poet"
)

// A data directory of format 1 goes on where it was: testdata/format1 was written by
// a server of that format, for members 0 to 2 in round 0, which is proved, 10 and 11
// in round 1, which executes, and 20 in round 2, which is open, under difficulty 5.
func TestADirectoryOfFormat1GoesOn(t *testing.T) {
	const challenge = "405225116f5ad0bf6507ad82ae14b39bcacdaad808378565cd0d4f48b68c8063"
	synctest.Test(t, func(t *testing.T) {
		cfg := config(t, time.Now())
		cfg.Work.LeavesPerSecond, cfg.Work.MaxLeavesPerSecond = 200, 200
		files := map[string][]byte{"rounds/reserve": make([]byte, 1000)}
		for name, from := range map[string]string{"poet.db": "poet.db", "identity.key": "identity.key", "rounds/1.journal": "1.journal"} {
			files[name] = unzip(t, filepath.Join("testdata", "format1", from+".gz"))
		}
		writeTree(t, cfg.Dir, files)
		time.Sleep(time.Until(cfg.Schedule.Start(1)) + 1500*time.Millisecond)
		cfg.PowDifficulty = 6
		for range 2 { // as format 1, and as what was made of it
			s := start(t, cfg)
			if p := s.PowParams(); hex.EncodeToString(p.Challenge) != challenge || s.Info().OpenRound != "2" {
				t.Fatalf("challenge %x, open round %s", p.Challenge, s.Info().OpenRound)
			}
			if p := s.checkProof("0"); len(p.Members) != 3 {
				t.Fatalf("%d members of round 0", len(p.Members))
			}
			if _, err := s.Member(t.Context(), "0", smesher(2).Public().(ed25519.PublicKey)); err != nil {
				t.Fatal(err)
			}
			s.close()
		}
		s := start(t, cfg)
		defer s.close()
		easy := registration.PowParams{Challenge: s.PowParams().Challenge, Difficulty: 5}
		if _, err := s.Submit(context.Background(), request(easy, 30)); !errors.Is(err, poet.ErrInvalid) {
			t.Errorf("the difficulty that was stored: %v", err)
		}
		s.register(21)
		<-s.proofs
		if p := s.checkProof("1"); len(p.Members) != 2 || p.Message.Proof.NumLeaves < 150 || s.count(poet.EventDamage) != 0 {
			t.Errorf("round 1: %d members, %d leaves", len(p.Members), p.Message.Proof.NumLeaves)
		}
		<-s.proofs
		if p := s.checkProof("2"); len(p.Members) != 2 {
			t.Errorf("%d members of round 2", len(p.Members))
		}
		if left, _ := filepath.Glob(filepath.Join(cfg.Dir, "rounds", "*")); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		err := s.DB().View(func(tx *bbolt.Tx) error {
			if tx.Bucket([]byte("rounds")) != nil {
				t.Error("the bucket of rounds is still there")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func unzip(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
