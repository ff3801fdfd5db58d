package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"tweedle/edges/api/doortest"
	"tweedle/edges/api/gen/gatewaypb"
	"tweedle/edges/store"
	"tweedle/protocol/core"
	"tweedle/protocol/vm"
	"tweedle/values/codec"
	"tweedle/values/types"
)

func TestTheNodeTellsWhatItIs(t *testing.T) {
	s := serve(t)
	ctx := deadline(t)
	if v := check[*spacemesh.EchoResponse](t)(s.node.Echo(ctx, &spacemesh.EchoRequest{Msg: text("hello")})); v.Msg.Value != "hello" {
		t.Errorf("echo %v", v)
	}
	_, err := s.node.Echo(ctx, &spacemesh.EchoRequest{})
	wantStatus(t, err, codes.InvalidArgument, "msg is missing")
	if v := check[*spacemesh.VersionResponse](t)(s.node.Version(ctx, &emptypb.Empty{})); v.VersionString.Value != "v1" {
		t.Errorf("version %v", v)
	}
	if v := check[*spacemesh.BuildResponse](t)(s.node.Build(ctx, &emptypb.Empty{})); v.BuildString.Value != "abc" {
		t.Errorf("build %v", v)
	}
	want := &spacemesh.NodeStatus{ConnectedPeers: 4, IsSynced: true, SyncedLayer: layerNumber(19), TopLayer: layerNumber(nowLayer), VerifiedLayer: layerNumber(19)}
	if v := check[*spacemesh.StatusResponse](t)(s.node.Status(ctx, &spacemesh.StatusRequest{})); !proto.Equal(v.Status, want) {
		t.Errorf("status %v", v)
	}
	info := check[*spacemesh.NodeInfoResponse](t)(s.node.NodeInfo(ctx, &emptypb.Empty{}))
	if info.Hrp != "stest" || info.EffectiveGenesis != 19 || info.EpochSize != 10 {
		t.Errorf("info %v", info)
	}
}

func TestTheMeshTellsItsTime(t *testing.T) {
	s := serve(t)
	ctx := deadline(t)
	if v := check[*spacemesh.GenesisTimeResponse](t)(s.mesh.GenesisTime(ctx, &spacemesh.GenesisTimeRequest{})); int64(v.Unixtime.Value) != s.schedule.Genesis.Unix() {
		t.Errorf("genesis %v", v)
	}
	if v := check[*spacemesh.CurrentLayerResponse](t)(s.mesh.CurrentLayer(ctx, &spacemesh.CurrentLayerRequest{})); v.Layernum.Number != nowLayer {
		t.Errorf("layer %v", v)
	}
	if v := check[*spacemesh.CurrentEpochResponse](t)(s.mesh.CurrentEpoch(ctx, &spacemesh.CurrentEpochRequest{})); v.Epochnum.Number != 2 {
		t.Errorf("epoch %v", v)
	}
	if v := check[*spacemesh.GenesisIDResponse](t)(s.mesh.GenesisID(ctx, &spacemesh.GenesisIDRequest{})); !bytes.Equal(v.GenesisId, s.params.Network[:]) {
		t.Errorf("genesis id %v", v)
	}
	if v := check[*spacemesh.EpochNumLayersResponse](t)(s.mesh.EpochNumLayers(ctx, &spacemesh.EpochNumLayersRequest{})); v.Numlayers.Number != 10 {
		t.Errorf("layers per epoch %v", v)
	}
	if v := check[*spacemesh.LayerDurationResponse](t)(s.mesh.LayerDuration(ctx, &spacemesh.LayerDurationRequest{})); v.Duration.Value != 3600 {
		t.Errorf("layer duration %v", v)
	}
	// An hour of layers makes less than one transfer a second; mainnet's five
	// minutes make the published ten.
	if v := check[*spacemesh.MaxTransactionsPerSecondResponse](t)(s.mesh.MaxTransactionsPerSecond(ctx, &spacemesh.MaxTransactionsPerSecondRequest{})); v.MaxTxsPerSecond.Value != 0 {
		t.Errorf("transactions per second %v", v)
	}
	gas := check[uint64](t)(spendGas(vm.MainnetParams()))
	if perLayer := vm.MainnetParams().BlockGasLimit / gas; perLayer/300 != 10 && perLayer/300 != 9 {
		t.Errorf("a mainnet layer has %d transfers", perLayer)
	}
}

// history applies layers 20 and 22: a spawn, a transfer from account 0 to
// account 1, and a transfer that fails.
func history(t testing.TB, s *served) (spawn, spend, failing types.Transaction) {
	t.Helper()
	spawn = vm.Spawn(s.signer(0), 0, 1)
	s.mustSubmit(t, spawn)
	s.apply(20)
	spend = vm.Spend(s.signer(0), s.address(1), 5000, 1, 2)
	s.mustSubmit(t, spend)
	// The pool would refuse this one: it comes with somebody else's block.
	failing = vm.Spend(s.signer(0), s.address(2), 1<<60, 2, 1)
	s.apply(22, failing)
	return spawn, spend, failing
}

