// Package server is a PoET server as a process: it puts the rounds of package
// poet, the deliveries of package delivery and the APIs of package door
// together, on their listeners.
//
// It promises: when Run announces its endpoints, every listener is open;
// a stored proof is delivered whatever stops the process in between;
// when its context ends, Run checkpoints and returns within about a second and
// leaves nothing behind. It leaves flags and signals to the caller.
package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"tweedle/base/durable"
	"tweedle/base/telemetry"
	"tweedle/edges/front"
	"tweedle/proofs/posw"
	"tweedle/services/poet"
	"tweedle/services/poet/delivery"
	"tweedle/services/poet/door"
	"tweedle/services/poet/legacy"
	"tweedle/services/poet/rounds"
)

// Config is what a server runs with.
type Config struct {
	// Poet names the data directory, the schedule and all about rounds; its
	// hooks, log and metrics are set here.
	Poet rounds.Config
	// Delivery says how proofs reach the network, Gateways where to begin.
	Delivery delivery.Config
	Gateways []string
	// Limits bound the public API, Proxies and Origins say who may speak for
	// others there, which pages may read it, and Certificate makes it speak TLS
	// (front.Options). Operations bound Metrics and Profile, each for itself.
	Limits      door.Limits
	Proxies     []netip.Prefix
	Origins     []string
	Free        []netip.Prefix // nil: front.Local
	Certificate *front.Certificate
	Operations  front.Limits // zero: front.OperationsLimits
	// Addresses to listen on, host:port, but for Profile and Metrics also unix:PATH;
	// empty leaves these two out.
	GRPC, REST, Admin, Metrics, Profile string
	CertifierURL                        string
	// Announce is told the addresses once every listener is open; what it
	// returns is called at the end. It may be nil.
	Announce func(telemetry.Endpoints) (withdraw func(), err error)
	Version  string
	Log      *slog.Logger
	// Listen opens listeners, nil: of TCP, and Dial says how gateways are reached.
	// Virtual networks have their own.
	Listen func(addr string) (net.Listener, error)
	Dial   []grpc.DialOption
}

// Run serves until ctx ends, or until something fails that only a person can
// mend.
func Run(ctx context.Context, cfg Config) (err error) {
	if _, err := posw.Kernel(); err != nil {
		return fmt.Errorf("do not trust this processor, or choose a SHA-256 kernel that it runs well with --kernel: %w", err)
	}
	if err := (durable.OS{}).Mkdir(cfg.Poet.Dir, 0o700); err != nil {
		return startError(err, cfg.Poet.Dir)
	}
	registry := telemetry.NewRegistry()
	telemetry.DescribeProcess(registry, cfg.Version, telemetry.Times{Genesis: cfg.Poet.Schedule.Genesis, Epoch: cfg.Poet.Schedule.EpochDuration})

	stored := make(chan struct{}, 1)
	cfg.Poet.OnProof = func(string) {
		select {
		case stored <- struct{}{}:
		default: // delivery looks anyway
		}
	}
	telemetry.CountDropped(cfg.Log, registry)
	cfg.Poet.Log, cfg.Poet.Metrics = cfg.Log, registry
	service, err := rounds.Open(cfg.Poet)
	if err != nil {
		return startError(err, cfg.Poet.Dir)
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	all := shelf{service, legacy.OpenArchive(service.Book().DB), cfg.Poet.Schedule}
	cfg.Delivery.Again = cfg.Poet.Schedule.EpochDuration
	courier, err := delivery.Open(service.Book(), all, cfg.Delivery, cfg.Gateways, delivery.Options{
		Metrics: delivery.NewMetrics(registry), Stored: stored, Date: service.Now, Dial: cfg.Dial, Tell: func(e poet.Event) { poet.Tell(cfg.Log, e) },
	})
	if err != nil {
		return err
	}
	// Only now: the data directory is ours, and what stands in a listener's way
	// is not a part of somebody else's.
	ls, err := openListeners(cfg)
	if err != nil {
		return err
	}
	defer ls.close()
	return serve(ctx, cfg, ls, all, courier, registry)
}

// serve runs all parts until ctx ends or one of them fails.
func serve(ctx context.Context, cfg Config, ls *listeners, service shelf, courier *delivery.Courier, registry *telemetry.Registry) error {
	api := door.Config{
		Limits: cfg.Limits, Schedule: cfg.Poet.Schedule, CertifierURL: cfg.CertifierURL, Version: cfg.Version,
		Front: front.Options{
			Proxies: cfg.Proxies, Origins: cfg.Origins, Free: cfg.Free, Certificate: cfg.Certificate, Log: cfg.Log, Metrics: front.NewMetrics("poet", registry),
		},
	}
	admin, err := door.NewAdmin(filepath.Join(cfg.Poet.Dir, front.TokenFile), service, courier, api)
	if err != nil {
		return startError(err, cfg.Poet.Dir)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return service.Run(ctx) })
	g.Go(func() error { return courier.Run(ctx) })
	g.Go(func() error { return door.ServePublic(ctx, ls.grpc, ls.rest, service, api) })
	g.Go(func() error { return admin.Serve(ctx, ls.admin) })
	if ls.metrics != nil {
		mux := http.NewServeMux()
		registry.ServeMetrics(mux)
		g.Go(func() error {
			return front.Operations(ctx, ls.metrics, mux, scrapeTime, cfg.Operations, cfg.Log, api.Front.Metrics)
		})
	}
	if ls.profile != nil {
		g.Go(func() error {
			return front.Operations(ctx, ls.profile, profiler(), profileTime, cfg.Operations, cfg.Log, api.Front.Metrics)
		})
	}
	kernel, _ := posw.Kernel() // Run looked at the error
	cfg.Log.Info("the PoET server is up", "name", service.Info().PoetID.String(), "grpc", ls.grpc.Addr().String(), "rest", ls.rest.Addr().String(),
		"admin", ls.admin.Addr().String(), "dir", cfg.Poet.Dir, "kernel", kernel, "processor", posw.Processor())
	if cfg.Announce != nil {
		withdraw, err := cfg.Announce(ls.endpoints())
		if err != nil {
			stop()
			return errors.Join(startError(err, cfg.Poet.Dir), g.Wait())
		}
		defer withdraw()
	}
	return g.Wait()
}

