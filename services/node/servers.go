package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"tweedle/base/telemetry"
	"tweedle/edges/api"
	"tweedle/edges/front"
)

// answerTimeout is what an answer to the operator may take.
const answerTimeout = 30 * time.Second

// servers are the listeners of a node that are not of the p2p host.
type servers struct {
	grpc, rest net.Listener // for users; nil if there is none
	api        *api.Server
	operations net.Listener // for the operator; nil if there is none
	private    net.Listener // for the operator with a token; nil if there is none
	admin      *front.Admin // on private
	pages      http.Handler // on operations
	limits     front.Limits // of operations
	metrics    *front.Metrics
	log        *slog.Logger
}

// listen opens the listeners, so that an address in use is known at once.
func (n *Node) listen() (_ *servers, err error) {
	n.newMetrics()
	s := &servers{pages: api.Operations(n, n.registry, n.log), limits: n.cfg.Operations, log: n.log}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for _, l := range []struct {
		address, flag string
		to            *net.Listener
		listen        func(string) (net.Listener, error)
	}{
		{n.cfg.GRPCListen, "--grpc-listen", &s.grpc, front.ListenPublic},
		{n.cfg.RESTListen, "--rest-listen", &s.rest, front.ListenPublic},
		{n.cfg.MetricsListen, "--metrics-listen", &s.operations, front.Listen},
		{n.cfg.AdminListen, "--admin-listen", &s.private, front.ListenLocal},
	} {
		if l.address == "" {
			continue
		}
		if *l.to, err = l.listen(front.Loopback(l.address)); err != nil {
			return nil, fmt.Errorf("%s: %w", l.flag, err)
		}
	}
	guard := n.cfg.Front
	guard.Log, guard.Metrics = n.log, front.NewMetrics("tweedle_node", n.registry)
	s.metrics = guard.Metrics
	s.api, err = api.New(api.Config{
		GRPC: s.grpc, REST: s.rest, Network: n.activation.Network, Schedule: n.schedule, VM: n.vmParams,
		Version: n.cfg.Version, Store: n.db.Public(), Node: n, Gateway: n, Events: n.events, Log: n.log,
		Limits: n.cfg.API, Front: guard,
	})
	if err == nil && s.private != nil {
		s.admin, err = api.NewAdmin(filepath.Join(n.cfg.Dir, front.TokenFile), n, n.cfg.API, guard)
	}
	return s, err
}

// Run serves until ctx ends.
func (s *servers) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.api.Run(ctx) })
	if s.operations != nil {
		group.Go(func() error {
			return front.Operations(ctx, s.operations, s.pages, answerTimeout, s.limits, s.log, s.metrics)
		})
	}
	if s.private != nil {
		group.Go(func() error { return s.admin.Serve(ctx, s.private) })
	}
	return group.Wait()
}

// close releases the listeners; Run has closed them already if it ran.
func (s *servers) close() {
	for _, l := range []net.Listener{s.grpc, s.rest, s.operations, s.private} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// Endpoints tells where the node is reached.
func (n *Node) Endpoints() telemetry.Endpoints {
	e := telemetry.Endpoints{
		GRPC: front.Address(n.servers.grpc), REST: front.Address(n.servers.rest),
		Metrics: front.Address(n.servers.operations), Admin: front.Address(n.servers.private),
	}
	if addrs := n.host.Addrs(); len(addrs) > 0 {
		e.P2P = addrs[0]
	}
	return e
}