func TestATransactionIsFollowedToItsEnd(t *testing.T) {
	s := serve(t)
	ctx := deadline(t)
	spawn := vm.Spawn(s.signer(0), 0, 1)
	id := spawn.ID()
	req := &spacemesh.TransactionsStateRequest{TransactionId: []*spacemesh.TransactionId{{Id: id[:]}}, IncludeTransactions: true}
	state := func() spacemesh.TransactionState_TransactionState {
		r := check[*spacemesh.TransactionsStateResponse](t)(s.tx.TransactionsState(ctx, req))
		if known := r.TransactionsState[0].State != spacemesh.TransactionState_TRANSACTION_STATE_UNSPECIFIED; known != (len(r.Transactions) == 1) {
			t.Fatalf("state %v with transactions %v", r.TransactionsState, r.Transactions)
		}
		return r.TransactionsState[0].State
	}
	if st := state(); st != spacemesh.TransactionState_TRANSACTION_STATE_UNSPECIFIED {
		t.Fatalf("before it was sent: %v", st)
	}
	sent := check[*spacemesh.SubmitTransactionResponse](t)(s.tx.SubmitTransaction(ctx, &spacemesh.SubmitTransactionRequest{Transaction: spawn}))
	if sent.Status.Code != 0 || !bytes.Equal(sent.Txstate.Id.Id, id[:]) || state() != spacemesh.TransactionState_TRANSACTION_STATE_MEMPOOL {
		t.Fatalf("sent: %v, %v", sent, state())
	}
	account := check[*spacemesh.AccountResponse](t)(s.state.Account(ctx, &spacemesh.AccountRequest{AccountId: s.accountID(0)})).AccountWrapper
	if account.StateCurrent.Counter != 0 || account.StateProjected.Counter != 1 || account.StateProjected.Balance.Value >= account.StateCurrent.Balance.Value {
		t.Fatalf("while it waits: %v", account)
	}
	result := s.apply(20)
	if state() != spacemesh.TransactionState_TRANSACTION_STATE_PROCESSED {
		t.Fatalf("applied: %v", state())
	}
	account = check[*spacemesh.AccountResponse](t)(s.state.Account(ctx, &spacemesh.AccountRequest{AccountId: s.accountID(0)})).AccountWrapper
	if want := result.Outcome.State.Account(s.address(0)); account.StateCurrent.Counter != 1 || account.StateCurrent.Balance.Value != want.Balance {
		t.Fatalf("after it: %v, want %v", account, want)
	}
	hash := check[*spacemesh.GlobalStateHashResponse](t)(s.state.GlobalStateHash(ctx, &spacemesh.GlobalStateHashRequest{})).Response
	if root := result.Outcome.State.Root(); !bytes.Equal(hash.RootHash, root[:]) || hash.Layer.Number != 20 {
		t.Fatalf("state hash %v", hash)
	}
}

func (l *ledger) accountID(i int) *spacemesh.AccountId {
	return &spacemesh.AccountId{Address: l.bech32(i)}
}

// A transaction that another one of its nonce takes the place of has a final
// state once that one is applied, and a stream says it.
func TestAReplacedTransactionComesToAnEnd(t *testing.T) {
	s := serve(t)
	ctx := deadline(t)
	s.mustSubmit(t, vm.Spawn(s.signer(0), 0, 1))
	s.apply(20)
	old, better := vm.Spend(s.signer(0), s.address(1), 5, 1, 1), vm.Spend(s.signer(0), s.address(1), 5, 1, 5)
	id := old.ID()
	list := []*spacemesh.TransactionId{{Id: id[:]}}
	stream := check[grpc.ServerStreamingClient[spacemesh.TransactionsStateStreamResponse]](t)(s.tx.TransactionsStateStream(ctx,
		&spacemesh.TransactionsStateStreamRequest{TransactionId: list}))
	said := func(want spacemesh.TransactionState_TransactionState) {
		t.Helper()
		if r := check[*spacemesh.TransactionsStateStreamResponse](t)(stream.Recv()); r.TransactionState.State != want {
			t.Fatalf("the stream says %v, want %v", r.TransactionState.State, want)
		}
		r := check[*spacemesh.TransactionsStateResponse](t)(s.tx.TransactionsState(ctx, &spacemesh.TransactionsStateRequest{TransactionId: list}))
		if r.TransactionsState[0].State != want {
			t.Fatalf("asked, it is %v, want %v", r.TransactionsState[0].State, want)
		}
	}
	said(spacemesh.TransactionState_TRANSACTION_STATE_UNSPECIFIED)
	s.mustSubmit(t, old)
	said(spacemesh.TransactionState_TRANSACTION_STATE_MEMPOOL)
	s.mustSubmit(t, better) // somebody else's block may still have the old one
	s.apply(21)
	said(spacemesh.TransactionState_TRANSACTION_STATE_CONFLICTING)

	// A block with the one that left decides otherwise.
	spend := func(nonce, price uint64) types.Transaction {
		return vm.Spend(s.signer(0), s.address(1), 5, nonce, price)
	}
	old = spend(2, 1)
	id = old.ID()
	s.mustSubmit(t, old)
	s.mustSubmit(t, spend(2, 5))
	s.pool.Applied(vm.State{}) // and this node's pool knows nothing of either
	s.apply(22, old)
	r := check[*spacemesh.TransactionsStateResponse](t)(s.tx.TransactionsState(ctx, &spacemesh.TransactionsStateRequest{TransactionId: list}))
	if got := r.TransactionsState[0].State; got != spacemesh.TransactionState_TRANSACTION_STATE_PROCESSED {
		t.Errorf("the old one is applied, and %v", got)
	}
}

