package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	spacemesh "github.com/spacemeshos/api/release/go/spacemesh/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"tweedle/edges/api/gen/poetpb"
)

// BenchmarkDoors asks each public listener of a live node and PoET, as processes, small questions from
// this machine, whose rate is not limited: sixteen clients that keep their connections.
func BenchmarkDoors(b *testing.B) {
	n := newSiegeNetwork(b, true)
	poet := n.poet(b, "127.0.0.1:0")
	node := n.node(b, "node", "127.0.0.1", "127.0.0.1:0", poet)
	dial := func(address string) *grpc.ClientConn {
		c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		return c
	}
	web := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchClients}}
	b.Cleanup(web.CloseIdleConnections)
	fetch := func(method, url, body string) error {
		r, err := http.NewRequestWithContext(b.Context(), method, url, bytes.NewReader([]byte(body)))
		if err != nil {
			return err
		}
		res, err := web.Do(r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, res.Status)
		}
		return nil
	}
	nodes, poets := spacemesh.NewNodeServiceClient(dial(node.e.GRPC)), poetpb.NewPoetServiceClient(dial(poet.e.GRPC))
	for _, door := range []struct {
		name string
		ask  func() error
	}{
		{"node gRPC", func() error { _, err := nodes.Status(b.Context(), &spacemesh.StatusRequest{}); return err }},
		{"node REST", func() error { return fetch(http.MethodPost, "http://"+node.e.REST+"/v1/node/status", "{}") }},
		{"node metrics", func() error { return fetch(http.MethodGet, "http://"+node.e.Metrics+"/metrics", "") }},
		{"PoET gRPC", func() error { _, err := poets.Info(b.Context(), &poetpb.InfoRequest{}); return err }},
		{"PoET REST", func() error { return fetch(http.MethodGet, "http://"+poet.e.REST+"/v1/info", "") }},
		{"PoET metrics", func() error { return fetch(http.MethodGet, "http://"+poet.e.Metrics+"/metrics", "") }},
	} {
		b.Run(door.name, func(b *testing.B) {
			var clients sync.WaitGroup
			for c := range benchClients {
				clients.Go(func() {
					for range (b.N + benchClients - 1 - c) / benchClients {
						if err := door.ask(); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			clients.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}

const benchClients = 16
