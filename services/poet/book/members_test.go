package book

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"tweedle/services/poet"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// fill stores members without the ways of the API, many at a time.
func fill(t testing.TB, s *Book, round uint32, members int) (ids []types.NodeID) {
	t.Helper()
	ids = make([]types.NodeID, members)
	const batch = 5000
	for from := 0; from < members; from += batch {
		var entries []*Entry
		for i := from; i < min(from+batch, members); i++ {
			e := &Entry{}
			rand.Read(e.NodeID[:])
			e.Member.Challenge = e.NodeID
			e.Member.Challenge[0] ^= 0xff
			ids[i] = e.NodeID
			entries = append(entries, e)
		}
		added, err := s.Register(entries, 1<<32, func() (uint32, time.Time, time.Time) {
			return round, time.Time{}, time.Now()
		})
		if err != nil || int(added) != len(entries) {
			t.Fatalf("%d added: %v", added, err)
		}
	}
	return ids
}

// The root and the proofs that are made from groups are those of the plain tree,
// for numbers of members around those where its shape changes.
func TestMemberTreeAgainstThePlainOne(t *testing.T) {
	s, err := Open(t.TempDir(), types.PoetSchedule{EpochDuration: time.Hour}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, n := range []int{0, 1, 2, 3, 255, 256, 257, 300, 511, 512, 513, 1000, 1025} {
		round := uint32(i)
		ids := fill(t, s, round, n)
		root, count, err := s.Root(t.Context(), round)
		if err != nil {
			t.Fatal(err)
		}
		leaves, err := s.Challenges(t.Context(), round)
		if err != nil || len(leaves) != n || count != uint64(n) {
			t.Fatalf("%d members: %d leaves, %v", n, len(leaves), err)
		}
		left, leave := context.WithCancel(t.Context())
		leave()
		if _, err := s.Challenges(left, round); (err != nil) != (n > 0) {
			t.Fatalf("%d members are read for nobody: %v", n, err)
		}
		want := merkle.Root(leaves)
		if root != want {
			t.Fatalf("%d members: root %x, want %x", n, root, want)
		}
		for j := 0; j < n; j += 1 + n/50 {
			m, err := s.Prove(t.Context(), round, ids[j])
			if err != nil {
				t.Fatal(err)
			}
			if leaves[m.Index] != m.Challenge || fmt.Sprint(m.Proof) != fmt.Sprint(merkle.Proof(leaves, m.Index)) || m.Statement != want || m.Members != uint64(n) {
				t.Fatalf("%d members: proof of member %d differs", n, m.Index)
			}
		}
		for range 20 {
			var stranger types.NodeID
			rand.Read(stranger[:])
			if _, err := s.Prove(t.Context(), round, stranger); !errors.Is(err, poet.ErrNotFound) {
				t.Fatalf("%d members: a stranger: %v", n, err)
			}
		}
	}
}

// BenchmarkMillionMembers measures one round of a million members: storing them,
// the start of a server, the root, and proofs. bytes/member is heap that stays.
func BenchmarkMillionMembers(b *testing.B) {
	const members = 1_000_000
	dir, schedule := b.TempDir(), types.PoetSchedule{EpochDuration: time.Hour}
	s, err := Open(dir, schedule, false)
	if err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	ids := fill(b, s, 0, members)
	stored, size := time.Since(begin), s.Size()
	s.Close()
	for b.Loop() {
		begin = time.Now()
		if s, err = Open(dir, schedule, false); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "start-s")
		before := heap()
		begin = time.Now()
		if _, _, err := s.Root(b.Context(), 0); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "root-s")
		b.ReportMetric(float64(heap()-before)/members, "heap-bytes/member")
		const proofs = 1000
		begin = time.Now()
		for i := range proofs {
			id := ids[binary.BigEndian.Uint32(ids[i][:])%members]
			if _, err := s.Prove(b.Context(), 0, id); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(time.Since(begin).Seconds()/proofs*1e3, "proof-ms")
		b.ReportMetric(stored.Seconds(), "store-s")
		b.ReportMetric(float64(size)/members, "disk-bytes/member")
		s.Close()
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