func TestWhatWaitsIsKnownWithinLimits(t *testing.T) {
	w := newWaiting()
	s := signerOf(0, types.GenesisID{})
	tx := func(n int) vm.Tx {
		tx, err := vm.Parse(vm.Spend(s, types.Address{22: byte(n >> 8), 23: byte(n)}, 1, uint64(n), 1))
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	me := vm.WalletAddress(s.NodeID())
	for n := range 10 {
		w.happened(Accepted{tx(n)})
		w.happened(Accepted{tx(n)})
	}
	if got := w.page(me, 8, 5); w.count(me) != 10 || len(got) != 2 || got[0].ID != tx(8).ID || len(w.page(me, 20, 5)) != 0 {
		t.Errorf("%d wait, the last page is %v", w.count(me), got)
	}
	w.happened(Left{tx(3), core.Replaced})
	w.happened(Applied{store.LayerResult{Outcome: vm.Outcome{Results: []vm.Result{{ID: tx(1).ID, Status: vm.Success}, {ID: tx(2).ID}}}}})
	if _, waits := w.get(tx(2).ID); !waits || w.count(me) != 8 {
		t.Errorf("%d wait after one was replaced, one applied, and one passed over", w.count(me))
	}
	w.happened(Accepted{tx(3)}) // it comes again
	if _, left := w.gone(tx(3).ID); left || w.count(me) != 9 {
		t.Error("what waits again is still said to have left")
	}
	for n := range MaxLeft + 100 {
		w.happened(Left{tx(n), core.Crowded})
		w.happened(Left{tx(n), core.Overtaken})
	}
	if w.left.Len() != MaxLeft || len(w.of) != 0 || len(w.byAddress) != 0 {
		t.Errorf("%d that left are remembered, %d wait, %d addresses", w.left.Len(), len(w.of), len(w.byAddress))
	}
}

func TestLayersAreToldWithWhatIsInThem(t *testing.T) {
	s := serve(t)
	spawn, spend, failing := history(t, s)
	r := check[*spacemesh.LayersQueryResponse](t)(s.mesh.LayersQuery(deadline(t), &spacemesh.LayersQueryRequest{StartLayer: layerNumber(18), EndLayer: layerNumber(99)}))
	if len(r.Layer) != nowLayer-18+1 {
		t.Fatalf("%d layers", len(r.Layer))
	}
	at := func(n int) *spacemesh.Layer { return r.Layer[n-18] }
	want := map[int][]types.Transaction{20: {spawn}, 22: {spend, failing}}
	for n := 18; n <= nowLayer; n++ {
		l := at(n)
		if int(l.Number.Number) != n || (l.Status == spacemesh.Layer_LAYER_STATUS_APPLIED) != (n <= 22) || (len(l.RootStateHash) == 32) != (n >= 19 && n <= 22) {
			t.Errorf("layer %d: %v", n, l)
		}
		if (len(l.Blocks) == 1) != (len(want[n]) > 0) || (len(l.Activations) == 1) != (len(want[n]) > 0) {
			t.Fatalf("layer %d: %v", n, l)
		}
		for i, tx := range want[n] {
			if !bytes.Equal(l.Blocks[0].Transactions[i].Raw, tx) {
				t.Errorf("layer %d has transaction %v at place %d", n, l.Blocks[0].Transactions[i], i)
			}
		}
	}
	if !bytes.Equal(at(21).RootStateHash, at(20).RootStateHash) || bytes.Equal(at(22).RootStateHash, at(21).RootStateHash) {
		t.Error("an empty layer changed the state, or a full one did not")
	}
	if m := at(22).Blocks[0].Transactions[0]; m.Principal.Address != s.bech32(0) || m.Nonce.Counter != 1 || m.GasPrice != 2 || m.MaxSpend != 5000 || m.MaxGas == 0 || m.Template != nil {
		t.Errorf("transfer: %v", m)
	}
}

func TestAnAnswerOfLayersIsBounded(t *testing.T) {
	s := serve(t, func(c *Config) { c.Limits = DefaultLimits(); c.Limits.Transactions = 1 })
	history(t, s)
	query := func(from, to types.Layer) error {
		_, err := s.mesh.LayersQuery(deadline(t), &spacemesh.LayersQueryRequest{StartLayer: layerNumber(from), EndLayer: layerNumber(to)})
		return err
	}
	if err := query(22, 23); err != nil {
		t.Errorf("a layer that is over the limit alone: %v", err)
	}
	wantStatus(t, query(20, 22), codes.InvalidArgument, "up to 22 have more than 1 transactions")
}

func TestWhatTouchesAnAccountIsPaged(t *testing.T) {
	s := serve(t)
	spawn, spend, failing := history(t, s)
	pending := vm.Spend(s.signer(0), s.address(1), 1, 3, 1)
	s.mustSubmit(t, pending)
	ctx := deadline(t)
	mesh := func(id *spacemesh.AccountId, flags, from, offset, limit uint32) ([]string, uint32) {
		r := check[*spacemesh.AccountMeshDataQueryResponse](t)(s.mesh.AccountMeshDataQuery(ctx, &spacemesh.AccountMeshDataQueryRequest{
			Filter:   &spacemesh.AccountMeshDataFilter{AccountId: id, AccountMeshDataFlags: flags},
			MinLayer: layerNumber(types.Layer(from)), Offset: offset, MaxResults: limit,
		}))
		var got []string
		for _, d := range r.Data {
			if m := d.GetMeshTransaction(); m != nil {
				got = append(got, fmt.Sprintf("%x at %d", m.Transaction.Id[:4], m.LayerId.GetNumber()))
			} else {
				got = append(got, fmt.Sprintf("%x by %s", d.GetActivation().Id.Id[:4], d.GetActivation().Coinbase.Address))
			}
		}
		return got, r.TotalResults
	}
	name := func(tx types.Transaction, l int) string { id := tx.ID(); return fmt.Sprintf("%x at %d", id[:4], l) }
	all := []string{name(spawn, 20), name(spend, 22), name(failing, 22), name(pending, 0)}
	for _, tc := range []struct {
		from, offset, limit uint32
		want                []string
		total               uint32
	}{
		{0, 0, 0, all, 4}, {0, 1, 2, all[1:3], 4}, {0, 3, 9, all[3:], 4}, {0, 4, 9, nil, 4}, {21, 0, 0, all[1:], 3}, {23, 0, 0, all[3:], 1},
	} {
		got, total := mesh(s.accountID(0), 1, tc.from, tc.offset, tc.limit)
		if fmt.Sprint(got) != fmt.Sprint(tc.want) || total != tc.total {
			t.Errorf("from %d, offset %d, limit %d: %v of %d, want %v of %d", tc.from, tc.offset, tc.limit, got, total, tc.want, tc.total)
		}
	}
	coinbase := &spacemesh.AccountId{Address: s.atx.Coinbase.Bech32("stest")}
	if got, total := mesh(coinbase, 3, 0, 0, 0); total != 1 || !strings.Contains(got[0], coinbase.Address) {
		t.Errorf("ATXs of the coinbase: %v", got)
	}

	data := func(id *spacemesh.AccountId, flags, offset, limit uint32) []string {
		r := check[*spacemesh.AccountDataQueryResponse](t)(s.state.AccountDataQuery(ctx, &spacemesh.AccountDataQueryRequest{
			Filter: &spacemesh.AccountDataFilter{AccountId: id, AccountDataFlags: flags}, Offset: offset, MaxResults: limit,
		}))
		got := []string{fmt.Sprint(r.TotalResults)}
		for _, d := range r.AccountItem {
			switch {
			case d.GetReceipt() != nil:
				got = append(got, fmt.Sprintf("%x %v", d.GetReceipt().Id.Id[:4], d.GetReceipt().Result))
			case d.GetReward() != nil:
				got = append(got, fmt.Sprintf("reward %d", d.GetReward().Layer.Number))
			default:
				got = append(got, "account")
			}
		}
		return got
	}
	receiptOf := func(tx types.Transaction, r string) string {
		id := tx.ID()
		return fmt.Sprintf("%x TRANSACTION_RESULT_%s", id[:4], r)
	}
	want := []string{"4", receiptOf(spawn, "EXECUTED"), receiptOf(spend, "EXECUTED"), receiptOf(failing, "RUNTIME_EXCEPTION"), "account"}
	if got := data(s.accountID(0), 7, 0, 0); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := data(coinbase, 7, 1, 2); fmt.Sprint(got) != "[3 reward 22 account]" {
		t.Errorf("got %v", got)
	}
}

func TestATransactionIsParsedAndJudged(t *testing.T) {
	s := serve(t)
	ctx := deadline(t)
	good := vm.Spawn(s.signer(0), 0, 1)
	r := check[*spacemesh.ParseTransactionResponse](t)(s.tx.ParseTransaction(ctx, &spacemesh.ParseTransactionRequest{Transaction: good, Verify: true}))
	if r.Tx.MaxGas == 0 || r.Tx.Template.Address != vm.WalletTemplate().Bech32("stest") || r.Tx.Principal.Address != s.bech32(0) {
		t.Errorf("parsed %v", r.Tx)
	}
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	if _, err := s.tx.ParseTransaction(ctx, &spacemesh.ParseTransactionRequest{Transaction: forged}); err != nil {
		t.Errorf("its form is right: %v", err)
	}
	_, err := s.tx.ParseTransaction(ctx, &spacemesh.ParseTransactionRequest{Transaction: forged, Verify: true})
	wantStatus(t, err, codes.InvalidArgument, "signature is wrong")
	if s.waiting() != 0 {
		t.Error("parsing let a transaction wait")
	}
}

// Each bad transaction has its own status and reason, over gRPC and over HTTP,
// and changes nothing.
func TestABadTransactionGetsItsReason(t *testing.T) {
	s := serve(t)
	spawn, _, _ := history(t, s)
	key := s.signer(0)
	waits := vm.Spend(key, s.address(1), 1, 7, 1)
	s.mustSubmit(t, waits)
	forged := bytes.Clone(vm.Spend(key, s.address(1), 1, 9, 1))
	forged[len(forged)-1] ^= 1
	other := types.GenesisID{1}
	for _, tc := range []struct {
		name   string
		raw    []byte
		code   codes.Code
		http   int
		reason string
	}{
		{"empty", nil, codes.InvalidArgument, 400, "transaction is empty"},
		{"too large", make([]byte, types.MaxTransactionSize+1), codes.InvalidArgument, 400, "more than 1024"},
		{"no transaction", []byte("hello"), codes.InvalidArgument, 400, "malformed"},
		{"cut off", spawn[:20], codes.InvalidArgument, 400, "malformed"},
		{"wrong signature", forged, codes.InvalidArgument, 400, "signature is wrong"},
		{"another network", vm.Spend(signerOf(0, other), s.address(1), 1, 9, 1), codes.InvalidArgument, 400, "another network"},
		{"gas price zero", vm.Spend(key, s.address(1), 1, 9, 0), codes.InvalidArgument, 400, "gas price is zero"},
		{"nonce too low", vm.Spend(key, s.address(1), 1, 0, 1), codes.FailedPrecondition, 400, "nonce is too low"},
		{"balance too low", vm.Spend(key, s.address(1), 1<<60, 9, 1), codes.FailedPrecondition, 400, "balance is too low"},
		{"not spawned", vm.Spend(s.signer(3), s.address(1), 1, 0, 1), codes.FailedPrecondition, 400, "not spawned"},
		{"waits already", waits, codes.AlreadyExists, 409, "waiting already"},
		{"applied already", spawn, codes.AlreadyExists, 409, "applied in layer 20"},
		{"too cheap", vm.Spend(key, s.address(2), 1, 7, 1), codes.FailedPrecondition, 400, "gas price is too low"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root, waiting := check[*spacemesh.GlobalStateHashResponse](t)(s.state.GlobalStateHash(deadline(t), &spacemesh.GlobalStateHashRequest{})), s.waiting()
			wantStatus(t, s.submit(t, tc.raw), tc.code, tc.reason)
			code, body := s.post(t, "/v1/transaction/submittransaction", fmt.Sprintf(`{"transaction":%q}`, base64.StdEncoding.EncodeToString(tc.raw)))
			if message, _ := body["message"].(string); code != tc.http || body["code"] != float64(tc.code) || !strings.Contains(message, tc.reason) {
				t.Errorf("HTTP %d %v", code, body)
			}
			now := check[*spacemesh.GlobalStateHashResponse](t)(s.state.GlobalStateHash(deadline(t), &spacemesh.GlobalStateHashRequest{}))
			if !proto.Equal(now, root) || s.waiting() != waiting {
				t.Error("something changed")
			}
		})
	}
	for nonce := uint64(8); s.waiting() < 3; nonce++ {
		s.mustSubmit(t, vm.Spend(key, s.address(1), 1, nonce, 1))
	}
	wantStatus(t, s.submit(t, vm.Spend(key, s.address(1), 1, 20, 1)), codes.ResourceExhausted, "too many waiting")
}

