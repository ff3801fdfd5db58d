package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"zombiezen.com/go/sqlite"

	"tweedle/codec"
	"tweedle/signing"
	"tweedle/types"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("STORE_TEST_ROLE"); role != "" {
		playRole(role)
	}
	goleak.VerifyTestMain(m)
}

var network = types.NetworkID(time.Unix(1_700_000_000, 0), "store")

func openAt(t testing.TB, dir string) *DB {
	t.Helper()
	db, err := Open(dir, network)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func got[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func equal(t testing.TB, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

// hash returns a value that is told by n.
func hash(n int) types.Hash32 { return types.Sum([]byte(fmt.Sprint(n))) }

func address(n int) (a types.Address) { h := hash(n); copy(a[4:], h[:]); return a }

func sampleATX(n int, epoch types.Epoch, smesher int) *types.ATX {
	return &types.ATX{
		PublishEpoch: epoch, Coinbase: address(smesher), SmesherID: types.NodeID(hash(smesher)), VRFNonce: ^uint64(n),
		PositioningATX: types.ATXID(hash(n)),
		NIPosts: []types.NIPost{{
			Membership: []types.Hash32{hash(n)}, NumMembers: 2,
			Posts: []types.SubPost{{NumUnits: 4, Post: types.PostProof{Indices: []byte{1, 2, 3}}}},
		}},
	}
}

func verified(height uint64) Verified {
	return Verified{Weight: height * 4, BaseHeight: height - 7, Ticks: 7, EffectiveUnits: 4, Received: time.Unix(0, 123456789).UTC()}
}

func TestATXsAreFoundByEpochSmesherAndHeight(t *testing.T) {
	db := openAt(t, t.TempDir())
	heights := map[types.ATXID]uint64{}
	for n, at := range []struct {
		epoch   types.Epoch
		smesher int
		height  uint64
	}{{1, 1, 10}, {1, 2, 30}, {2, 1, 40}, {3, 2, 35}} {
		a := sampleATX(n, at.epoch, at.smesher)
		heights[a.ID()] = at.height
		must(t, db.AddATX(a, verified(at.height)))
		must(t, db.AddATX(a, verified(at.height+1))) // the first one stays
		equal(t, got[*types.ATX](t)(db.ATX(a.ID())), a)
		equal(t, got[bool](t)(db.Has(KindATX, idOf(a))), true)
		h := got[ATXHeader](t)(db.ATXHeader(a.ID()))
		equal(t, h, ATXHeader{
			ID: a.ID(), PublishEpoch: at.epoch, Smesher: a.SmesherID, Coinbase: a.Coinbase,
			NumUnits: 4, VRFNonce: a.VRFNonce, Verified: verified(at.height),
		})
	}
	ids := got[[]types.ATXID](t)(db.EpochATXs(1))
	hs := got[[]ATXHeader](t)(db.EpochATXHeaders(1))
	if len(ids) != 2 || len(hs) != 2 || bytes.Compare(ids[0][:], ids[1][:]) >= 0 || hs[0].ID != ids[0] || hs[1].ID != ids[1] {
		t.Fatalf("ids %v, headers %v", ids, hs)
	}
	for last, want := range map[types.Epoch]uint64{1: 30, 2: 40, 9: 40} {
		if h := got[ATXHeader](t)(db.HighestATX(last)); h.Height() != want {
			t.Errorf("highest up to epoch %v: %d, want %d", last, h.Height(), want)
		}
	}
	if _, err := db.HighestATX(0); !errors.Is(err, ErrNotFound) {
		t.Errorf("highest before all: %v", err)
	}
	smesher := types.NodeID(hash(1))
	if h := got[ATXHeader](t)(db.LastATX(smesher)); h.PublishEpoch != 2 {
		t.Errorf("last ATX is of epoch %v", h.PublishEpoch)
	}
	if h := got[ATXHeader](t)(db.SmesherATX(smesher, 1)); h.Height() != 10 {
		t.Errorf("ATX of epoch 1: %+v", h)
	}
	if _, err := db.SmesherATX(smesher, 3); !errors.Is(err, ErrNotFound) {
		t.Errorf("ATX that is not there: %v", err)
	}
	if err := db.AddATX(sampleATX(9, 1, 9), Verified{BaseHeight: 1 << 63}); err == nil {
		t.Error("a height that SQLite cannot sort was taken")
	}
}

func idOf(a *types.ATX) []byte { id := a.ID(); return id[:] }

func sampleProof(n int, leaves uint64) *types.PoetProofMessage {
	return &types.PoetProofMessage{
		Proof:  types.PoetProof{Root: hash(n), Leaves: []types.Hash32{hash(1)}, Nodes: []types.Hash32{hash(2)}, NumLeaves: leaves},
		PoetID: types.NodeID(hash(0)), RoundID: "7", Statement: hash(3),
	}
}

func TestAPoetProofIsFoundByReferenceAndByRound(t *testing.T) {
	db := openAt(t, t.TempDir())
	small, large := sampleProof(1, 100), sampleProof(2, 200)
	must(t, db.AddPoetProof(small))
	equal(t, got[*types.PoetProofMessage](t)(db.PoetProofOf(small.PoetID, "7")), small)
	must(t, db.AddPoetProof(large))
	equal(t, got[*types.PoetProofMessage](t)(db.PoetProof(small.Proof.Ref())), small)
	equal(t, got[*types.PoetProofMessage](t)(db.PoetProofOf(small.PoetID, "7")), large)
	if _, err := db.PoetProofOf(small.PoetID, "8"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown round: %v", err)
	}
	ref := small.Proof.Ref()
	equal(t, got[[]byte](t)(db.Object(KindPoetProof, ref[:])), codec.Encode(small))
}

// The level at which SQLite syncs decides what power loss can take.
func TestWhatMustSurvivePowerLossIsSynced(t *testing.T) {
	db := openAt(t, t.TempDir())
	level := func(want int) func(*sqlite.Conn) error {
		return func(c *sqlite.Conn) error {
			if level, err := pragmaInt(c, "synchronous"); err != nil || level != want {
				t.Errorf("synchronous is %d (%v), want %d", level, err, want)
			}
			return nil
		}
	}
	const normal, full = 1, 2
	for range 2 {
		must(t, db.write(level(normal)))
		must(t, db.writeDurable(level(full)))
		must(t, db.writeLocal(level(full)))
	}
}

func TestBallotsAreFoundByLayerAndReference(t *testing.T) {
	db := openAt(t, t.TempDir())
	smesher := types.NodeID(hash(1))
	ballot := func(l types.Layer, data *types.EpochData) *types.Ballot {
		b := &types.Ballot{Layer: l, ATX: types.ATXID(hash(2)), Smesher: smesher, EpochData: data}
		must(t, db.AddBallot(b))
		must(t, db.AddBallot(b))
		return b
	}
	ballot(20, nil)
	ref := ballot(22, &types.EpochData{Eligibilities: 3})
	later := ballot(22, nil)
	next := ballot(31, &types.EpochData{Eligibilities: 4})
	equal(t, got[*types.Ballot](t)(db.ReferenceBallot(smesher, 20, 29)), ref)
	equal(t, got[*types.Ballot](t)(db.ReferenceBallot(smesher, 30, 39)), next)
	if _, err := db.ReferenceBallot(smesher, 40, 49); !errors.Is(err, ErrNotFound) {
		t.Errorf("no reference ballot: %v", err)
	}
	equal(t, got[*types.Ballot](t)(db.Ballot(later.ID())), later)
	if ids := got[[]types.BallotID](t)(db.LayerBallots(22)); len(ids) != 2 || bytes.Compare(ids[0][:], ids[1][:]) >= 0 {
		t.Errorf("ballots of the layer: %v", ids)
	}
}

func TestAnActiveSetIsFoundByItsHash(t *testing.T) {
	db := openAt(t, t.TempDir())
	set := types.ActiveSet{types.ATXID(hash(1)), types.ATXID(hash(2))}
	must(t, db.AddActiveSet(set))
	equal(t, got[types.ActiveSet](t)(db.ActiveSet(set.Hash())), set)
	must(t, db.AddActiveSet(nil))
	equal(t, got[types.ActiveSet](t)(db.ActiveSet(types.ActiveSet(nil).Hash())), types.ActiveSet(nil))
}

// raw returns a transaction that is told by n.
func raw(n int) types.Transaction { return types.Transaction(fmt.Sprintf("transaction %d", n)) }

// layerResult is a layer with a block of n transactions, which are added.
func layerResult(t testing.TB, db *DB, l types.Layer, n int) LayerResult {
	t.Helper()
	template := address(99)
	r := LayerResult{
		Layer: l, StateRoot: hash(int(l)), Block: &types.Block{Layer: l, TickHeight: 5},
		Accounts: []Account{{Address: address(int(l)), Balance: ^uint64(l), NextNonce: 1 << 63, Template: &template, State: []byte{1}}},
		Rewards:  []Reward{{ATX: types.ATXID(hash(1)), Smesher: types.NodeID(hash(2)), Coinbase: address(3), Total: 100, Subsidy: 90}},
	}
	for i := range n {
		tx := raw(int(l)*10_000 + i)
		if _, err := db.AddTransaction(tx, []types.Address{address(1)}, time.Unix(int64(l), 0)); err != nil {
			t.Fatal(err)
		}
		r.Block.Txs = append(r.Block.Txs, tx.ID())
		r.Accounts = append(r.Accounts, Account{Address: address(1_000_000 + i), Balance: uint64(l), NextNonce: uint64(i)})
	}
	for i, id := range r.Block.Txs {
		r.Results = append(r.Results, TxResult{
			ID: id, Block: r.Block.ID(), Failed: i%2 == 1, Reason: "why", Gas: 7, Fee: 8, Addresses: []types.Address{address(1), address(2)},
		})
	}
	r.Certificate = &types.Certificate{Decision: types.Decision{Layer: l, Block: r.Block.ID(), StateRoot: r.StateRoot}}
	return r
}

func TestApplyWritesAllOfALayer(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir)
	if _, err := db.LastApplied(); !errors.Is(err, ErrNotFound) {
		t.Fatalf("last applied of nothing: %v", err)
	}
	must(t, db.Apply(LayerResult{Layer: 19, StateRoot: hash(19), Accounts: []Account{{Address: address(1), Balance: 1000}}}))
	l := layerResult(t, db, 20, 2)
	equal(t, len(got[[]Tx](t)(db.PendingTransactions(0, 10))), 2)
	must(t, db.Apply(l))
	must(t, db.Close())

	db = openAt(t, dir)
	equal(t, got[Layer](t)(db.LastApplied()), Layer{Layer: 20, Block: l.Block.ID(), StateRoot: l.StateRoot, Txs: 2})
	equal(t, len(got[[]Layer](t)(db.Layers(0, 10))), 2)
	equal(t, got[Layer](t)(db.Layer(19)), Layer{Layer: 19, StateRoot: hash(19)})
	equal(t, got[*types.Block](t)(db.Block(l.Block.ID())), l.Block)
	equal(t, got[*types.Certificate](t)(db.Certificate(20)), l.Certificate)
	equal(t, len(got[[]Tx](t)(db.PendingTransactions(0, 10))), 0)
	equal(t, len(got[[]Account](t)(db.Accounts())), 4)
	want := l.Accounts[0]
	want.Layer = 20
	equal(t, got[Account](t)(db.Account(want.Address)), want)
	if _, err := db.AccountAt(want.Address, 19); !errors.Is(err, ErrNotFound) {
		t.Errorf("account before it was made: %v", err)
	}
	reward := l.Rewards[0]
	reward.Layer = 20
	equal(t, got[[]Reward](t)(db.LayerRewards(20)), []Reward{reward})
	equal(t, got[[]Reward](t)(db.CoinbaseRewards(address(3), 0, 10)), []Reward{reward})
	equal(t, got[[]Reward](t)(db.SmesherRewards(reward.Smesher, 0, 10)), []Reward{reward})
	equal(t, len(got[[]Reward](t)(db.SmesherRewards(reward.Smesher, 1, 10))), 0)

	txs := got[[]Tx](t)(db.LayerTransactions(20))
	if len(txs) != 2 || txs[1].ID != l.Block.Txs[1] || !txs[1].Result.Failed || txs[1].Result.Reason != "why" || txs[0].Result.Failed {
		t.Errorf("transactions of the layer: %+v", txs)
	}
	equal(t, len(got[[]Tx](t)(db.AddressTransactions(address(2), 0, 10))), 2)
	equal(t, len(got[[]Tx](t)(db.AddressTransactions(address(2), 1, 10))), 1)
	equal(t, got[int](t)(db.CountAddressTransactions(address(1))), 2)
}

func TestLayersAreAppliedInOrder(t *testing.T) {
	db := openAt(t, t.TempDir())
	must(t, db.Apply(layerResult(t, db, 5, 1)))
	for _, l := range []types.Layer{4, 5, 7} {
		if err := db.Apply(layerResult(t, db, l, 1)); err == nil {
			t.Errorf("layer %v was applied after layer 5", l)
		}
	}
	if l := got[Layer](t)(db.LastApplied()); l.Layer != 5 {
		t.Fatalf("last applied is %v", l.Layer)
	}
}

func TestRevertBringsBackTheStateBefore(t *testing.T) {
	db := openAt(t, t.TempDir())
	for l := types.Layer(1); l <= 4; l++ {
		must(t, db.Apply(layerResult(t, db, l, 3)))
	}
	at2 := func() [4]any {
		return [4]any{
			got[Account](t)(db.AccountAt(address(1_000_000), 2)), got[[]Reward](t)(db.LayerRewards(2)),
			got[[]Tx](t)(db.LayerTransactions(2)), got[[]Layer](t)(db.Layers(0, 2)),
		}
	}
	before := at2()
	must(t, db.Revert(2))
	equal(t, at2(), before)
	equal(t, got[Layer](t)(db.LastApplied()).Layer, types.Layer(2))
	equal(t, len(got[[]Tx](t)(db.PendingTransactions(0, 100))), 6)
	equal(t, got[Account](t)(db.Account(address(1_000_000))).Layer, types.Layer(2))
	if _, err := db.Account(address(4)); !errors.Is(err, ErrNotFound) {
		t.Errorf("account that a reverted layer made: %v", err)
	}
	must(t, db.Apply(LayerResult{Layer: 3, StateRoot: hash(33)}))
	must(t, db.Revert(100)) // nothing to do
	equal(t, got[Layer](t)(db.LastApplied()).StateRoot, hash(33))
}

func TestASecondDecisionForALayerIsRefused(t *testing.T) {
	db := openAt(t, t.TempDir())
	one := &types.Certificate{Decision: types.Decision{Layer: 3, StateRoot: hash(1)}}
	two := &types.Certificate{Decision: types.Decision{Layer: 3, StateRoot: hash(2)}}
	must(t, db.AddCertificate(one))
	must(t, db.AddCertificate(one))
	if err := db.AddCertificate(two); !errors.Is(err, ErrConflict) {
		t.Fatalf("got %v", err)
	}
	equal(t, got[*types.Certificate](t)(db.Certificate(3)), one)
}

func TestATransactionIsKeptUntilItIsDropped(t *testing.T) {
	db := openAt(t, t.TempDir())
	for n := range 3 {
		if added := got[bool](t)(db.AddTransaction(raw(n), []types.Address{address(n), address(9)}, time.Unix(5, 0))); !added {
			t.Fatal("a new transaction is known")
		}
	}
	if got[bool](t)(db.AddTransaction(raw(1), nil, time.Unix(6, 0))) {
		t.Fatal("a known transaction is new")
	}
	equal(t, got[Tx](t)(db.Transaction(raw(1).ID())), Tx{ID: raw(1).ID(), Raw: raw(1), Received: time.Unix(5, 0).UTC()})
	must(t, db.Apply(LayerResult{Layer: 1, Results: []TxResult{{ID: raw(0).ID()}}}))
	must(t, db.DropTransactions([]types.TransactionID{raw(0).ID(), raw(1).ID(), raw(8).ID()}))
	equal(t, got[Tx](t)(db.Transaction(raw(0).ID())).Result.Layer, types.Layer(1))
	if _, err := db.Transaction(raw(1).ID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("dropped transaction: %v", err)
	}
	equal(t, len(got[[]Tx](t)(db.PendingTransactions(0, 10))), 1)
	equal(t, len(got[[]Tx](t)(db.AddressTransactions(address(9), 0, 10))), 2)
	if err := db.Apply(LayerResult{Layer: 2, Results: []TxResult{{ID: raw(1).ID()}}}); err == nil {
		t.Error("a result without its transaction was taken")
	}
}

func TestTheGuardRefusesASecondMessage(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir)
	me, other := types.NodeID(hash(1)), types.NodeID(hash(2))
	for range 2 {
		must(t, db.Guard(signing.Ballot, me, 7, hash(1)))
		must(t, db.Guard(signing.Ballot, me, 8, hash(2)))
		must(t, db.Guard(signing.ATX, me, 7, hash(3)))
		must(t, db.Guard(signing.Ballot, other, 7, hash(4)))
		if err := db.Guard(signing.Ballot, me, 7, hash(5)); !errors.Is(err, ErrConflict) {
			t.Fatalf("a second ballot for layer 7: %v", err)
		}
		must(t, db.Close())
		db = openAt(t, dir)
	}
}

// Two goroutines ask for different messages: exactly one may sign.
func TestTheGuardLetsOneOfManyPass(t *testing.T) {
	db := openAt(t, t.TempDir())
	for slot := range uint64(20) {
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			wg.Go(func() { errs[i] = db.Guard(signing.Hare, types.NodeID{}, slot, hash(i)) })
		}
		wg.Wait()
		passed := 0
		for _, err := range errs {
			if err == nil {
				passed++
			} else if !errors.Is(err, ErrConflict) {
				t.Fatal(err)
			}
		}
		if passed != 1 {
			t.Fatalf("%d of 4 messages may be signed", passed)
		}
	}
}

