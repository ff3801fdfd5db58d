package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"tweedle/edges/api/doortest"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/edges/front"
)

const (
	// siegeHost is where the programs listen for everybody; the attackers have other addresses.
	siegeHost = "10.99.0.1"
	// siegeOther attacks nobody.
	siegeOther = "10.99.0.19"
	// maxBesieged is what a node or a PoET may have in memory whatever clients do, in MiB.
	maxBesieged = 180
)

// Clients of one address each do what they like to every listener of a live node and PoET, all at once:
// see doortest.Attacks. A client of another address is answered all the time, what the programs have in
// memory is bounded, and when the attackers have left nothing of them is. The admin listeners are on
// loopback, whose clients have no shares: there the operator is served again when the attackers have left.
func TestClientsCannotBringTheDoorsDown(t *testing.T) {
	if os.Getenv(attacks) != "" {
		(&siegePlan{}).read(t).attack()
		return
	}
	if !inOwnNetwork(t) {
		return
	}
	plan := siegePlan{Rounds: 1, Hold: 200 * time.Millisecond}
	if os.Getenv("TWEEDLE_NIGHTLY") != "" {
		plan = siegePlan{Rounds: 5, Hold: 11 * time.Second} // longer than what a request has to arrive
	}
	ip(t, "link set lo up", "address add "+siegeHost+"/24 dev lo")
	for i := 2; i < 20; i++ {
		ip(t, fmt.Sprintf("address add 10.99.0.%d/32 dev lo", i))
	}
	net1 := newSiegeNetwork(t, plan.Rounds == 1)
	poet := net1.poet(t, siegeHost+":0")
	node := net1.node(t, "node", "127.0.0.1", siegeHost+":0", poet)
	net1.awaitBlock(t, node)
	plan.Targets = siegeTargets(t, node, poet)
	others := &siegeClient{t: t, node: node, poet: poet}
	others.open()
	defer others.close()
	others.ask() // both are up
	idle := node.goroutines(t)
	if plan.Rounds > 1 {
		calm := net1.begin(t, "no siege yet", node, poet)
		time.Sleep(20 * net1.clock.LayerDuration)
		calm.end(t)
	}
	siege := net1.begin(t, "siege", node, poet)

	ctx, stop := context.WithCancel(t.Context())
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		for ctx.Err() == nil {
			others.ask()
			time.Sleep(30 * time.Millisecond) // its rate is limited too
		}
	}()
	plan.run(t)
	siege.end(t)
	stop()
	<-asked
	slices.Sort(others.took)
	n := len(others.took)
	p99 := others.took[n*99/100]
	t.Logf("%d answers to others: median %v, p99 %v, longest %v; resident at most: node %d MiB, PoET %d MiB", n, others.took[n/2], p99, others.took[n-1], node.peak(t), poet.peak(t))
	if len(others.errs) > 0 {
		t.Errorf("others were not served %d times of %d: %v", len(others.errs), n, others.errs[0])
	}
	if plan.Rounds > 1 && p99 > time.Second {
		t.Errorf("p99 of others is %v", p99)
	}
	for _, p := range []*sieged{node, poet} {
		if n := p.refused(t); n < 1000 {
			t.Errorf("%s refused %d times: nobody attacks it", p.name, n)
		} else {
			t.Logf("%s refused %d times", p.name, n)
		}
		if p.peak(t) > maxBesieged {
			t.Errorf("%s had %d MiB, more than %d", p.name, p.peak(t), maxBesieged)
		}
	}
	others.operators()
	for until := time.Now().Add(time.Minute); node.goroutines(t) > idle+32; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("the node had %d goroutines, and has %d when all have left", idle, node.goroutines(t))
		}
	}
}

// attacks marks the process that attacks.
const attacks = "TWEEDLE_TEST_ATTACKS"

// siegePlan is what the attackers do: to each target, in each round, all that there is. In the first round they do
// it in step, which takes the most memory; later they do different things at a time.
type siegePlan struct {
	Rounds  int
	Hold    time.Duration // of each attack
	Targets []doortest.Target
}

// run attacks from a process of its own, which gives way to those that are attacked: else two processors would
// measure how attackers and attacked share them.
func (p *siegePlan) run(t *testing.T) {
	t.Helper()
	words, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nice", "-n", "15", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.timeout=55m")
	cmd.Env, cmd.Stdin = append(os.Environ(), attacks+"=1"), bytes.NewReader(words)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func (p *siegePlan) read(t *testing.T) *siegePlan {
	t.Helper()
	if err := json.NewDecoder(os.Stdin).Decode(p); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *siegePlan) attack() {
	for round := range p.Rounds {
		var attackers sync.WaitGroup
		for i, target := range p.Targets {
			a := &doortest.Attacker{From: fmt.Sprintf("10.99.0.%d", 2+i)}
			if strings.HasPrefix(target.Address, "127.") {
				a.From = "127.0.0.2"
			}
			list := doortest.Attacks(target)
			attackers.Go(func() {
				for k := range list {
					list[(k+round*i)%len(list)].Run(a, target)
					time.Sleep(p.Hold)
					a.Leave()
				}
			})
		}
		attackers.Wait()
	}
}

