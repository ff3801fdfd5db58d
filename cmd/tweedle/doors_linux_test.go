package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"tweedle/base/telemetry"
	"tweedle/edges/api/doortest"
	"tweedle/edges/front"
	"tweedle/values/types"
)

// The public doors of a node and of a PoET, as processes: gRPC speaks TLS on an address, JSON plain
// text on a socket, where the proxy that was named tells clients apart. A socket that a killed
// process left is taken over, one behind which somebody listens is not, and a key that others can
// read is not used.
func TestDoorsWithACertificateAndOnASocket(t *testing.T) {
	network := newSiegeNetwork(t, true).file
	file, chain := withCertificate(t)
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(chain)

	for _, program := range []struct {
		name, grpc, rest, page, metric string
		args                           []string
	}{
		{"poet", "-r", "-w", "GET /v1/info", "poet_requests_limited_total", []string{"--adminlisten", "127.0.0.1:0", "--max-leaves-per-second=500"}},
		{"node", "--grpc-listen", "--rest-listen", "POST /v1/node/version", "tweedle_node_requests_limited_total", []string{"--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--nat=false"}},
	} {
		t.Run(program.name, func(t *testing.T) {
			socket := file(program.name + ".sock")
			run := func(folder string) *exec.Cmd {
				cmd := exec.Command("tweedle", append(append([]string{program.name}, program.args...), "--network", network, "--dir", file(folder),
					program.grpc, "127.0.0.1:0", program.rest, front.UnixPrefix+socket, "--trusted-proxy", "unix", "--rate-limit=0.001",
					"--metrics-listen", "127.0.0.1:0", "--operations-max-body=5",
					"--tls-cert", file("chain.pem"), "--tls-key", file("key.pem"))...)
				cmd.Stderr = &text{}
				return cmd
			}
			fails := func(folder, want string) {
				t.Helper()
				cmd := run(folder)
				err := cmd.Run()
				said := cmd.Stderr.(*text).String()
				if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(said, want) {
					t.Errorf("it ends with %v, want %q: %s", err, want, said)
				}
			}
			if err := os.Chmod(file("key.pem"), 0o640); err != nil {
				t.Fatal(err)
			}
			fails(program.name, "chmod 600")
			if err := os.Chmod(file("key.pem"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, end := range []os.Signal{syscall.SIGKILL, syscall.SIGTERM} {
				cmd := run(program.name)
				e, ended := started(t, cmd, file(program.name))
				if e.REST != front.UnixPrefix+socket {
					t.Errorf("it says that JSON is at %s", e.REST)
				}
				if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
					t.Errorf("the socket has mode %v, %v", info.Mode(), err)
				}
				healthy(t, e.GRPC, trust)
				bounded(t, e.Metrics, program.metric)
				for _, client := range []string{"192.0.2.1", "192.0.2.2"} {
					served(t, socket, program.page, client)
				}
				fails("other", "another process listens on "+socket)
				if err := cmd.Process.Signal(end); err != nil {
					t.Fatal(err)
				}
				<-ended // of one that is killed it is an error
				if _, err := os.Lstat(socket); (err == nil) != (end == syscall.SIGKILL) {
					t.Errorf("after signal %v the socket: %v", end, err)
				}
			}
		})
	}
}

// withCertificate names files of a folder with the certificate chain.pem, which is returned too, and key.pem.
func withCertificate(t *testing.T) (file func(name string) string, chain []byte) {
	t.Helper()
	dir := t.TempDir()
	file = func(name string) string { return filepath.Join(dir, name) }
	chain, key := doortest.Certificate(t, 1, time.Now().Add(time.Hour))
	for name, content := range map[string][]byte{"chain.pem": chain, "key.pem": key} {
		if err := os.WriteFile(file(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file, chain
}

// A PoET and a wallet talk to a node whose gRPC has a certificate if they are told so, and if somebody
// whom the machine trusts vouches for it.
func TestClientsOfADoorWithACertificate(t *testing.T) {
	network := newSiegeNetwork(t, true).file
	file, _ := withCertificate(t)
	trusts := append(os.Environ(), "SSL_CERT_FILE="+file("chain.pem"), "SSL_CERT_DIR="+file(""))
	start := func(name string, args ...string) string {
		cmd := exec.Command("tweedle", append(args, "--network", network, "--dir", file(name))...)
		cmd.Env, cmd.Stderr = trusts, &text{}
		e, _ := started(t, cmd, file(name))
		return e.GRPC
	}
	plain := start("node", "node", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--nat=false", "--grpc-listen", "127.0.0.1:0", "--rest-listen", "", "--metrics-listen", "",
		"--tls-cert", file("chain.pem"), "--tls-key", file("key.pem"))
	secure := "https://" + plain
	run := func(env []string, args ...string) (string, error) {
		cmd := exec.Command("tweedle", args...)
		cmd.Env = env
		said, err := cmd.CombinedOutput()
		return string(said), err
	}
	account := types.DeriveAddress(types.Address{}, []byte("nobody")).Bech32("stest")
	for _, c := range []struct {
		node, want string
		env        []string
	}{
		{secure, "", trusts}, // it is answered
		{secure, "cannot be reached", os.Environ()},
		{plain, "cannot be reached", trusts},
	} {
		said, err := run(c.env, "wallet", "balance", account, "--node", c.node)
		if (err == nil) != (c.want == "") || !strings.Contains(said, c.want) || err != nil && strings.Count(said, "\n") != 1 {
			t.Errorf("the wallet ends with %v, and says of %s: %s", err, c.node, said)
		}
	}
	start("poet", "poet", "-r", "127.0.0.1:0", "-w", "127.0.0.1:0", "--adminlisten", "127.0.0.1:0", "--max-leaves-per-second=500", "--gateway", secure, "--gateway", plain)
	for until := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		said, err := run(trusts, "poet", "gateways", "list", "--dir", file("poet"))
		if err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		var first, second string
		for line := range strings.Lines(said) {
			switch {
			case strings.HasPrefix(line, secure+" "):
				first = line
			case strings.HasPrefix(line, plain+" "):
				second = line
			}
		}
		// The node is alone in its network, so it is not used: that it says so is an answer.
		if strings.Contains(first, "has 0 peers") && strings.Contains(second, "Unavailable") {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("the gateways of the PoET: %s", said)
		}
	}
}

// started starts a program and waits for its listeners. The program is killed in the end.
func started(t *testing.T, cmd *exec.Cmd, folder string) (telemetry.Endpoints, <-chan error) {
	t.Helper()
	_ = os.Remove(filepath.Join(folder, telemetry.EndpointsFile)) // of one that was killed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended, over := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- cmd.Wait()
		close(over)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-over
	})
	for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if e, err := readEndpoints(folder); err == nil {
			return e, ended
		}
		select {
		case <-over:
			t.Fatalf("it does not start: %s", cmd.Stderr)
		default:
		}
	}
	t.Fatalf("it does not tell its listeners: %s", cmd.Stderr)
	return telemetry.Endpoints{}, nil
}

