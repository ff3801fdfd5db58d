package door

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"tweedle/edges/front"
	"tweedle/protocol/registration"
	"tweedle/services/poet"
	"tweedle/services/poet/delivery"
	"tweedle/services/poet/rounds"
	"tweedle/services/poet/work"
	"tweedle/values/types"
)

// rig is a real PoET service behind the real servers, on pipes, so that a
// synctest bubble can hold it.
type rig struct {
	t       *testing.T
	service *rounds.Service
	courier *delivery.Courier
	cfg     Config
	web     *http.Client
	grpc    *grpc.ClientConn
	admin   *bufconn.Listener
	dir     string
}

// testSchedule: a round closes after 2 s and executes for 2 s.
func testSchedule() types.PoetSchedule {
	return types.PoetSchedule{Genesis: time.Now(), EpochDuration: 4 * time.Second, PhaseShift: 2 * time.Second, CycleGap: 2 * time.Second}
}

func newRig(t *testing.T, dir string, schedule types.PoetSchedule, change func(*rounds.Config, *Config)) *rig {
	t.Helper()
	pc := rounds.Config{Dir: dir, Schedule: schedule, Work: work.Config{LeavesPerSecond: 500, MaxLeavesPerSecond: 500}, BallastBytes: 1 << 16, PowDifficulty: 2}
	r := &rig{t: t, dir: dir, cfg: Config{Limits: DefaultLimits(), Schedule: schedule, Version: "test"}}
	if change != nil {
		change(&pc, &r.cfg)
	}
	var err error
	if r.service, err = rounds.Open(pc); err != nil {
		t.Fatal(err)
	}
	if r.courier, err = delivery.Open(r.service.Book(), emptyShelf{}, delivery.DefaultConfig(), nil, delivery.Options{}); err != nil {
		t.Fatal(err)
	}
	admin, err := NewAdmin(filepath.Join(dir, front.TokenFile), r.service, r.courier, r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g, w := bufconn.Listen(1<<20), newPipes()
	r.admin = bufconn.Listen(1 << 20)
	ended := make(chan error, 3)
	go func() { ended <- r.service.Run(ctx) }()
	go func() { ended <- ServePublic(ctx, g, w, r.service, r.cfg) }()
	go func() { ended <- admin.Serve(ctx, r.admin) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return w.dial(ctx) }}
	r.web = &http.Client{Transport: transport}
	r.grpc = r.dial(g)
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = r.grpc.Close()
		cancel()
		for range 3 {
			if err := <-ended; err != nil {
				t.Errorf("a part of the server ended with %v", err)
			}
		}
		if err := r.service.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) dial(l *bufconn.Listener, opts ...grpc.DialOption) *grpc.ClientConn {
	r.t.Helper()
	conn, err := grpc.NewClient("passthrough:///pipe", append(opts,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<26)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))...)
	if err != nil {
		r.t.Fatal(err)
	}
	return conn
}

// pipes is a listener in memory for HTTP, whose server moves read deadlines
// back and forth; bufconn may apply one that was taken back already.
type pipes struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// emptyShelf has no proof to deliver.
type emptyShelf struct{}

func (emptyShelf) Due(time.Time) ([]delivery.Due, error) { return nil, nil }
func (emptyShelf) Load(string) (types.PoetProofMessage, error) {
	return types.PoetProofMessage{}, poet.ErrNotFound
}

// call makes a REST request and returns status, body and header.
func (r *rig) call(method, path string, body []byte, header ...string) (int, []byte, http.Header) {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://poet"+path, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := r.web.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, b, res.Header
}

func (r *rig) get(path string, into any) int {
	r.t.Helper()
	code, b, _ := r.call(http.MethodGet, path, nil)
	if err := json.Unmarshal(b, into); err != nil {
		r.t.Fatalf("%s answered %q", path, b)
	}
	return code
}

// open returns the number of members of the open round.
func (r *rig) open() uint64 {
	for _, round := range r.service.Rounds() {
		if round.State == poet.StateOpen {
			return round.Members
		}
	}
	return 0
}

func smesherKey(i int) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint64(seed, uint64(i)+1)
	return ed25519.NewKeyFromSeed(seed)
}

// submission is a valid registration of smesher i as REST speaks it; tests
// bend it.
func (r *rig) submission(i int) map[string]any {
	key := smesherKey(i)
	public := key.Public().(ed25519.PublicKey)
	challenge := bytes.Repeat([]byte{byte(i), 9}, 16)
	pow := r.service.PowParams()
	nonce, ok := registration.SolvePow(pow, public, challenge, 1<<20)
	if !ok {
		r.t.Fatal("no proof of work")
	}
	return map[string]any{
		"nonce":     nonce,
		"powParams": map[string]any{"challenge": pow.Challenge, "difficulty": pow.Difficulty},
		"prefix":    []byte("network"),
		"challenge": challenge,
		"pubkey":    []byte(public),
		"signature": ed25519.Sign(key, append([]byte("network"), challenge...)),
	}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// resign returns a registration with another challenge.
func (r *rig) resign(m map[string]any, key ed25519.PrivateKey, challenge []byte) map[string]any {
	r.t.Helper()
	nonce, ok := registration.SolvePow(r.service.PowParams(), m["pubkey"].([]byte), challenge, 1<<20)
	if !ok {
		r.t.Fatal("no proof of work")
	}
	m["nonce"], m["challenge"] = nonce, challenge
	m["signature"] = ed25519.Sign(key, append([]byte("network"), challenge...))
	return m
}
