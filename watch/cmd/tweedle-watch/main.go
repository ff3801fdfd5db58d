// Command tweedle-watch watches a network and tells people: monitoring, alerts and
// the supervisor of single programs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tweedle/watch/config"
	"tweedle/watch/crash"
	"tweedle/watch/rules"
	"tweedle/watch/server"
)

const usage = `tweedle-watch watches a network and tells people.

  tweedle-watch serve --config watch.yml          monitoring, alerts, page
  tweedle-watch run [flags] -- COMMAND...         run a program, tell when it dies
  tweedle-watch died [flags]                      tell that "run" was killed, as ExecStopPost= of systemd
  tweedle-watch check --config watch.yml          what is wrong with a configuration
  tweedle-watch export rules|alertmanager [--config watch.yml] [--dir D]
                                                  for a real Prometheus and Alertmanager
  tweedle-watch runbook ALERT                     what to do about an alert

Every command: --help. Exit status: 0, 1 (failed), 2 (usage).
`

// Exit statuses of the command contract.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:])) }

// errUsage marks a mistake in how the command was called.
var errUsage = errors.New("see tweedle-watch --help")

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := dispatch(ctx, args)
	var ended crash.Ended
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "tweedle-watch:", err)
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "tweedle-watch:", strings.ReplaceAll(err.Error(), "\n", "\n  "))
	if errors.As(err, &ended) {
		return ended.Code()
	}
	return exitFailed
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return fmt.Errorf("a command is missing: %w", errUsage)
	}
	commands := map[string]func(context.Context, []string) error{
		"serve": serve, "run": supervise, "died": died, "check": check, "export": export, "runbook": runbook,
	}
	switch name := args[0]; name {
	case "-h", "--help", "help":
		fmt.Print(usage)
		return nil
	default:
		if commands[name] == nil {
			return fmt.Errorf("unknown command %q: %w", name, errUsage)
		}
		return commands[name](ctx, args[1:])
	}
}

// flags parses the flags of a command.
func flags(name, example string, args []string, define func(*flag.FlagSet)) (*flag.FlagSet, error) {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	define(fs)
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Printf("Example:\n  %s\n\nFlags:\n", example)
		fs.SetOutput(os.Stdout)
		fs.PrintDefaults()
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errUsage)
	}
	return fs, nil
}

func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func serve(ctx context.Context, args []string) error {
	var path, announce string
	if _, err := flags("serve", "tweedle-watch serve --config watch.yml", args, func(fs *flag.FlagSet) {
		fs.StringVar(&path, "config", "watch.yml", "the configuration; SIGHUP reads it again")
		fs.StringVar(&announce, "announce", "", "file that gets the page's address once it is open")
	}); err != nil {
		return err
	}
	s, err := server.Open(path, logger())
	if err != nil {
		return err
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	ctx, end := context.WithCancel(ctx)
	defer end()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				s.Reload()
			}
		}
	}()
	if announce != "" {
		if err := os.WriteFile(announce, []byte(s.URL()+"\n"), 0o644); err != nil {
			return err
		}
		defer os.Remove(announce)
	}
	return s.Run(ctx)
}

// told is where deaths are told, as flags.
type told struct{ watch, tokenFile, webhook string }

func (t *told) define(fs *flag.FlagSet, cfg *crash.Config) {
	fs.StringVar(&cfg.Name, "name", "", "name of the program in alerts")
	fs.StringVar(&cfg.Network, "network", "tweedle", "name of the network in alerts")
	fs.StringVar(&cfg.Dir, "dir", ".", "keeps events and reports")
	fs.StringVar(&t.watch, "watch", "", "URL of the watch, or of an Alertmanager")
	fs.StringVar(&t.tokenFile, "token-file", "", "file with the watch's token")
	fs.StringVar(&t.webhook, "webhook", "", "URL that is told directly")
}

func (t *told) sinks() (out []crash.Sink) {
	if t.watch != "" {
		out = append(out, crash.Alertmanager{URL: t.watch, TokenFile: t.tokenFile})
	}
	if t.webhook != "" {
		out = append(out, crash.Webhook{URL: t.webhook})
	}
	return out
}

func died(ctx context.Context, args []string) error {
	cfg := crash.Config{Log: logger(), Command: []string{os.Args[0]}}
	var to told
	if _, err := flags("died", "tweedle-watch died --name node-1 --watch http://127.0.0.1:9096 --token-file watch-data/token", args, func(fs *flag.FlagSet) {
		to.define(fs, &cfg)
	}); err != nil {
		return err
	}
	if cfg.Name == "" {
		return fmt.Errorf("died needs --name: %w", errUsage)
	}
	cfg.Tell = to.sinks()
	return crash.Died(ctx, cfg, os.Getenv("SERVICE_RESULT"), os.Getenv("EXIT_CODE"), os.Getenv("EXIT_STATUS"))
}

