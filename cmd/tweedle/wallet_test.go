package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"tweedle/base/durable"
	"tweedle/protocol/txpool"
	"tweedle/protocol/vm"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// ledgerNode is a node without a network: the real ledger and pool behind the
// real API. Blocks come when apply is called.
type ledgerNode struct {
	pb.UnimplementedTransactionServiceServer
	pb.UnimplementedGlobalStateServiceServer
	pb.UnimplementedMeshServiceServer

	addr   string
	params vm.Params

	layerSeconds uint64

	mu      sync.Mutex // guards the fields below
	state   vm.State
	pool    *txpool.Pool
	layer   types.Layer
	results []vm.Result
	rewards []paid
	txs     map[types.TransactionID]types.Transaction
}

func startLedgerNode(t *testing.T) *ledgerNode {
	t.Helper()
	p := vm.LocalParams()
	p.Network = types.GenesisID{5}
	founder, err := signing.NewSigner(signing.SeedFrom("founder"), p.Network)
	if err != nil {
		t.Fatal(err)
	}
	p.Genesis = []vm.GenesisAccount{{Address: walletAddressOf(founder), Balance: 100_000_000 * vm.Smidges}}
	state, err := vm.Genesis(p)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &ledgerNode{
		addr: listener.Addr().String(), layerSeconds: 30, params: p, state: state, layer: 19,
		pool: txpool.New(state, p, txpool.DefaultLimits()), txs: map[types.TransactionID]types.Transaction{},
	}
	server := grpc.NewServer()
	pb.RegisterTransactionServiceServer(server, n)
	pb.RegisterGlobalStateServiceServer(server, n)
	pb.RegisterMeshServiceServer(server, n)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

// founderKey writes the key of the genesis account and returns its address.
func founderKey(t *testing.T, path string) string {
	t.Helper()
	if err := durable.NewSecret(durable.OS{}, path, hex.AppendEncode(nil, signing.SeedFrom("founder"))); err != nil {
		t.Fatal(err)
	}
	return mustTweedle(t, "wallet", "address", "-k", path)
}

// run applies a block of all that waits every few milliseconds until the test
// ends.
func (n *ledgerNode) run(t *testing.T) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				n.apply(nil)
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

func (n *ledgerNode) apply(rewards []vm.Share) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.layer++
	b := vm.Block{Layer: n.layer, Rewards: rewards}
	for _, v := range n.pool.Select(types.Hash32{}, 1000) {
		b.Txs = append(b.Txs, v.Tx)
	}
	out := vm.Apply(n.state, b, n.params)
	n.state, n.results = out.State, append(n.results, out.Results...)
	for _, r := range out.Rewards {
		n.rewards = append(n.rewards, paid{r, n.layer})
	}
	n.pool.Applied(n.state)
}

// paid is a reward and its layer.
type paid struct {
	vm.Reward
	layer types.Layer
}

func (n *ledgerNode) GenesisID(context.Context, *pb.GenesisIDRequest) (*pb.GenesisIDResponse, error) {
	return &pb.GenesisIDResponse{GenesisId: n.params.Network[:]}, nil
}

func (n *ledgerNode) GenesisTime(context.Context, *pb.GenesisTimeRequest) (*pb.GenesisTimeResponse, error) {
	return &pb.GenesisTimeResponse{Unixtime: &pb.SimpleInt{Value: uint64(ledgerGenesis.Unix())}}, nil
}

func (n *ledgerNode) EpochNumLayers(context.Context, *pb.EpochNumLayersRequest) (*pb.EpochNumLayersResponse, error) {
	return &pb.EpochNumLayersResponse{Numlayers: &pb.LayerNumber{Number: 4}}, nil
}

func (n *ledgerNode) LayerDuration(context.Context, *pb.LayerDurationRequest) (*pb.LayerDurationResponse, error) {
	return &pb.LayerDurationResponse{Duration: &pb.SimpleInt{Value: n.layerSeconds}}, nil
}