func TestAnInternalFailureKeepsItsDetails(t *testing.T) {
	s := serve(t)
	s.sick = errDisk
	err := s.submit(t, vm.Spawn(s.signer(0), 0, 1))
	wantStatus(t, err, codes.Internal, "log says more")
	if strings.Contains(err.Error(), "secret") {
		t.Error("the details were told")
	}
	s.sick = fmt.Errorf("%w: it is still fetching layers", ErrNotReady)
	wantStatus(t, s.submit(t, vm.Spawn(s.signer(0), 0, 1)), codes.FailedPrecondition, "still fetching")
	_ = s.db.Close()
	_, err = s.state.GlobalStateHash(deadline(t), &spacemesh.GlobalStateHashRequest{})
	wantStatus(t, err, codes.Unavailable, "closed")
}

func TestBadQueriesGetTheirReason(t *testing.T) {
	s := serve(t)
	ctx := deadline(t)
	account := func(address string) error {
		_, err := s.state.Account(ctx, &spacemesh.AccountRequest{AccountId: &spacemesh.AccountId{Address: address}})
		return err
	}
	_, err := s.state.Account(ctx, &spacemesh.AccountRequest{})
	wantStatus(t, err, codes.InvalidArgument, "account_id.address is missing")
	wantStatus(t, account("hello"), codes.InvalidArgument, "address")
	wantStatus(t, account(s.address(0).Bech32("sm")), codes.InvalidArgument, `of network "sm"`)
	wantStatus(t, account(s.bech32(0)[:40]+"x"+s.bech32(0)[41:]), codes.InvalidArgument, "checksum")

	layers := func(from, to *spacemesh.LayerNumber) error {
		_, err := s.mesh.LayersQuery(ctx, &spacemesh.LayersQueryRequest{StartLayer: from, EndLayer: to})
		return err
	}
	wantStatus(t, layers(nil, layerNumber(3)), codes.InvalidArgument, "are needed")
	wantStatus(t, layers(layerNumber(4), layerNumber(3)), codes.InvalidArgument, "after end_layer")
	wantStatus(t, layers(layerNumber(0), layerNumber(MaxLayersQuery)), codes.InvalidArgument, "at most 100")
	wantStatus(t, layers(layerNumber(0), layerNumber(^types.Layer(0))), codes.InvalidArgument, "4294967296 layers")
	if err := layers(layerNumber(^types.Layer(0)), layerNumber(^types.Layer(0))); err != nil {
		t.Errorf("the last layer of time: %v", err)
	}

	state := func(ids ...[]byte) error {
		var list []*spacemesh.TransactionId
		for _, id := range ids {
			list = append(list, &spacemesh.TransactionId{Id: id})
		}
		_, err := s.tx.TransactionsState(ctx, &spacemesh.TransactionsStateRequest{TransactionId: list})
		return err
	}
	wantStatus(t, state(), codes.InvalidArgument, "0 ids")
	wantStatus(t, state(make([]byte, 31)), codes.InvalidArgument, "31 bytes, not 32")
	wantStatus(t, state(make([]byte, 33)), codes.InvalidArgument, "33 bytes, not 32")
	wantStatus(t, state(make([][]byte, MaxTransactionIDs+1)...), codes.InvalidArgument, "1001 ids")

	_, err = s.mesh.AccountMeshDataQuery(ctx, &spacemesh.AccountMeshDataQueryRequest{})
	wantStatus(t, err, codes.InvalidArgument, "filter is missing")
	_, err = s.mesh.AccountMeshDataQuery(ctx, &spacemesh.AccountMeshDataQueryRequest{Filter: &spacemesh.AccountMeshDataFilter{AccountId: s.accountID(0), AccountMeshDataFlags: 4}})
	wantStatus(t, err, codes.InvalidArgument, "flags is 4")
	_, err = s.state.AccountDataQuery(ctx, &spacemesh.AccountDataQueryRequest{})
	wantStatus(t, err, codes.InvalidArgument, "filter is missing")
	_, err = s.state.AccountDataQuery(ctx, &spacemesh.AccountDataQueryRequest{Filter: &spacemesh.AccountDataFilter{AccountId: s.accountID(0)}})
	wantStatus(t, err, codes.InvalidArgument, "flags is 0")
	_, err = s.mesh.MalfeasanceQuery(ctx, &spacemesh.MalfeasanceRequest{})
	wantStatus(t, err, codes.Unimplemented, "not kept by this version")
}