func TestAnOldCopyOfLocalDBIsNotSignedWith(t *testing.T) {
	dir := t.TempDir()
	me := types.NodeID(hash(1))
	db := openAt(t, dir)
	must(t, db.Guard(signing.Ballot, me, 1, hash(1)))
	must(t, db.Close())
	copied := got[[]byte](t)(os.ReadFile(dir + "/local.db"))

	db = openAt(t, dir)
	must(t, db.Guard(signing.Ballot, me, 2, hash(2)))
	must(t, db.Apply(LayerResult{Layer: 2}))
	must(t, db.Close())
	must(t, os.WriteFile(dir+"/local.db", copied, 0o600))

	db = openAt(t, dir)
	if !db.RolledBack() {
		t.Fatal("the old copy was not noticed")
	}
	if err := db.Guard(signing.Ballot, me, 2, hash(3)); !errors.Is(err, ErrRolledBack) {
		t.Fatalf("the guard said %v", err)
	}
	must(t, db.Apply(LayerResult{Layer: 3})) // must not make state.db forget
	must(t, db.Close())
	db = openAt(t, dir)
	if !db.RolledBack() {
		t.Fatal("the old copy was forgotten")
	}
	must(t, db.TrustLocal())
	must(t, db.Guard(signing.Ballot, me, 9, hash(9)))
	must(t, db.Close())
	if openAt(t, dir).RolledBack() {
		t.Fatal("the trust was forgotten")
	}
}

