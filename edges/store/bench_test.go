package store

import (
	"slices"
	"strconv"
	"testing"

	"zombiezen.com/go/sqlite"

	"tweedle/values/signing"
	"tweedle/values/types"
)

// BenchmarkApply writes a layer with a full mainnet second's worth of transfers:
// a thousand transactions that change a thousand accounts.
func BenchmarkApply(b *testing.B) {
	db := openAt(b, b.TempDir())
	genesis(b, db, 0)
	const txs = 1000
	for l := types.Layer(1); b.Loop(); l++ {
		b.StopTimer()
		r := layerResult(b, db, l, txs)
		b.StartTimer()
		if err := db.Apply(r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*txs/b.Elapsed().Seconds(), "txs/s")
}

func BenchmarkGuard(b *testing.B) {
	db := openAt(b, b.TempDir())
	for slot := uint64(0); b.Loop(); slot++ {
		if err := db.Guard(signing.Hare, types.NodeID{}, slot, types.Hash32{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGuardOfALayer has what the guard writes in one layer for 1 and 16 identities that each
// have a slot: the ballots and proposals of all in one transaction, then the decisions.
func BenchmarkGuardOfALayer(b *testing.B) {
	for _, identities := range []int{1, 16} {
		b.Run(strconv.Itoa(identities), func(b *testing.B) {
			db := openAt(b, b.TempDir())
			for slot := uint64(0); b.Loop(); slot++ {
				for _, domains := range [][]signing.Domain{{signing.Ballot, signing.Proposal}, {signing.Certify}} {
					all := make([][]Slot, identities)
					for i := range all {
						for _, d := range domains {
							all[i] = append(all[i], Slot{Domain: d, Identity: types.NodeID{byte(i)}, Slot: slot})
						}
					}
					if refused, err := db.GuardAll(all); err != nil || slices.ContainsFunc(refused, func(err error) bool { return err != nil }) {
						b.Fatal(refused, err)
					}
				}
			}
		})
	}
}

func BenchmarkAddPoetProof(b *testing.B) {
	db := openAt(b, b.TempDir())
	for n := 0; b.Loop(); n++ {
		if err := db.AddPoetProof(sampleProof(n, 1)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead has the reads that a node and its API do most, on a store of
// a hundred layers of a hundred transactions.
func BenchmarkRead(b *testing.B) {
	db := openAt(b, b.TempDir())
	genesis(b, db, 0)
	const layers, txs = 100, 100
	for l := types.Layer(1); l <= layers; l++ {
		must(b, db.Apply(layerResult(b, db, l, txs)))
	}
	for epoch := range types.Epoch(20) {
		for n := range 50 {
			a := sampleATX(n, epoch, n)
			must(b, db.AddATX(a, infoOf(a, 10+uint64(epoch)), noon))
		}
	}
	for _, bm := range []struct {
		name string
		read func() error
	}{
		{"LastApplied", func() error { _, err := db.LastApplied(); return err }},
		{"Account", func() error { _, err := db.Account(address(1_000_000)); return err }},
		{"Accounts200", func() error { _, err := db.Accounts(); return err }},
		{"ATXRecord", func() error { _, err := db.ATXRecord(smesher1.ID()); return err }},
		{"ATX", func() error { _, err := db.ATX(smesher1.ID()); return err }},
		{"HighestATX", func() error { _, err := db.HighestATX(10); return err }},
		{"EpochATXs50", func() error { _, err := db.EpochATXs(10); return err }},
		{"EpochATXRecords50", func() error { _, err := db.EpochATXRecords(10); return err }},
		{"Transaction", func() error { _, err := db.Transaction(raw(10_000).ID()); return err }},
		{"LayerTransactions100", func() error { _, err := db.LayerTransactions(50); return err }},
		{"AddressTransactions100", func() error { _, err := db.AddressTransactions(TxFilter{Address: address(1)}, 5000, 100); return err }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			for b.Loop() {
				if err := bm.read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAccounts reads the newest of many versions of each account, as a
// node does at start and after it has given up layers.
func BenchmarkAccounts(b *testing.B) {
	const accounts, versions = 1000, 100
	db := openAt(b, b.TempDir())
	must(b, db.write(func(c *sqlite.Conn) error {
		for a := range accounts {
			for l := range versions {
				at := address(a)
				if err := put(c, insert, "accounts", at[:], int64(l), int64(l), int64(l), at[:], []byte{}); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	for b.Loop() {
		if es, err := db.Accounts(); err != nil || len(es) != accounts || es[0].Account.Balance != versions-1 {
			b.Fatal(len(es), err)
		}
	}
}