func TestBadHTTPGetsItsStatus(t *testing.T) {
	s := serve(t)
	for _, tc := range []struct {
		name, path, body string
		http             int
		reason           string
	}{
		{"no JSON", "/v1/transaction/submittransaction", `{"transaction":`, 400, "not JSON: it ends too early"},
		{"not base64", "/v1/transaction/submittransaction", `{"transaction":"%%%"}`, 400, "invalid value"},
		{"misspelt field", "/v1/transaction/submittransaction", `{"transactoin":""}`, 400, "unknown field"},
		{"wrong type", "/v1/globalstate/account", `{"accountId":7}`, 400, "unexpected token"},
		{"two values", "/v1/globalstate/account", `{} {}`, 400, "something follows its end"},
		{"unknown path", "/v1/globalstate/everything", `{}`, 404, "Not Found"},
		{"too large", "/v1/transaction/submittransaction", `{"transaction":"` + strings.Repeat("A", 300<<10) + `"}`, 413, "too large"},
		{"an id of 31 bytes", "/v1/transaction/transactionsstate", `{"transactionId":[{"id":"` + base64.StdEncoding.EncodeToString(make([]byte, 31)) + `"}]}`, 400, "31 bytes"},
		{"a stream with a misspelt field", "/v1/mesh/epochstream", `{"epcoh":1}`, 400, "unknown field"},
		{"a stream that there is not", "/v1/node/errorstream", `{}`, 501, "not streamed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, body := s.post(t, tc.path, tc.body)
			message, _ := body["message"].(string)
			if code != tc.http || !strings.Contains(message, tc.reason) || strings.Contains(message, "\n") {
				t.Errorf("HTTP %d %v", code, body)
			}
		})
	}
	code, body := s.post(t, "/v1/node/status", `{}`)
	if code != 200 || body["status"].(map[string]any)["isSynced"] != true {
		t.Errorf("status: %d %v", code, body)
	}
	code, body = s.post(t, "/v1/globalstate/account", fmt.Sprintf(`{"accountId":{"address":%q}}`, s.bech32(0)))
	if code != 200 || body["accountWrapper"].(map[string]any)["stateCurrent"].(map[string]any)["balance"].(map[string]any)["value"] == "0" {
		t.Errorf("account: %d %v", code, body)
	}
}