func TestStepsOfASmesherAreKept(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir)
	me := types.NodeID(hash(1))
	challenge := types.PoetChallenge{PublishEpoch: 3, PreviousATX: types.ATXID(hash(2))}
	atx := sampleATX(1, 3, 1)
	must(t, db.SaveStep(me, "challenge", &types.PoetChallenge{PublishEpoch: 2}))
	must(t, db.SaveStep(me, "challenge", &challenge))
	must(t, db.SaveStep(me, "atx", atx))
	must(t, db.Close())

	db = openAt(t, dir)
	var c types.PoetChallenge
	must(t, db.LoadStep(me, "challenge", &c))
	equal(t, c, challenge)
	var a types.ATX
	must(t, db.LoadStep(me, "atx", &a))
	equal(t, &a, atx)
	if err := db.LoadStep(types.NodeID{}, "challenge", &c); !errors.Is(err, ErrNotFound) {
		t.Errorf("another's step: %v", err)
	}
	must(t, db.DeleteSteps(me, "challenge", "unknown"))
	if err := db.LoadStep(me, "challenge", &c); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted step: %v", err)
	}
	must(t, db.LoadStep(me, "atx", &types.ATX{}))
	if err := db.SaveStep(me, "big", blob(make([]byte, MaxStepSize))); err == nil {
		t.Error("a step over the limit was taken")
	}
}