var ledgerGenesis = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func (n *ledgerNode) SubmitTransaction(_ context.Context, r *pb.SubmitTransactionRequest) (*pb.SubmitTransactionResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	raw := types.Transaction(r.Transaction)
	tx, err := vm.Parse(raw)
	if err == nil {
		_, err = n.pool.Add(tx)
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	n.txs[raw.ID()] = raw
	return &pb.SubmitTransactionResponse{}, nil
}

func (n *ledgerNode) TransactionsState(_ context.Context, r *pb.TransactionsStateRequest) (*pb.TransactionsStateResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	resp := &pb.TransactionsStateResponse{}
	for _, id := range r.TransactionId {
		s := pb.TransactionState_TRANSACTION_STATE_MEMPOOL
		for _, result := range n.results {
			if bytes.Equal(result.ID[:], id.Id) {
				s = pb.TransactionState_TRANSACTION_STATE_PROCESSED
			}
		}
		resp.TransactionsState = append(resp.TransactionsState, &pb.TransactionState{Id: id, State: s})
		if r.IncludeTransactions {
			resp.Transactions = append(resp.Transactions, &pb.Transaction{Id: id.Id, Raw: n.txs[types.TransactionID(id.Id)]})
		}
	}
	return resp, nil
}

func (n *ledgerNode) Account(_ context.Context, r *pb.AccountRequest) (*pb.AccountResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	address, err := types.ParseAddress(r.AccountId.Address, n.params.HRP)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	a := n.state.Account(address)
	nonce, balance := n.pool.Projected(address)
	return &pb.AccountResponse{AccountWrapper: &pb.Account{
		StateCurrent:   &pb.AccountState{Counter: a.NextNonce, Balance: &pb.Amount{Value: a.Balance}},
		StateProjected: &pb.AccountState{Counter: nonce, Balance: &pb.Amount{Value: balance}},
	}}, nil
}

// AccountDataQuery serves two items a page, whatever is asked for.
func (n *ledgerNode) AccountDataQuery(_ context.Context, r *pb.AccountDataQueryRequest) (*pb.AccountDataQueryResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []*pb.AccountData
	for _, result := range n.results {
		for _, a := range result.Addresses {
			if a.Bech32(n.params.HRP) != r.Filter.AccountId.Address {
				continue
			}
			outcome := pb.TransactionReceipt_TRANSACTION_RESULT_EXECUTED
			if result.Status != vm.Success {
				outcome = pb.TransactionReceipt_TRANSACTION_RESULT_RUNTIME_EXCEPTION
			}
			all = append(all, &pb.AccountData{Datum: &pb.AccountData_Receipt{Receipt: &pb.TransactionReceipt{
				Id: &pb.TransactionId{Id: result.ID[:]}, Result: outcome, GasUsed: result.Gas,
				Fee: &pb.Amount{Value: result.Fee}, Layer: &pb.LayerNumber{Number: uint32(result.Layer)},
			}}})
		}
	}
	if r.Filter.AccountDataFlags&uint32(pb.AccountDataFlag_ACCOUNT_DATA_FLAG_REWARD) != 0 {
		for _, reward := range n.rewards {
			if reward.Coinbase.Bech32(n.params.HRP) == r.Filter.AccountId.Address {
				all = append(all, &pb.AccountData{Datum: &pb.AccountData_Reward{Reward: &pb.Reward{
					Layer: &pb.LayerNumber{Number: uint32(reward.layer)}, Total: &pb.Amount{Value: reward.Total},
				}}})
			}
		}
	}
	from := min(int(r.Offset), len(all))
	return &pb.AccountDataQueryResponse{
		TotalResults: uint32(len(all)), AccountItem: all[from:min(from+2, len(all))],
	}, nil
}

// tweedle runs a command as main does, without leaving the test.
func tweedle(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out, progress bytes.Buffer
	root := rootCommand()
	root.SetOut(&out)
	root.SetErr(&progress)
	root.SetArgs(args)
	err = root.ExecuteContext(t.Context())
	if slices.Contains(args, "--json") {
		follows(t, args, out.String())
	}
	return out.String(), err
}

func mustTweedle(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tweedle(t, args...)
	if err != nil {
		t.Fatalf("tweedle %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(out)
}

// refused runs a command that must fail, and returns its one line.
func refused(t *testing.T, wantUsage bool, args ...string) string {
	t.Helper()
	out, err := tweedle(t, args...)
	if err == nil {
		t.Fatalf("tweedle %s succeeded: %s", strings.Join(args, " "), out)
	}
	var usage usageError
	if errors.As(err, &usage) != wantUsage {
		t.Errorf("tweedle %s: usage error %v, want %v: %v", strings.Join(args, " "), !wantUsage, wantUsage, err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error of several lines: %q", err)
	}
	return err.Error()
}

func TestAKeyIsKeptForItsOwnerAndNeverOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alice.key")
	if got := refused(t, false, "wallet", "address", "-k", path); !strings.Contains(got, "wallet new") {
		t.Error(got)
	}
	address := mustTweedle(t, "wallet", "new", "-k", path)
	if _, err := types.ParseAddress(address, "stest"); err != nil {
		t.Fatal(err)
	}
	if got := mustTweedle(t, "wallet", "address", "-k", path); got != address {
		t.Errorf("%s, then %s", address, got)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if got := refused(t, false, "wallet", "new", "-k", path); !strings.Contains(got, "never overwritten") {
		t.Error(got)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Fatal("the key changed")
	}
	if left, err := filepath.Glob(path + "?*"); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := refused(t, false, "wallet", "address", "-k", path); !strings.Contains(got, "chmod 600") {
		t.Error(got)
	}
	if err := os.WriteFile(path, []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := refused(t, false, "wallet", "address", "-k", path); strings.Contains(got, "not a key") {
		t.Errorf("the error repeats the content: %s", got)
	}
	refused(t, false, "wallet", "new", "-k", filepath.Join(path, "below-a-file"))
}

func TestTheNetworksPrefixIsAFlag(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	out := mustTweedle(t, "wallet", "new", "-k", path, "--hrp", "sm", "--json")
	var got map[string]string
	if err := json.Unmarshal([]byte(out), &got); err != nil || !strings.HasPrefix(got["address"], "sm1qqqqqq") || got["key_file"] != path {
		t.Errorf("%s: %v", out, err)
	}
}

func TestAMistakeOnTheCommandLineIsAUsageError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	to := mustTweedle(t, "wallet", "new", "-k", path)
	for _, tc := range []struct {
		args []string
		says string
	}{
		{[]string{"send", to}, "an address and an amount"},
		{[]string{"send", "sm1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqg56ypy7", "1SMH"}, `network "sm"`},
		{[]string{"send", to[:len(to)-1] + "b", "1SMH"}, "bech32"},
		{[]string{"send", to, "1"}, "no unit"},
		{[]string{"send", to, "1SMH", "--gas-price", "0"}, "at least 1"},
		{[]string{"balance", "nonsense"}, "prefix"},
		{[]string{"history", "--limit", "0"}, "at least 1"},
		{[]string{"address", "--hrp", "SM"}, "lower-case"},
		{[]string{"address", "x"}, "unknown"},
		{[]string{"new", "--nonsense"}, "nonsense"},
	} {
		if got := refused(t, true, append([]string{"wallet"}, tc.args...)...); !strings.Contains(got, tc.says) {
			t.Errorf("%v: %s, want %q", tc.args, got, tc.says)
		}
	}
}

func TestCoinsAreSentAndSeenAtBothEnds(t *testing.T) {
	n := startLedgerNode(t)
	n.run(t)
	dir := t.TempDir()
	rich, poor := filepath.Join(dir, "rich"), filepath.Join(dir, "poor")
	from := founderKey(t, rich)
	to := mustTweedle(t, "wallet", "new", "-k", poor)
	if got := mustTweedle(t, "wallet", "balance", from, "--node", n.addr); got != "100000000SMH" {
		t.Fatalf("the founder has %s", got)
	}
	var s sent
	out := mustTweedle(t, "wallet", "send", to, "1.5SMH", "-k", rich, "--node", n.addr, "--wait", "--json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	if s.Status != "success" || s.SpawnID == "" || s.Result == nil || s.Result.Gas == 0 || s.Result.Fee != s.Result.Gas {
		t.Fatalf("%s", out)
	}
	// The second time there is nothing to spawn.
	out = mustTweedle(t, "wallet", "send", to, "1smidge", "-k", rich, "--node", n.addr, "--wait", "--gas-price", "2")
	if !strings.Contains(out, "applied in layer") {
		t.Fatal(out)
	}
	if got := mustTweedle(t, "wallet", "balance", "-k", poor, "--node", n.addr); got != "1.500000001SMH" {
		t.Fatalf("the recipient has %s", got)
	}
	n.apply([]vm.Share{{Coinbase: mustAddress(t, to), Num: 1, Den: 1}})
	for key, want := range map[string][]string{
		rich: {"spawn", "sent 1500000000 " + to, "sent 1 " + to},
		poor: {"received 1500000000 " + from, "received 1 " + from, "reward"},
	} {
		var got []string
		for line := range strings.Lines(mustTweedle(t, "wallet", "history", "-k", key, "--node", n.addr, "--json")) {
			var e event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			text := e.Kind
			if e.Other != "" {
				text += " " + jsonNumber(e.Amount) + " " + e.Other
			}
			got = append(got, text)
			if (e.Fee != 0) != (e.Kind == "sent" || e.Kind == "spawn") {
				t.Errorf("fee of %s is %d", e.Kind, e.Fee)
			}
		}
		if strings.Join(got, "; ") != strings.Join(want, "; ") {
			t.Errorf("history: %v, want %v", got, want)
		}
	}
	if got := mustTweedle(t, "wallet", "history", "-k", rich, "--node", n.addr, "--limit", "1"); strings.Contains(got, "\n") || !strings.Contains(got, "sent") {
		t.Errorf("the latest is %q", got)
	}
}

func TestARewardHasItsEpochAndTimeAndAllHaveTheirSum(t *testing.T) {
	n := startLedgerNode(t)
	key := filepath.Join(t.TempDir(), "key")
	address := mustAddress(t, mustTweedle(t, "wallet", "new", "-k", key))
	for range 3 {
		n.apply([]vm.Share{{Coinbase: address, Num: 1, Den: 1}})
	}
	got := strings.Split(mustTweedle(t, "wallet", "history", "-k", key, "--node", n.addr, "--limit", "1"), "\n")
	if len(got) != 2 || !strings.HasPrefix(got[0], "layer 22      epoch 5     2026-11-28T12:11:00Z reward ") {
		t.Errorf("%q", got)
	}
	if want := "3 rewards in all, layers 20-22: "; len(got) != 2 || !strings.HasPrefix(got[1], want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, line := range got {
		if len(line) > 80 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	n.layerSeconds = 0 // layers of less than a second: the API cannot tell when they are
	if got := mustTweedle(t, "wallet", "history", "-k", key, "--node", n.addr, "--json"); strings.Contains(got, "time") || strings.Count(got, `"epoch":5,"kind"`) != 3 {
		t.Error(got)
	}
}

func jsonNumber(v uint64) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func mustAddress(t *testing.T, s string) types.Address {
	t.Helper()
	a, err := types.ParseAddress(s, "stest")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestANodesRefusalIsTheReasonThatIsPrinted(t *testing.T) {
	n := startLedgerNode(t)
	n.run(t)
	dir := t.TempDir()
	rich, poor := filepath.Join(dir, "rich"), filepath.Join(dir, "poor")
	founderKey(t, rich)
	to := mustTweedle(t, "wallet", "new", "-k", poor)
	if got := refused(t, false, "wallet", "send", to, "200000000SMH", "-k", rich, "--node", n.addr); !strings.Contains(got, "balance is too low") {
		t.Error(got)
	}
	if got := refused(t, false, "wallet", "send", to, "1SMH", "-k", poor, "--node", n.addr); !strings.Contains(got, "must be spawned first") || !strings.Contains(got, "balance is too low") {
		t.Error(got)
	}
}

func TestANodeThatAppliesNothingIsWaitedForNoLongerThanAsked(t *testing.T) {
	n := startLedgerNode(t)
	rich := filepath.Join(t.TempDir(), "rich")
	to := founderKey(t, rich)
	if got := refused(t, false, "wallet", "send", to, "1SMH", "-k", rich, "--node", n.addr, "--timeout", "2s"); !strings.Contains(got, "--timeout") {
		t.Error(got)
	}
	// The spawn waits already; it is not sent again.
	if got := refused(t, false, "wallet", "send", to, "1SMH", "-k", rich, "--node", n.addr, "--timeout", "2s"); !strings.Contains(got, "did not advance") {
		t.Error(got)
	}
	if n.pool.Len() != 1 {
		t.Errorf("%d transactions wait", n.pool.Len())
	}
}

// The deadline goes to the node with the call, so its answer can come first.
func TestANodeThatKnowsOurDeadlineFirstChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		busy := func(ctx context.Context, _ *pb.AccountRequest, _ ...grpc.CallOption) (*pb.AccountResponse, error) {
			at, _ := ctx.Deadline()
			time.Sleep(time.Until(at) - time.Millisecond)
			return nil, status.Error(codes.DeadlineExceeded, "context deadline exceeded")
		}
		err := poll(ctx, "account x did not advance", func() (bool, error) {
			_, err := call(ctx, &nodeClient{node: "here"}, busy, &pb.AccountRequest{})
			return false, err
		})
		if err == nil || !strings.Contains(err.Error(), "did not advance within --timeout") {
			t.Error(err)
		}
		if _, err := call(t.Context(), &nodeClient{node: "here"}, busy, &pb.AccountRequest{}); err == nil || !strings.Contains(err.Error(), "within 15s") {
			t.Error(err)
		}
	})
}

func TestANodeThatIsNotThereIsSaidToBe(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	path := filepath.Join(t.TempDir(), "k")
	mustTweedle(t, "wallet", "new", "-k", path)
	if got := refused(t, false, "wallet", "balance", "-k", path, "--node", addr); !strings.Contains(got, "is it running") {
		t.Error(got)
	}
}

func TestAFailedTransactionIsAnError(t *testing.T) {
	cmd := walletCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	failed := newReceipt(&pb.TransactionReceipt{Result: pb.TransactionReceipt_TRANSACTION_RESULT_INSUFFICIENT_FUNDS})
	err := (&walletOptions{}).report(cmd, sent{ID: "ab", Status: "failure", Result: &failed})
	if err == nil || !strings.Contains(err.Error(), "balance was too low") || !strings.Contains(out.String(), "failed in layer") {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestAmountsSurviveTheirWrittenForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Uint64().Draw(t, "amount")
		if got, err := parseAmount(formatAmount(v)); err != nil || got != v {
			t.Fatalf("%d is written %s and read as %d, %v", v, formatAmount(v), got, err)
		}
	})
	for in, want := range map[string]uint64{
		"1SMH": vm.Smidges, "0.5 smh": vm.Smidges / 2, "1.000000001SMH": vm.Smidges + 1, "7smidge": 7, "2.SMH": 2 * vm.Smidges,
	} {
		if got, err := parseAmount(in); err != nil || got != want {
			t.Errorf("%s: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", "1", "SMH", "-1SMH", "1.0000000001SMH", "1e3SMH", "1.5smidge", "18446744074SMH", "18446744073709551616smidge", "1..2SMH", "1.-2SMH", "+1SMH",
	} {
		if got, err := parseAmount(in); err == nil {
			t.Errorf("%q is read as %d", in, got)
		}
	}
}

func FuzzParseAmount(f *testing.F) {
	f.Add("1.5SMH")
	f.Add("7smidge")
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := parseAmount(s); err == nil {
			if again, err := parseAmount(formatAmount(v)); err != nil || again != v {
				t.Fatalf("%q is %d, then %d, %v", s, v, again, err)
			}
		}
	})
}
