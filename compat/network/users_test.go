//go:build linux

package network

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const (
	coin = 1_000_000_000 // smidges

	// gasOfSpend is the published price of a plain transfer (reference/protocol.md A11).
	gasOfSpend = 33369
)

// grpcurl reads everything of a node that a user needs, knowing only its
// address; alice gets coins by the wallet, and bob from alice by transactions
// that are made here.
func readWithGrpcurl(t *testing.T, n *testnet, alice, bob wallet) {
	s := n.status(t)
	first, second := s.Nodes[0].GRPC, s.Nodes[1].GRPC
	got := services(t, first)
	for _, want := range []string{
		"spacemesh.v1.NodeService", "spacemesh.v1.MeshService", "spacemesh.v1.GlobalStateService", "spacemesh.v1.TransactionService",
		"spacemesh.v1.GatewayService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s among %v", want, got)
		}
	}
	for _, admin := range []string{"spacemesh.v1.AdminService", "spacemesh.v1.DebugService"} {
		if slices.Contains(got, admin) {
			t.Errorf("everybody can reach %s", admin)
		}
	}
	for _, node := range s.Nodes {
		if id := genesisOf(t, node.GRPC); id != n.genesisID() {
			t.Errorf("%s is of network %s, the testnet of %s", node.Name, id, n.genesisID())
		}
	}
	at := readTiming(t, s)
	s = n.until(t, at.first+patience*at.epoch, "there is a first block", func(s status) bool {
		_, common := s.applied()
		return common >= at.first
	})
	if st := ask[nodeStatus](t, first, "spacemesh.v1.NodeService/Status", "").Status; !st.IsSynced || st.ConnectedPeers == 0 ||
		st.SyncedLayer.Number < at.first || st.TopLayer.Number < s.Layer {
		t.Errorf("status of a node at layer %d: %+v", s.Layer, st)
	}
	current := ask[struct{ Layernum struct{ Number int } }](t, first, "spacemesh.v1.MeshService/CurrentLayer", "").Layernum.Number
	if now := n.status(t).Layer; current < s.Layer || current > now {
		t.Errorf("the current layer is %d, by the testnet's clock it is %d to %d", current, s.Layer, now)
	}

	// The coinbase of a node has rewards, and nobody else uses its key.
	const gift = 10 * coin
	var sent struct {
		ID     string
		Status string
	}
	out := must(t, "wallet", "send", "--json", "--wait", "--key", n.dir+"/wallets/node-1.key", "--node", first, alice.address, "10SMH")
	if err := json.Unmarshal([]byte(out), &sent); err != nil || sent.Status != "success" {
		t.Fatalf("%v: %s", err, out)
	}
	n.until(t, n.status(t).Layer+patience*at.epoch, "another node has the gift, too", func(status) bool {
		return readAccount(t, second, alice.address).Current == accountState{0, gift}
	})

	spawn := n.apply(t, second, alice.sign(t, n.genesisID(), alice.spawn(0, 1)))
	spend := n.apply(t, second, alice.sign(t, n.genesisID(), alice.spend(bob, coin, 1, 2)))
	if spend.Gas != gasOfSpend || spend.Fee != 2*gasOfSpend {
		t.Errorf("a transfer costs %d gas, %d smidges at price 2", spend.Gas, spend.Fee)
	}
	for _, node := range n.status(t).Nodes[:2] {
		want := accountState{2, gift - coin - spawn.Fee - spend.Fee}
		if a := readAccount(t, node.GRPC, alice.address); a.Current != want || a.Projected != want {
			t.Errorf("%s: alice has %+v, want %+v", node.Name, a, want)
		}
		if b := readAccount(t, node.GRPC, bob.address); b.Current != (accountState{0, coin}) {
			t.Errorf("%s: bob has %+v", node.Name, b)
		}
	}
	if h := n.history(t, first, spend.Layer, spend.Layer); !strings.Contains(h[spend.Layer], "block") {
		t.Errorf("layer %d, which has the transfer, is %q", spend.Layer, h[spend.Layer])
	}
}