func TestTheGatewayAcknowledgesProofs(t *testing.T) {
	s := serve(t)
	ctx := deadline(t)
	m := &types.PoetProofMessage{Proof: types.PoetProof{Leaves: []types.Hash32{{1}}, NumLeaves: 5}, RoundID: "3"}
	data, ref := codec.Encode(m), m.Proof.Ref()
	publish := func(data []byte, network []byte) (*gatewaypb.PublishPoetResponse, error) {
		return s.gateway.PublishPoet(ctx, &gatewaypb.PublishPoetRequest{Data: data, GenesisId: network})
	}
	_, err := publish(data, make([]byte, 20))
	wantStatus(t, err, codes.FailedPrecondition, s.params.Network.String())
	_, err = publish(nil, nil)
	wantStatus(t, err, codes.InvalidArgument, "data is empty")
	_, err = publish(data[1:], nil)
	wantStatus(t, err, codes.InvalidArgument, "not valid")
	_, err = s.gateway.GatewayProof(ctx, &gatewaypb.GatewayProofRequest{Ref: ref[:]})
	wantStatus(t, err, codes.NotFound, ref.String())
	s.sick = fmt.Errorf("%w: no peers", ErrNotReady)
	_, err = publish(data, nil)
	wantStatus(t, err, codes.FailedPrecondition, "no peers")
	s.sick = nil

	for _, known := range []bool{false, true} {
		r, err := publish(data, s.params.Network[:])
		if err != nil || !bytes.Equal(r.Ref, ref[:]) || r.Known != known || !r.Validated || !r.Stored || r.Peers != 3 {
			t.Errorf("published: %v, %v", r, err)
		}
	}
	if r, err := s.gateway.BroadcastPoet(ctx, &gatewaypb.BroadcastPoetRequest{Data: data}); err != nil || r.Status.Code != 0 {
		t.Errorf("broadcast: %v, %v", r, err)
	}
	_, err = s.gateway.BroadcastPoet(ctx, &gatewaypb.BroadcastPoetRequest{Data: []byte("x")})
	wantStatus(t, err, codes.InvalidArgument, "not valid")
	if r, err := s.gateway.GatewayProof(ctx, &gatewaypb.GatewayProofRequest{Ref: ref[:]}); err != nil || !bytes.Equal(r.Data, data) {
		t.Errorf("proof: %v, %v", r, err)
	}
	_, err = s.gateway.GatewayProof(ctx, &gatewaypb.GatewayProofRequest{Ref: ref[:31]})
	wantStatus(t, err, codes.InvalidArgument, "31 bytes")
	if r, err := s.gateway.GatewayPeers(ctx, &gatewaypb.GatewayPeersRequest{}); err != nil || r.Id != "gateway-1" || len(r.Peers) != 0 {
		t.Errorf("peers: %v, %v", r, err)
	}
	_, err = publish(make([]byte, DefaultLimits().Message+1), nil)
	wantStatus(t, err, codes.ResourceExhausted, "larger than max")
}