func supervise(ctx context.Context, args []string) error {
	cfg := crash.Config{Output: os.Stdout, Log: logger()}
	var to told
	var listen, status, endpoints string
	fs, err := flags("run", "tweedle-watch run --name node-1 --watch http://127.0.0.1:9096 --token-file watch-data/token -- tweedle node --dir D --network N", args, func(fs *flag.FlagSet) {
		to.define(fs, &cfg)
		fs.StringVar(&listen, "listen", "", "address of the supervisor's metrics")
		fs.StringVar(&status, "status", "", "URL of the program's /status, for its version and layer")
		fs.StringVar(&endpoints, "endpoints", "", "file in which the program writes where it listens, instead of --status")
		fs.BoolVar(&cfg.Once, "once", false, "end when the program dies, with its exit status (128 and more: by a signal); systemd starts both again")
		fs.DurationVar(&cfg.Healthy, "healthy", 0, "how long the program runs until it counts as back (default 10s)")
	})
	if err != nil {
		return err
	}
	cfg.Command = fs.Args()
	if cfg.Name == "" || len(cfg.Command) == 0 {
		return fmt.Errorf("run needs --name, and a command behind --: %w", errUsage)
	}
	cfg.Tell = to.sinks()
	switch {
	case status != "":
		cfg.Status = ask(func() string { return status })
	case endpoints != "":
		cfg.Status = ask(func() string { return statusURL(endpoints) })
	}
	registry := prometheus.NewRegistry()
	cfg.Registry = registry
	s, err := crash.New(cfg)
	if err != nil {
		return err
	}
	if listen != "" {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
		web := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
		go web.Serve(l) //nolint:errcheck // it ends with Close
		defer web.Close()
	}
	return s.Run(ctx)
}

// statusURL reads where a program's status is; empty: it has not said so yet.
func statusURL(endpoints string) string {
	b, err := os.ReadFile(endpoints)
	var e struct {
		Metrics string `json:"metrics"`
	}
	if err != nil || json.Unmarshal(b, &e) != nil || e.Metrics == "" {
		return ""
	}
	return "http://" + e.Metrics + "/status"
}

// ask reads what a node says of itself.
func ask(url func() string) func(context.Context) (string, *uint32) {
	client := &http.Client{Timeout: time.Second}
	return func(ctx context.Context) (string, *uint32) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url(), nil)
		if err != nil {
			return "", nil
		}
		resp, err := client.Do(req)
		if err != nil {
			return "", nil
		}
		defer resp.Body.Close()
		var st struct {
			Version string  `json:"version"`
			Layer   *uint32 `json:"applied_layer"`
		}
		if json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&st) != nil {
			return "", nil
		}
		return st.Version, st.Layer
	}
}

func check(_ context.Context, args []string) error {
	var path string
	if _, err := flags("check", "tweedle-watch check --config watch.yml", args, func(fs *flag.FlagSet) {
		fs.StringVar(&path, "config", "watch.yml", "the configuration")
	}); err != nil {
		return err
	}
	_, err := config.Load(path)
	return err
}

func export(_ context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("export rules or alertmanager: %w", errUsage)
	}
	var path, dir string
	if _, err := flags("export", "tweedle-watch export rules --dir /etc/prometheus/rules", args[1:], func(fs *flag.FlagSet) {
		fs.StringVar(&path, "config", "watch.yml", "the configuration, for the notifiers")
		fs.StringVar(&dir, "dir", ".", "where rule files go")
	}); err != nil {
		return err
	}
	switch args[0] {
	case "rules":
		for name, text := range rules.Files() {
			if err := os.WriteFile(dir+"/tweedle-"+name, []byte(text), 0o644); err != nil {
				return err
			}
		}
		return nil
	case "alertmanager":
		c, err := config.Load(path)
		if err != nil {
			return err
		}
		text, err := c.Notify()
		fmt.Print(text)
		return err
	}
	return fmt.Errorf("cannot export %q: %w", args[0], errUsage)
}

func runbook(_ context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("name one alert: %w", errUsage)
	}
	text, ok := rules.Runbook(args[0])
	if !ok {
		return fmt.Errorf("no alert is called %q", args[0])
	}
	fmt.Print(text)
	return nil
}
