package smeshing

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tweedle/edges/api/gen/poetpb"
	"tweedle/protocol/activation"
	"tweedle/values/codec"
	"tweedle/values/merkle"
	"tweedle/values/types"
)

// liar is a PoET that signs for every registration, and does its round's work for
// whom it likes.
type liar struct {
	t       *testing.T
	key     ed25519.PrivateKey
	receipt func(r *types.PoetReceipt) // bends it after it was signed; nil: there is none
	members [][32]byte
	spoil   func(p *poetpb.ProofResponse)
	asked   int
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	public := l.key.Public().(ed25519.PublicKey)
	var out proto.Message
	switch {
	case r.URL.Path == "/v1/pow_params":
		out = &poetpb.PowParamsResponse{PowParams: &poetpb.PowParams{Challenge: []byte("c")}}
	case r.URL.Path == "/v1/info":
		out = &poetpb.InfoResponse{ServicePubkey: public}
	case r.URL.Path == "/v1/submit":
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		var in poetpb.SubmitRequest
		if err := protojson.Unmarshal(body.Bytes(), &in); err != nil {
			l.t.Error(err)
		}
		reply := &poetpb.SubmitResponse{RoundId: "3"}
		if l.receipt != nil {
			s := types.PoetReceipt{Round: "3", NodeID: types.NodeID(in.GetPubkey()), Challenge: types.Hash32(in.GetChallenge()), Time: time.UnixMilli(1700000000123)}
			s.Sign(l.key)
			l.receipt(&s)
			reply.Receipt = &poetpb.Receipt{RoundId: s.Round, Pubkey: s.NodeID[:], Challenge: s.Challenge[:],
				Time: s.Time.UnixMilli(), ServicePubkey: s.PoetID[:], Signature: s.Signature[:]}
		}
		out = reply
	case r.URL.Path == "/v1/proofs/3":
		l.asked++
		reply := proofResponse(work(l.t, merkle.Root(l.members), 300, "3"), l.members)
		reply.Pubkey = public
		if l.spoil != nil {
			l.spoil(reply)
		}
		out = reply
	default:
		http.NotFound(w, r)
		return
	}
	b, err := protojson.Marshal(out)
	if err != nil {
		l.t.Error(err)
	}
	_, _ = w.Write(b) // the client may be gone
}

// victim is a smesher that registers at a liar, with what its log says.
type victim struct {
	*Smesher
	log       *bytes.Buffer
	challenge types.Hash32
	at        activation.Registration
}

func newVictim(t *testing.T, l *liar) *victim {
	t.Helper()
	v := &victim{log: &bytes.Buffer{}, challenge: types.Hash32{9, 9}}
	l.t, l.key = t, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	if l.members == nil {
		l.members = [][32]byte{{1}, {2}, {3}}
	}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	r := newRig(t)
	r.open()
	t.Cleanup(func() { r.db.Close() })
	cfg := r.config()
	cfg.Poets, cfg.HTTP, cfg.Log = []string{server.URL}, transport, slog.New(slog.NewTextHandler(v.log, nil))
	var err error
	if v.Smesher, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	r.Smesher = v.Smesher
	v.at = activation.Registration{Poet: server.URL, Round: "3"}
	return v
}

// register registers and tells whether that counts.
func (v *victim) register(t *testing.T) bool {
	t.Helper()
	if err := v.registerAt(t.Context(), v.poets[0], v.challenge, time.Now().Add(time.Hour)); err != nil {
		return false
	}
	in, ok := (<-v.inputs).(activation.Registered)
	return ok && in.Registration.Poet == v.at.Poet && in.Registration.Round == v.at.Round
}

func honestly(*types.PoetReceipt) {}