// listServices asks the server by reflection what it has.
func listServices(t *testing.T, s *served) []string {
	stream := check[grpc.BidiStreamingClient[reflectionpb.ServerReflectionRequest, reflectionpb.ServerReflectionResponse]](t)(
		reflectionpb.NewServerReflectionClient(s.conn).ServerReflectionInfo(deadline(t)))
	ask := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
	if err := stream.Send(ask); err != nil {
		t.Fatal(err)
	}
	answer := check[*reflectionpb.ServerReflectionResponse](t)(stream.Recv())
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.Name)
	}
	return names
}

func TestReflectionListsThePublicServicesAndNoOther(t *testing.T) {
	want := []string{
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
		"spacemesh.v1.GatewayService", "spacemesh.v1.GlobalStateService", "spacemesh.v1.MeshService", "spacemesh.v1.NodeService",
		"spacemesh.v1.TransactionService",
	}
	if got := listServices(t, serve(t)); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	without := serve(t, func(c *Config) { c.Gateway = nil })
	if got := listServices(t, without); len(got) != len(want)-1 {
		t.Errorf("a node that is no gateway has %v", got)
	}
}

// Every method, found by reflection, answers an empty request with an answer
// or a reason: never with Internal, and with Unimplemented only where there is
// no part yet.
func TestEveryMethodAnswersAnEmptyRequest(t *testing.T) {
	s := serve(t)
	unimplemented := map[string]bool{
		"spacemesh.v1.NodeService.ErrorStream": true, "spacemesh.v1.MeshService.MalfeasanceQuery": true, "spacemesh.v1.MeshService.MalfeasanceStream": true,
	}
	methods := 0
	for _, name := range listServices(t, s) {
		if !strings.HasPrefix(name, "spacemesh.") {
			continue
		}
		d := check[protoreflect.Descriptor](t)(protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name)))
		list := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range list.Len() {
			m := list.Get(i)
			methods++
			if m.IsStreamingServer() && !unimplemented[string(m.FullName())] {
				continue // they have tests of their own, and do not end
			}
			path := fmt.Sprintf("/%s/%s", name, m.Name())
			var err error
			if out := dynamicpb.NewMessage(m.Output()); m.IsStreamingServer() {
				var stream grpc.ClientStream
				if stream, err = s.conn.NewStream(deadline(t), &grpc.StreamDesc{ServerStreams: true}, path); err == nil {
					_ = stream.SendMsg(dynamicpb.NewMessage(m.Input())) // Recv tells the error
					err = stream.RecvMsg(out)
				}
			} else {
				err = s.conn.Invoke(deadline(t), path, dynamicpb.NewMessage(m.Input()), out)
			}
			switch code := status.Code(err); {
			case (code == codes.Unimplemented) != unimplemented[string(m.FullName())]:
				t.Errorf("%s: %v", path, err)
			case code != codes.OK && code != codes.InvalidArgument && code != codes.Unimplemented:
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	if methods < 30 {
		t.Errorf("only %d methods", methods)
	}
}

func TestHealthSaysServingUntilTheEnd(t *testing.T) {
	s := serve(t)
	client := healthpb.NewHealthClient(s.conn)
	watch := check[grpc.ServerStreamingClient[healthpb.HealthCheckResponse]](t)(client.Watch(deadline(t), &healthpb.HealthCheckRequest{}))
	if r := check[*healthpb.HealthCheckResponse](t)(watch.Recv()); r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("health is %v", r.Status)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if r := check[*healthpb.HealthCheckResponse](t)(watch.Recv()); r.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Fatalf("health is %v", r.Status)
	}
}