// bounded asks the door for metrics, whose requests may have five bytes, and which speaks no TLS.
func bounded(t *testing.T, address, metric string) {
	t.Helper()
	for body, want := range map[string]int{"12345": http.StatusOK, "123456": http.StatusRequestEntityTooLarge} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("metrics: status %d for %q, want %d", res.StatusCode, body, want)
		}
	}
	all, err := page(http.DefaultClient, "http://"+address+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if n := metricOf(t, all, metric+`{limit="operations-max-body"}`); n != 1 {
		t.Errorf("%d refusals are counted", n)
	}
}

// healthy asks a gRPC door that has a certificate.
func healthy(t *testing.T, address string, trust *x509.CertPool) {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: trust})))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("over TLS: %v", err)
	}
}

// served asks over a socket for a client, until its rate is used up.
func served(t *testing.T, socket, page, client string) {
	t.Helper()
	web := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer web.CloseIdleConnections()
	for i := range 1200 { // more than a node allows at once
		method, path, _ := strings.Cut(page, " ")
		r, err := http.NewRequestWithContext(t.Context(), method, "http://socket"+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-For", client)
		res, err := web.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body) // of a message
		_ = res.Body.Close()
		switch {
		case res.StatusCode == http.StatusTooManyRequests && i > 0:
			return
		case res.StatusCode != http.StatusOK:
			t.Fatalf("%s, request %d: %s %s", client, i, res.Status, body)
		}
	}
	t.Errorf("%s is never refused: it is not told from others", client)
}