// A PoET signs for a registration and leaves it out. The node says so once, in a
// line with PoET, round and file, and the file convinces whoever reads it, also
// after a restart.
func TestAPoetThatLeavesUsOutIsShownToHaveDoneSo(t *testing.T) {
	v := newVictim(t, &liar{receipt: honestly})
	if !v.register(t) {
		t.Fatal("the registration does not count")
	}
	v.accused = map[poetRound]string{} // as after a restart: what is kept is in local.db
	var said error
	for range 3 {
		if _, said = v.membership(t.Context(), v.poets[0], v.at, v.challenge); said == nil {
			t.Fatal("a proof without us is taken")
		}
	}
	files, err := filepath.Glob(filepath.Join(v.cfg.Evidence, "*"))
	if err != nil || len(files) != 1 || !strings.Contains(said.Error(), files[0]) {
		t.Fatalf("files %v, %v; said %v", files, err, said)
	}
	lines := strings.Split(strings.TrimSpace(v.log.String()), "\n")
	var accusing []string
	for _, l := range lines {
		if strings.Contains(l, "level=ERROR") {
			accusing = append(accusing, l)
		}
	}
	if len(accusing) != 1 || !strings.Contains(accusing[0], v.at.Poet) || !strings.Contains(accusing[0], "round=3") || !strings.Contains(accusing[0], files[0]) {
		t.Fatalf("the log says %q", accusing)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var o activation.Omission
	if err := codec.Decode(b, &o); err != nil {
		t.Fatal(err)
	}
	if err := o.Verify(); err != nil {
		t.Fatalf("a third party is not convinced: %v", err)
	}
	if o.Receipt.Challenge != v.challenge || o.Receipt.NodeID != v.id || len(o.Members) != 3 {
		t.Fatalf("evidence %+v", o.Receipt)
	}
}

// What is no omission makes no evidence: a round that has us, a proof that is
// wrong, members that are not those of the proof, a PoET under another name.
func TestNobodyIsAccusedWithoutReason(t *testing.T) {
	for _, c := range []struct {
		name string
		liar *liar
		want string // of the error; empty: the proof is taken
	}{
		{"we are a member", &liar{receipt: honestly, members: [][32]byte{{1}, {9, 9}}}, ""},
		{"its work is wrong", &liar{receipt: honestly, spoil: func(p *poetpb.ProofResponse) { p.Proof.Proof.ProvenLeaves[3][0] ^= 1 }}, "proof is wrong"},
		{"other members", &liar{receipt: honestly, spoil: func(p *poetpb.ProofResponse) { p.Proof.Members[0][0] ^= 1 }}, "proof is wrong"},
		{"another name", &liar{receipt: honestly, spoil: func(p *poetpb.ProofResponse) { p.Pubkey[0] ^= 1 }}, "the proof names"},
		{"no receipt", &liar{}, "signed nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVictim(t, c.liar)
			if !v.register(t) {
				t.Fatal("the registration does not count")
			}
			_, err := v.membership(t.Context(), v.poets[0], v.at, v.challenge)
			if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if files, _ := filepath.Glob(filepath.Join(v.cfg.Evidence, "*")); len(files) != 0 {
				t.Fatalf("evidence %v", files)
			}
		})
	}
}

// A receipt that is missing, as with PoETs of the reference, or wrong is warned
// of; the registration counts, and nothing is kept that proves nothing.
func TestAReceiptThatIsMissingOrWrongIsWarnedOf(t *testing.T) {
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	for name, bend := range map[string]func(r *types.PoetReceipt){
		"missing":           nil,
		"another challenge": func(r *types.PoetReceipt) { r.Challenge[0]++ },
		"another smesher":   func(r *types.PoetReceipt) { r.NodeID[0]++ },
		"another round":     func(r *types.PoetReceipt) { r.Round = "4" },
		"another time":      func(r *types.PoetReceipt) { r.Time = r.Time.Add(time.Hour) },
		"another key":       func(r *types.PoetReceipt) { r.Sign(other) },
		"a wrong signature": func(r *types.PoetReceipt) { r.Signature[5] ^= 1 },
		"a long round":      func(r *types.PoetReceipt) { r.Round = strings.Repeat("3", 1000) },
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t, &liar{receipt: bend})
			if !v.register(t) {
				t.Fatal("the registration does not count")
			}
			if got := v.log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, v.at.Poet) {
				t.Fatalf("the log says %s", got)
			}
			if l, err := v.loadReceipts(); err != nil || len(l) != 0 {
				t.Fatalf("kept %v, %v", l, err)
			}
		})
	}
}

// A registration whose receipt cannot be kept does not count; the newest ones are
// kept.
func TestReceiptsAreDurableAndBounded(t *testing.T) {
	v := newVictim(t, &liar{receipt: honestly})
	for i := range 2 * maxReceipts {
		v.challenge = types.Hash32{byte(i), byte(i >> 8), 1}
		if !v.register(t) {
			t.Fatal("the registration does not count")
		}
	}
	l, err := v.loadReceipts()
	if err != nil || len(l) != maxReceipts || l[len(l)-1].receipt.Challenge != v.challenge {
		t.Fatalf("%d are kept, %v", len(l), err)
	}
	if err := v.cfg.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := v.registerAt(t.Context(), v.poets[0], v.challenge, time.Now().Add(time.Hour)); err == nil || errors.Is(err, errRefused) {
		t.Fatalf("without local.db: %v", err)
	}
	select {
	case in := <-v.inputs:
		t.Fatalf("%+v counts without its receipt", in)
	default:
	}
}
