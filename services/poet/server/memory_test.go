package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"tweedle/edges/api/doortest"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/services/poet/book/booktest"
	"tweedle/services/poet/rounds"
)

// maxResident is what the server may have in memory whatever one address does,
// in MiB.
const maxResident = 300

// bystander is a client from another address, who asks all the time.
type bystander struct {
	times []time.Duration
	errs  []error
	bytes atomic.Int64
}

func (b *bystander) run(ctx context.Context, t *testing.T, grpcAddr, restAddr string) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.9")}}
	web := &http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	defer web.CloseIdleConnections()
	conn, err := grpc.NewClient("passthrough:///"+grpcAddr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }))
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	client := poetpb.NewPoetServiceClient(conn)
	for i := 0; ctx.Err() == nil; i++ {
		one, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		begin := time.Now()
		switch i % 3 {
		case 0:
			_, err = client.Info(one, &poetpb.InfoRequest{})
		case 1:
			var out *poetpb.ProofResponse
			if out, err = client.Proof(one, &poetpb.ProofRequest{RoundId: "0"}); err == nil && len(out.GetProof().GetMembers()) != 5000 {
				err = errors.New("another proof")
			}
		case 2:
			err = fetch(one, web, "http://"+restAddr+"/v1/proofs/0", &b.bytes)
		}
		cancel()
		b.times = append(b.times, time.Since(begin))
		if err != nil {
			b.errs = append(b.errs, err)
		}
		time.Sleep(100 * time.Millisecond) // its own rate is limited too
	}
}

func fetch(ctx context.Context, web *http.Client, url string, n *atomic.Int64) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := web.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.Copy(io.Discard, res.Body)
	n.Add(got)
	if err == nil && (res.StatusCode != http.StatusOK || got < 300<<10) {
		err = fmt.Errorf("%s, %d bytes", res.Status, got)
	}
	return err
}

// resident returns what a process has and had at most in memory, in MiB.
func resident(t *testing.T, pid int) (now, peak int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("NOTHING WAS TESTED: this system does not tell a process's memory in /proc")
	}
	value := func(name string) int {
		for line := range strings.Lines(string(b)) {
			if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name {
				n, _ := strconv.Atoi(fields[1])
				return n >> 10
			}
		}
		t.Fatalf("no %s in %s", name, b)
		return 0
	}
	return value("VmRSS:"), value("VmHWM:")
}

// The real server with a proof of mainnet's size. One address asks 2,000 times
// over gRPC and 2,000 times over REST and reads nothing, opens 16,384 streams
// without a body, and keeps all it has for longer than the deadlines. The server
// stays small and answers the others.
func TestTheMemoryOfThePublicServerIsBounded(t *testing.T) {
	if raced {
		t.Skip("NOTHING WAS TESTED: the race detector takes memory of its own; make test runs this without it")
	}
	dir := filepath.Join(t.TempDir(), "poet")
	genesis := time.Now().Add(-40 * time.Minute)
	service, err := rounds.Open(rounds.Config{Dir: dir, Schedule: longSchedule(genesis), BallastBytes: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Close(); err != nil { // it has made the server's identity
		t.Fatal(err)
	}
	if err := booktest.Prove(dir, longSchedule(genesis), 0, 5000, 4500); err != nil {
		t.Fatal(err)
	}
	v := startVictim(t, dir, genesis, nil, childStrangers+"=1")
	defer v.kill()
	pid := v.cmd.Process.Pid
	idle, _ := resident(t, pid)

	ctx, stop := context.WithCancel(t.Context())
	other := &bystander{}
	done := make(chan struct{})
	go func() { defer close(done); other.run(ctx, t, v.endpoints.GRPC, v.endpoints.REST) }()

	a := &doortest.Attacker{From: "127.0.0.2"}
	defer a.Leave()
	proof := doortest.Frame([]byte{0x0a, 1, '0'}) // ProofRequest{round_id: "0"}
	unread, rest, empty := 0, 0, 0
	for range 125 {
		unread += a.Streams(v.endpoints.GRPC, 16, poetpb.PoetService_Proof_FullMethodName, 0, proof)
	}
	for range 2000 {
		if a.Say(v.endpoints.REST, "GET /v1/proofs/0 HTTP/1.1\r\nHost: poet\r\n\r\n") {
			rest++
		}
	}
	afterReplies, _ := resident(t, pid)
	for range 64 {
		empty += a.Streams(v.endpoints.GRPC, 256, poetpb.PoetService_Submit_FullMethodName, 1<<16, nil)
	}
	time.Sleep(15 * time.Second) // a real process, and longer than what it gives a request
	afterStreams, _ := resident(t, pid)
	stop()
	<-done
	a.Leave()
	_, peak := resident(t, pid)
	slices.Sort(other.times)
	t.Logf("sent %d unread gRPC calls, %d unread GETs, %d streams without a body", unread, rest, empty)
	t.Logf("resident: idle %d MiB, after the replies %d, after the streams %d, at most %d", idle, afterReplies, afterStreams, peak)
	t.Logf("another client: %d answers, median %v, p99 %v, worst %v", len(other.times),
		other.times[len(other.times)/2], other.times[len(other.times)*99/100], other.times[len(other.times)-1])
	if peak > maxResident {
		t.Errorf("the server had %d MiB, more than %d", peak, maxResident)
	}
	if len(other.errs) > 0 {
		t.Errorf("another client was not served %d times: %v", len(other.errs), other.errs[0])
	}

	// A hundred addresses together fill the server. It is full then, and small,
	// and serves again when they have gone.
	var many []*doortest.Attacker
	calls := 0
	for i := range 100 {
		a := &doortest.Attacker{From: fmt.Sprintf("127.0.1.%d", i+1)}
		defer a.Leave()
		many = append(many, a)
		for range 8 {
			calls += a.Streams(v.endpoints.GRPC, 16, poetpb.PoetService_Proof_FullMethodName, 0, proof)
			calls += a.Streams(v.endpoints.GRPC, 16, poetpb.PoetService_Submit_FullMethodName, 1<<16, nil)
		}
	}
	full, _ := resident(t, pid)
	for _, a := range many {
		a.Leave()
	}
	// A busy machine takes a while to see that they have gone.
	var after *bystander
	for end := time.Now().Add(20 * time.Second); ; {
		after = &bystander{}
		ctx, stop = context.WithTimeout(t.Context(), 2*time.Second)
		after.run(ctx, t, v.endpoints.GRPC, v.endpoints.REST)
		stop()
		if len(after.errs) == 0 && len(after.times) >= 4 || time.Now().After(end) {
			break
		}
	}
	_, peak = resident(t, pid)
	t.Logf("resident under %d calls of 100 addresses: %d MiB, at most %d", calls, full, peak)
	if peak > maxResident {
		t.Errorf("the server had %d MiB, more than %d", peak, maxResident)
	}
	if len(after.times) < 4 || len(after.errs) > 0 {
		t.Errorf("afterwards %d of %d were not answered: %v", len(after.errs), len(after.times), after.errs)
	}
}
