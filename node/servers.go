package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"tweedle/store"
	"tweedle/telemetry"
)

// Timeouts of the operator's server.
const (
	headerTimeout   = 5 * time.Second
	answerTimeout   = 30 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 2 * time.Second
	maxHeader       = 16 << 10 // bytes
)

// servers are the listeners of a node that are not of the p2p host.
type servers struct {
	operations net.Listener // nil if there is none
	http       *http.Server
}

// listen opens the listeners, so that an address in use is known at once.
func (n *Node) listen() (*servers, error) {
	n.gauges()
	s := &servers{}
	if n.cfg.MetricsListen != "" {
		l, err := net.Listen("tcp", n.cfg.MetricsListen)
		if err != nil {
			return nil, fmt.Errorf("metrics: %w: choose another address with --metrics-listen", err)
		}
		s.operations = l
		s.http = &http.Server{
			Handler: n.operations(), ReadHeaderTimeout: headerTimeout, ReadTimeout: answerTimeout,
			WriteTimeout: answerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		}
	}
	return s, nil
}

// Run serves until ctx ends.
func (s *servers) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	if s.http != nil {
		group.Go(func() error {
			if err := s.http.Serve(s.operations); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
			defer cancel()
			if s.http.Shutdown(stop) != nil {
				return s.http.Close() // somebody is slow to read
			}
			return nil
		})
	}
	return group.Wait()
}

// close releases the listeners if Run never did.
func (s *servers) close() {
	if s.operations != nil {
		_ = s.operations.Close() // it may be closed already
	}
}

// Endpoints tells where the node is reached.
func (n *Node) Endpoints() telemetry.Endpoints {
	e := telemetry.Endpoints{}
	if addrs := n.host.Addrs(); len(addrs) > 0 {
		e.P2P = addrs[0]
	}
	if n.servers.operations != nil {
		e.Metrics = n.servers.operations.Addr().String()
	}
	return e
}

// events tells API subscribers what became final.
type events struct{}

// applied tells of an applied layer.
func (n *Node) applied(store.LayerResult) {}