// apply submits a transaction, waits until the first two nodes have applied
// it, and returns what became of it.
func (n *testnet) apply(t *testing.T, addr string, raw []byte) receipt {
	t.Helper()
	id := transactionID(raw)
	state := ask[struct {
		Txstate struct {
			ID    struct{ ID []byte }
			State string
		}
	}](t, addr, "spacemesh.v1.TransactionService/SubmitTransaction", submission(raw)).Txstate
	if !slices.Equal(state.ID.ID, id) || state.State != "TRANSACTION_STATE_MEMPOOL" {
		t.Fatalf("submitted %x, the answer is %+v", id, state)
	}
	s := n.status(t)
	at := readTiming(t, s)
	var here, there receipt
	n.until(t, s.Layer+patience*at.epoch, "the transaction is applied", func(status) bool {
		here, there = transaction(t, addr, id), transaction(t, s.Nodes[0].GRPC, id)
		return here.State == "TRANSACTION_STATE_PROCESSED" && there.State == here.State
	})
	if here.Status != "SUCCESS" || here.Fee == 0 || here.Layer < s.Layer || here != there {
		t.Fatalf("the transaction of layer %d ended as %+v, and for another node as %+v", s.Layer, here, there)
	}
	return here
}

// gRPC's statuses.
const (
	invalidArgument    = 3
	alreadyExists      = 6
	resourceExhausted  = 8
	failedPrecondition = 9
)

// What a node refuses, each with its status and one line, changes nothing.
// Alice's account is spawned and has used two nonces, bob's is not spawned.
func badInputOfTheNode(t *testing.T, n *testnet, alice, bob wallet) {
	host := n.status(t).Nodes[1]
	genesis := n.genesisID()
	another := strings.Repeat("ab", len(genesis)/2)
	before := readAccount(t, host.GRPC, alice.address)
	good := alice.sign(t, genesis, alice.spend(bob, 1, 2, 1))
	unchanged := func(t *testing.T, what string) {
		t.Helper()
		if after := readAccount(t, host.GRPC, alice.address); after != before {
			t.Fatalf("%s: alice has %+v now, and had %+v", what, after, before)
		}
	}
	for what, bad := range map[string]struct {
		raw    []byte
		code   int
		reason string
	}{
		"nonce":            {alice.sign(t, genesis, alice.spend(bob, 1, 1, 1)), failedPrecondition, "nonce is too low"},
		"signature":        {append(slices.Clone(good[:len(good)-1]), good[len(good)-1]^1), invalidArgument, "signature is wrong"},
		"another's key":    {bob.sign(t, genesis, alice.spend(bob, 1, 2, 1)), invalidArgument, "signature is wrong"},
		"another network":  {alice.sign(t, another, alice.spend(bob, 1, 2, 1)), invalidArgument, "for another network"},
		"amount":           {alice.sign(t, genesis, alice.spend(bob, before.Current.Balance, 2, 1)), failedPrecondition, "balance is too low"},
		"gas over balance": {alice.sign(t, genesis, alice.spend(bob, 1, 2, before.Current.Balance/gasOfSpend+1)), failedPrecondition, "balance is too low"},
		"gas price":        {alice.sign(t, genesis, alice.spend(bob, 1, 2, 0)), invalidArgument, "gas price is zero"},
		"spawned twice":    {alice.sign(t, genesis, alice.spawn(2, 1)), failedPrecondition, "spawned already"},
		"not spawned":      {bob.sign(t, genesis, bob.spend(alice, 1, 0, 1)), failedPrecondition, "not spawned"},
		"applied before":   {alice.sign(t, genesis, alice.spend(bob, coin, 1, 2)), alreadyExists, "was applied"},
		"cut off":          {good[:40], invalidArgument, "malformed"},
		"empty":            {nil, invalidArgument, "empty"},
		"too long":         {make([]byte, 1<<14), invalidArgument, "more than"},
	} {
		code, message := refusal(t, host.GRPC, "spacemesh.v1.TransactionService/SubmitTransaction", submission(bad.raw))
		if code != bad.code || !strings.Contains(message, bad.reason) || strings.Contains(message, "\n") {
			t.Errorf("%s by gRPC: status %d, %q; want %d, %q", what, code, message, bad.code, bad.reason)
		}
		status, answer := fetch(t, http.MethodPost, "http://"+host.REST+"/v1/transaction/submittransaction", []byte(submission(bad.raw)))
		var e struct {
			Code    int
			Message string
		}
		want := http.StatusBadRequest
		if bad.code == alreadyExists {
			want = http.StatusConflict
		}
		if err := json.Unmarshal(answer, &e); err != nil || status != want || e.Code != code || e.Message != message {
			t.Errorf("%s by JSON: %d, %s; gRPC says %d, %q", what, status, answer, code, message)
		}
		unchanged(t, what)
	}
	badRequests(t, host)
	unchanged(t, "bad requests")
	// The control: what all of them were made from is a good transaction.
	if r := n.apply(t, host.GRPC, good); r.Fee != gasOfSpend {
		t.Errorf("%+v", r)
	}
	if st := ask[nodeStatus](t, host.GRPC, "spacemesh.v1.NodeService/Status", "").Status; !st.IsSynced {
		t.Errorf("after all that the node is %+v", st)
	}
}