// endpoints tells where the listeners are.
func (ls *listeners) endpoints() telemetry.Endpoints {
	return telemetry.Endpoints{GRPC: front.Address(ls.grpc), REST: front.Address(ls.rest), Admin: front.Address(ls.admin), Metrics: front.Address(ls.metrics)}
}

// listeners are the open listeners of a server.
type listeners struct {
	grpc, rest, admin, metrics, profile net.Listener
}

func openListeners(cfg Config) (*listeners, error) {
	ls := &listeners{}
	for _, l := range []struct {
		to   *net.Listener
		addr string
		flag string
		open func(string) (net.Listener, error)
	}{
		{&ls.grpc, cfg.GRPC, "rpclisten", front.ListenPublic},
		{&ls.rest, cfg.REST, "restlisten", front.ListenPublic},
		{&ls.admin, cfg.Admin, "adminlisten", front.ListenLocal},
		{&ls.metrics, cfg.Metrics, "metrics-listen", front.Listen},
		{&ls.profile, cfg.Profile, "profile", front.Listen},
	} {
		if l.addr == "" {
			continue
		}
		var err error
		if cfg.Listen != nil {
			l.open = cfg.Listen
		}
		if *l.to, err = l.open(l.addr); err != nil {
			ls.close()
			return nil, fmt.Errorf("--%s: %w", l.flag, err)
		}
	}
	return ls, nil
}

// close closes what is open; a listener that a server has closed already does
// not mind.
func (ls *listeners) close() {
	for _, l := range []net.Listener{ls.grpc, ls.rest, ls.admin, ls.metrics, ls.profile} {
		if l != nil {
			_ = l.Close() // nothing is left to lose
		}
	}
}

// Times of the operator's pages.
const (
	scrapeTime  = 30 * time.Second
	profileTime = 10 * time.Minute // a profile is as long as it was asked for
)

func profiler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// startError says what to do about what most often keeps a server from starting:
// a file that cannot be used, in its data directory or elsewhere.
func startError(err error, dir string) error {
	path, other := dir, "choose another with --dir"
	if named := new(fs.PathError); errors.As(err, &named) {
		if path = named.Path; !strings.HasPrefix(path, dir) {
			other = "name another"
		}
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, poet.ErrDiskFull):
		return fmt.Errorf("the disk of %s is full: free some space and start again (%w)", path, err)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EEXIST):
		return fmt.Errorf("%s is not a directory: %s (%w)", path, other, err)
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s cannot be used: change its owner or mode, or %s (%w)", path, other, err)
	}
	return err
}