func FuzzJSON(f *testing.F) {
	s := serve(f, func(c *Config) { c.Limits = DefaultLimits(); c.Limits.Rate, c.Limits.Burst = 1e9, 1e9 })
	handler := s.Server.rest.Handler
	// The eight that the seeds were made for, then all.
	paths := append([]string{
		"/v1/transaction/submittransaction", "/v1/transaction/parsetransaction", "/v1/transaction/transactionsstate",
		"/v1/globalstate/account", "/v1/globalstate/accountdataquery", "/v1/mesh/accountmeshdataquery", "/v1/mesh/layersquery", "/v1/node/echo",
	}, doortest.JSONPaths("spacemesh.v1.NodeService", "spacemesh.v1.MeshService", "spacemesh.v1.TransactionService", "spacemesh.v1.GlobalStateService")...)
	if len(paths) < 8+40 {
		f.Fatalf("only %d paths", len(paths))
	}
	good := base64.StdEncoding.EncodeToString(vm.Spend(s.signer(1), s.address(0), 1, 0, 1))
	f.Add(uint8(0), []byte(`{"transaction":"`+good+`"}`))
	f.Add(uint8(1), []byte(`{"transaction":"`+good+`","verify":true}`))
	f.Add(uint8(2), []byte(`{"transactionId":[{"id":"`+base64.StdEncoding.EncodeToString(make([]byte, 32))+`"}]}`))
	f.Add(uint8(3), []byte(`{"accountId":{"address":"`+s.bech32(0)+`"}}`))
	f.Add(uint8(4), []byte(`{"filter":{"accountId":{"address":"`+s.bech32(0)+`"},"accountDataFlags":7},"offset":4294967295}`))
	f.Add(uint8(5), []byte(`{"filter":{"accountId":{"address":"`+s.bech32(0)+`"},"accountMeshDataFlags":3},"minLayer":{"number":4294967295},"maxResults":1}`))
	f.Add(uint8(6), []byte(`{"startLayer":{"number":4294967295},"endLayer":{"number":4294967295}}`))
	f.Add(uint8(7), []byte(`{"msg":{"value":"\u0000"}}`))
	for i, path := range paths[8:] {
		f.Add(uint8(8+i), []byte(`{}`))
		if strings.HasSuffix(path, "stream") {
			f.Add(uint8(8+i), []byte(`{"filter":{"accountId":{"address":"`+s.bech32(0)+`"},"accountDataFlags":7,"accountMeshDataFlags":3}}`))
		}
	}
	allowed := map[int]bool{200: true, 400: true, 404: true, 409: true, 413: true, 429: true, 501: true}
	f.Fuzz(func(t *testing.T, path uint8, body []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond) // streams end with it
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node"+paths[int(path)%len(paths)], bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = "192.0.2.1:1"
		w := &answer{header: http.Header{}, code: 200}
		handler.ServeHTTP(w, r)
		if !allowed[w.code] && ctx.Err() == nil {
			t.Fatalf("HTTP %d %s for %s", w.code, w.body.Bytes(), hex.EncodeToString(body))
		}
		for line := range bytes.Lines(w.body.Bytes()) {
			if !json.Valid(line) {
				t.Fatalf("%q is not JSON on lines of its own", w.body.Bytes())
			}
		}
	})
}

// FuzzCalls gives bytes to every gRPC method, also those of the operator.
func FuzzCalls(f *testing.F) {
	s := serve(f, func(c *Config) { c.Limits = DefaultLimits(); c.Limits.PublishRate = 0 })
	b := &backend{Config: s.cfg, guard: s.guard, publishing: make(chan struct{}, 1)}
	services := []doortest.Service{
		{Desc: &spacemesh.NodeService_ServiceDesc, Impl: nodeService{backend: b}}, {Desc: &spacemesh.MeshService_ServiceDesc, Impl: meshService{backend: b}},
		{Desc: &spacemesh.TransactionService_ServiceDesc, Impl: txService{backend: b}}, {Desc: &spacemesh.GlobalStateService_ServiceDesc, Impl: stateService{backend: b}},
		{Desc: &gatewaypb.GatewayService_ServiceDesc, Impl: gatewayService{backend: b}},
		{Desc: &spacemesh.DebugService_ServiceDesc, Impl: debugService{node: s.ledger}}, {Desc: &spacemesh.AdminService_ServiceDesc, Impl: adminService{node: s.ledger}},
	}
	for name := range s.grpc.GetServiceInfo() {
		if strings.HasPrefix(name, "spacemesh") && !slices.ContainsFunc(services, func(d doortest.Service) bool { return d.Desc.ServiceName == name }) {
			f.Errorf("%s is served and not fuzzed", name)
		}
	}
	methods := doortest.Methods(services)
	add := func(method string, m proto.Message) {
		f.Add(uint8(slices.Index(methods, method)), check[[]byte](f)(proto.Marshal(m)))
	}
	for i := range methods {
		f.Add(uint8(i), []byte(nil))
	}
	add(spacemesh.TransactionService_SubmitTransaction_FullMethodName, &spacemesh.SubmitTransactionRequest{Transaction: vm.Spend(s.signer(1), s.address(0), 1, 0, 1)})
	add(spacemesh.TransactionService_TransactionsStateStream_FullMethodName, &spacemesh.TransactionsStateStreamRequest{TransactionId: []*spacemesh.TransactionId{{Id: make([]byte, 32)}}})
	add(spacemesh.GlobalStateService_AccountDataStream_FullMethodName, &spacemesh.AccountDataStreamRequest{Filter: &spacemesh.AccountDataFilter{AccountId: s.accountID(0), AccountDataFlags: 7}})
	add(spacemesh.MeshService_AccountMeshDataQuery_FullMethodName, &spacemesh.AccountMeshDataQueryRequest{Filter: &spacemesh.AccountMeshDataFilter{AccountId: s.accountID(0), AccountMeshDataFlags: 3}, MaxResults: 1 << 31})
	add(spacemesh.MeshService_LayersQuery_FullMethodName, &spacemesh.LayersQueryRequest{StartLayer: &spacemesh.LayerNumber{Number: 1}, EndLayer: &spacemesh.LayerNumber{Number: 1 << 31}})
	add(gatewaypb.GatewayService_PublishPoet_FullMethodName, &gatewaypb.PublishPoetRequest{GenesisId: make([]byte, 20), Data: []byte{1}})
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		method := methods[int(which)%len(methods)]
		if err := doortest.Call(ctx, services, method, raw); doortest.Blame(err) != "" {
			t.Fatalf("%s: %s", method, doortest.Blame(err))
		}
	})
}

type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(code int)        { a.code = code }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