// badRequests sends what is no request at all.
func badRequests(t *testing.T, host node) {
	t.Helper()
	for what, bad := range map[string]struct {
		method, request string
		code            int
	}{
		"id of 31 bytes":  {"TransactionService/TransactionsState", `{"transaction_id":[{"id":"` + strings.Repeat("A", 42) + `=="}]}`, invalidArgument},
		"no ids":          {"TransactionService/TransactionsState", `{}`, invalidArgument},
		"no account":      {"GlobalStateService/Account", `{}`, invalidArgument},
		"mainnet account": {"GlobalStateService/Account", `{"account_id":{"address":"sm1qqqqqqxg90ffxv9c2608938ng6drpl37e2j9njsqq6g9g"}}`, invalidArgument},
		"reversed layers": {"MeshService/LayersQuery", `{"start_layer":{"number":2},"end_layer":{"number":1}}`, invalidArgument},
		"all layers":      {"MeshService/LayersQuery", `{"start_layer":{"number":0},"end_layer":{"number":4294967295}}`, invalidArgument},
		"oversized":       {"TransactionService/SubmitTransaction", submission(make([]byte, 1<<20)), resourceExhausted},
	} {
		code, message := refusal(t, host.GRPC, "spacemesh.v1."+bad.method, bad.request)
		if code != bad.code || message == "" || strings.Contains(message, "\n") {
			t.Errorf("%s by gRPC: status %d, %q; want %d", what, code, message, bad.code)
		}
	}
	const submit = "/v1/transaction/submittransaction"
	for what, bad := range map[string]struct {
		method, path, body string
		status             int
	}{
		"no JSON":         {http.MethodPost, submit, `{"transaction":`, http.StatusBadRequest},
		"two values":      {http.MethodPost, submit, `{"transaction":"AA=="}{}`, http.StatusBadRequest},
		"not base64":      {http.MethodPost, submit, `{"transaction":"%%"}`, http.StatusBadRequest},
		"another type":    {http.MethodPost, submit, `{"transaction":7}`, http.StatusBadRequest},
		"unknown field":   {http.MethodPost, submit, `{"transaktion":"AA=="}`, http.StatusBadRequest},
		"oversized":       {http.MethodPost, submit, submission(make([]byte, 1<<20)), http.StatusRequestEntityTooLarge},
		"unknown path":    {http.MethodPost, "/v1/transaction/give", `{}`, http.StatusNotFound},
		"another method":  {http.MethodDelete, submit, ``, http.StatusNotImplemented},
		"bad account":     {http.MethodPost, "/v1/globalstate/account", `{"accountId":{"address":"alice"}}`, http.StatusBadRequest},
		"negative number": {http.MethodPost, "/v1/mesh/layersquery", `{"startLayer":{"number":-1},"endLayer":{"number":1}}`, http.StatusBadRequest},
	} {
		status, answer := fetch(t, bad.method, "http://"+host.REST+bad.path, []byte(bad.body))
		var e struct{ Message string }
		if err := json.Unmarshal(answer, &e); err != nil || status != bad.status || e.Message == "" || strings.Contains(e.Message, "\n") {
			t.Errorf("%s by JSON: status %d, %.300s; want %d", what, status, answer, bad.status)
		}
	}
}