type blob []byte

func (b blob) EncodeTo(e *codec.Encoder) { e.ByteSlice(b) }

func TestEverythingFailsAfterCloseAndCloseDoesNot(t *testing.T) {
	db := openAt(t, t.TempDir())
	for range 3 {
		must(t, db.Close())
	}
	_, err := db.LastApplied()
	for what, err := range map[string]error{
		"read":  err,
		"write": db.Apply(LayerResult{Layer: 1}),
		"proof": db.AddPoetProof(sampleProof(1, 1)),
		"guard": db.Guard(signing.ATX, types.NodeID{}, 1, hash(1)),
		"step":  db.DeleteSteps(types.NodeID{}, "x"),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCloseWaitsForReadersAndWriters(t *testing.T) {
	for range 5 {
		db := openAt(t, t.TempDir())
		must(t, db.Apply(layerResult(t, db, 1, 20)))
		var wg, running sync.WaitGroup
		for i := range 2 * Readers {
			running.Add(1)
			wg.Go(func() {
				started := sync.OnceFunc(running.Done)
				defer started()
				for l := types.Layer(2 + i*1000); ; l++ {
					_, err := db.LayerTransactions(1)
					if err == nil {
						_, err = db.AddTransaction(raw(int(l)), nil, time.Now())
					}
					if errors.Is(err, ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					started()
				}
			})
		}
		running.Wait()
		must(t, db.Close())
		wg.Wait()
	}
}

func TestTheStoreWorksInVirtualTime(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		db, err := Open(dir, network)
		must(t, err)
		start := time.Now()
		var wg sync.WaitGroup
		for range 3 * Readers {
			wg.Go(func() {
				for range 5 {
					time.Sleep(time.Hour)
					if _, err := db.LastApplied(); err != nil && !errors.Is(err, ErrNotFound) {
						t.Error(err)
					}
				}
			})
		}
		for l := range types.Layer(5) {
			time.Sleep(time.Hour)
			must(t, db.Apply(layerResult(t, db, l, 2)))
			must(t, db.Guard(signing.Ballot, types.NodeID{}, uint64(l), hash(int(l))))
		}
		wg.Wait()
		must(t, db.Close())
		if time.Since(start) != 5*time.Hour {
			t.Errorf("took %v", time.Since(start))
		}
	})
}

func TestListsAreBounded(t *testing.T) {
	for limit, want := range map[int]int64{-1: 0, 0: 0, 5: 5, MaxPage + 1: MaxPage} {
		if got := page(limit); got != want {
			t.Errorf("page(%d) = %d", limit, got)
		}
	}
	db := openAt(t, t.TempDir())
	must(t, db.Apply(layerResult(t, db, 1, 30)))
	equal(t, len(got[[]Tx](t)(db.AddressTransactions(address(1), 25, 10))), 5)
	equal(t, len(got[[]Tx](t)(db.AddressTransactions(address(1), -3, 10))), 10)
	long := layerResult(t, db, 2, 1)
	long.Results[0].Reason = strings.Repeat("x", 2*MaxReason)
	must(t, db.Apply(long))
	equal(t, len(got[Tx](t)(db.Transaction(long.Results[0].ID)).Result.Reason), MaxReason)
}