// siegeTargets are all listeners, with what to ask there.
func siegeTargets(t *testing.T, node, poet *sieged) []doortest.Target {
	framed := func(m proto.Message) []byte {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return doortest.Frame(raw)
	}
	const watch = healthpb.Health_Watch_FullMethodName
	return []doortest.Target{
		{Name: "node gRPC", Address: node.e.GRPC, Call: spacemesh.NodeService_Echo_FullMethodName, Stream: spacemesh.NodeService_StatusStream_FullMethodName,
			Framed: framed(&spacemesh.EchoRequest{Msg: &spacemesh.SimpleString{Value: strings.Repeat("x", 60<<10)}})},
		{Name: "node REST", Address: node.e.REST, HTTP: true, Call: "/v1/node/echo", Stream: "/v1/node/statusstream",
			Body: `{"msg":{"value":"` + strings.Repeat("x", 200<<10) + `"}}`},
		{Name: "node operations", Address: node.e.Metrics, HTTP: true, Call: "/metrics", Stream: "/status"},
		{Name: "node admin", Address: node.e.Admin, Call: spacemesh.DebugService_NetworkInfo_FullMethodName, Stream: watch, Framed: framed(&emptypb.Empty{})},
		{Name: "PoET gRPC", Address: poet.e.GRPC, Call: poetpb.PoetService_Info_FullMethodName, Stream: watch, Framed: framed(&poetpb.InfoRequest{})},
		{Name: "PoET REST", Address: poet.e.REST, HTTP: true, Call: "/openapi.json", Stream: "/v1/submit"},
		{Name: "PoET metrics", Address: poet.e.Metrics, HTTP: true, Call: "/metrics", Stream: "/metrics"},
		{Name: "PoET admin", Address: poet.e.Admin, Call: poetadminpb.AdminService_ListGateways_FullMethodName, Stream: watch, Framed: framed(&emptypb.Empty{})},
	}
}

// refused returns how often a limit of the public listeners held somebody back.
func (p *sieged) refused(t *testing.T) (n int) {
	t.Helper()
	text, err := page(siegeWeb(), "http://"+p.e.Metrics+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), "} "); strings.Contains(name, "_requests_limited_total{") {
			f, _ := strconv.ParseFloat(value, 64)
			n += int(f)
		}
	}
	return n
}

// honest dials from an address that attacks nobody.
func honest(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(siegeOther)}}
	return d.DialContext(ctx, "tcp", addr)
}

func siegeWeb() *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return honest(ctx, addr) }}}
}

func page(web *http.Client, url string) (string, error) {
	res, err := web.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, res.Status)
	}
	return string(b), err
}

// siegeClient is a client of every public listener, from another address; over REST it has a new
// connection for each question.
type siegeClient struct {
	t          *testing.T
	node, poet *sieged
	conns      []*grpc.ClientConn
	web        *http.Client
	turn       int
	took       []time.Duration
	errs       []error
}

func (c *siegeClient) open() {
	c.web = siegeWeb()
	for _, p := range []*sieged{c.node, c.poet} {
		conn, err := grpc.NewClient("passthrough:///"+p.e.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(honest))
		if err != nil {
			c.t.Fatal(err)
		}
		c.conns = append(c.conns, conn)
	}
}

func (c *siegeClient) close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

// ask asks the next listener.
func (c *siegeClient) ask() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	begin := time.Now()
	var err error
	switch c.turn++; c.turn % 6 {
	case 0:
		_, err = spacemesh.NewNodeServiceClient(c.conns[0]).Status(ctx, &spacemesh.StatusRequest{})
	case 1:
		var res *http.Response
		if res, err = c.web.Post("http://"+c.node.e.REST+"/v1/node/status", "application/json", strings.NewReader("{}")); err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if err == nil && res.StatusCode != http.StatusOK {
				err = errors.New(res.Status)
			}
		}
	case 2:
		_, err = page(c.web, "http://"+c.node.e.Metrics+"/status")
	case 3:
		_, err = poetpb.NewPoetServiceClient(c.conns[1]).Info(ctx, &poetpb.InfoRequest{})
	case 4:
		_, err = page(c.web, "http://"+c.poet.e.REST+"/v1/info")
	case 5:
		_, err = page(c.web, "http://"+c.poet.e.Metrics+"/metrics")
	}
	c.took = append(c.took, time.Since(begin))
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("listener %d: %w", c.turn%6, err))
	}
}

// operators are served again, once what the attackers left is gone.
func (c *siegeClient) operators() {
	for _, p := range []*sieged{c.node, c.poet} {
		conn, err := front.DialAdmin(p.e.Admin, filepath.Join(p.dir, front.TokenFile))
		if err != nil {
			c.t.Fatal(err)
		}
		defer conn.Close()
		for until := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			if p.name == "node" {
				_, err = spacemesh.NewDebugServiceClient(conn).NetworkInfo(ctx, &emptypb.Empty{})
			} else {
				_, err = poetadminpb.NewAdminServiceClient(conn).ListGateways(ctx, &poetadminpb.ListGatewaysRequest{})
			}
			cancel()
			if err == nil {
				break
			}
			if time.Now().After(until) {
				c.t.Errorf("the operator of the %s is not served: %v", p.name, err)
				break
			}
		}
	}
}
