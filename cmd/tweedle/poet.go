package main

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tweedle/base/telemetry"
	"tweedle/edges/preset"
	"tweedle/services/poet/delivery"
	"tweedle/services/poet/door"
	"tweedle/services/poet/rounds"
	"tweedle/services/poet/server"
	"tweedle/services/poet/work"
	"tweedle/values/types"
)

// poetKeyVar is the reference's environment variable for the server's key
// (reference/poet.md 1.9).
const poetKeyVar = "POET_PRIVATE_KEY"

// poetFlags are the flags of a PoET server: the reference's under its names
// (reference/poet.md 3), then ours.
type poetFlags struct {
	genesis                   string
	poetDir, dataDir, dbDir   string
	ini                       string
	configListen              string
	debug, json, printVersion bool
	disableWorker, drillClock bool
	metricsPort, profile      uint16
	cpuProfile                string
	certifierURL, certifier   string
	cfg                       server.Config
	maxReply                  int
	front                     frontFlags

	dir, network, networkID string
	admin, kernel           string
}

func poetCommand() *cobra.Command {
	f := &poetFlags{}
	cmd := &cobra.Command{
		Use:   "poet",
		Short: "Run a PoET server, and steer it",
		Long: `Runs a PoET server: it takes registrations, does the sequential work of each
round, keeps the proofs, and brings them to the network through its gateways.

Flags and INI keys are those of the reference server, so that its command line
and its file go on working; settings that tuned what is not there any more are
accepted and named in the log. Each flag can also be set by the environment
(TWEEDLE_POET_RPCLISTEN for --rpclisten); flags come first, the INI file last.

The admin commands find a server on this machine through its data directory:
endpoints.json names its listener, admin.token lets them in. A line added to
admin.token is another token; a time behind it (RFC 3339) is when it expires.`,
		Example: `  tweedle poet --network network.json --dir ~/poet --gateway node.example:9092
  tweedle poet --configfile /etc/poet.conf
  tweedle poet --genesis-time 2026-12-01T00:00:00Z --epoch-duration 336h \
    --phase-shift 240h --cycle-gap 12h --dir /srv/poet`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	cmd.Flags().SortFlags = false
	f.registerTime(cmd)
	f.registerReference(cmd)
	f.registerOurs(cmd)
	cmd.AddCommand(poetGateways(), poetProofs(), poetRounds(), poetStorage(), poetReloadKeys(), poetEvidence(), poetBackup(), poetImport(), poetBench())
	return cmd
}

// registerTime registers what places a server in time and in a network; the
// first four are the reference's.
func (f *poetFlags) registerTime(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.genesis, "genesis-time", "", "genesis, RFC 3339")
	fl.DurationVar(&f.cfg.Poet.Schedule.EpochDuration, "epoch-duration", 30*time.Second, "length of an epoch")
	fl.DurationVar(&f.cfg.Poet.Schedule.PhaseShift, "phase-shift", 15*time.Second, "from an epoch's start to a round's")
	fl.DurationVar(&f.cfg.Poet.Schedule.CycleGap, "cycle-gap", 10*time.Second, "from a round's end to the next one's start")
	pathVar(fl, &f.network, "network", "", "", "network file; it takes the place of genesis time, epoch, shift, gap and network id")
	fl.StringVar(&f.networkID, "network-id", "", "genesis id of the network, hexadecimal; gateways of other networks are not used")
}

// registerReference registers what else the reference has.
func (f *poetFlags) registerReference(cmd *cobra.Command) {
	fl := cmd.Flags()
	base := "poet"
	if cache, err := os.UserCacheDir(); err == nil {
		base = filepath.Join(cache, "poet")
	}
	pathVar(fl, &f.poetDir, "poetdir", "", base, "folder of the data directory, if --datadir is not given")
	pathVar(fl, &f.dataDir, "datadir", "b", "", "data directory")
	pathVar(fl, &f.ini, "configfile", "c", "", "INI file with settings")
	pathVar(fl, &f.cfg.GRPC, "rpclisten", "r", "localhost:50002", "address of the public gRPC API, host:port or unix:PATH")
	pathVar(fl, &f.cfg.REST, "restlisten", "w", "localhost:8080", "address of the public REST API, host:port or unix:PATH")
	fl.StringVar(&f.configListen, "config-rpclisten", "localhost:50001", "address of the admin API, under the reference's name")
	fl.Uint16Var(&f.metricsPort, "metrics-port", 0, "port of the metrics on every interface, see also --metrics-listen")
	fl.IntVar(&f.maxReply, "max-grpc-resp-size", 0, "limit of a gRPC reply in bytes; what is below our own limit is raised to it")
	fl.BoolVar(&f.debug, "debuglog", false, "log more")
	fl.BoolVar(&f.json, "jsonlog", false, "log as JSON")
	pathVar(fl, &f.cpuProfile, "cpuprofile", "", "", "file to write a CPU profile to")
	fl.Uint16Var(&f.profile, "profile", 0, "port of the profiler, on this machine only")
	fl.UintVar(&f.cfg.Poet.PowDifficulty, "pow-difficulty", 0, "leading zero bits of a registration's proof of work")
	fl.Uint64Var(&f.cfg.Poet.MaxRoundMembers, "max-round-members", rounds.DefaultMaxRoundMembers, "members that a round may have")
	fl.IntVar(&f.cfg.Poet.MaxSubmitBatch, "max-submit-batch-size", rounds.DefaultMaxSubmitBatch, "registrations stored together at most")
	fl.DurationVar(&f.cfg.Poet.SubmitFlush, "submit-flush-interval", rounds.DefaultSubmitFlush, "wait for more registrations to store together at most")
	fl.StringVar(&f.certifierURL, "certifier-url", "", "URL of the certifier, told to clients")
	fl.StringVar(&f.certifier, "certifier-pubkey", "", "key of the certifier, base64")
	pathVar(fl, &f.cfg.Poet.TrustedKeysDir, "trusted-pub-keys-dir-path", "", "", "folder of further certifier keys (*.key, base64)")
	fl.BoolVar(&f.disableWorker, "disable-worker", false, "refused: a server executes its rounds itself")
	_ = fl.MarkHidden("disable-worker") // it was registered just now
	fl.BoolVar(&f.printVersion, "version", false, "print the version and exit")
	pathVar(fl, &f.dbDir, "dbdir", "", "", "database directory of the reference, which an advice to import it names")
	_ = fl.MarkHidden("dbdir") // it was registered just now
	for _, name := range retiredFlags() {
		pathVar(fl, new(string), name, "", "", "accepted and not used")
		_ = fl.MarkHidden(name) // it was registered just now
	}
}

// retiredFlags are the reference's settings that have nothing to tune here:
// the tree needs no buffers and no estimate of the speed, there is one data
// directory, and logs go to the standard error stream.
func retiredFlags() []string {
	return []string{"lps", "memory", "tree-file-buffer", "logdir", "maxlogfiles", "maxlogfilesize"}
}

// registerOurs registers what the reference does not have.
func (f *poetFlags) registerOurs(cmd *cobra.Command) {
	fl := cmd.Flags()
	d := delivery.DefaultConfig()
	f.cfg.Delivery = d
	f.cfg.Limits = door.DefaultLimits()
	pathVar(fl, &f.dir, "dir", "", "", "data directory, short for --datadir")
	fl.StringArrayVar(&f.cfg.Gateways, "gateway", nil, "gRPC address of a node that takes proofs, host:port, or https://host:port if it has a certificate; may be repeated")
	fl.IntVar(&f.cfg.Delivery.Acks, "broadcast-acks", d.Acks, "gateways that must acknowledge a proof and give it back")
	fl.IntVar(&f.cfg.Delivery.Slots, "gateway-slots", d.Slots, "gateways used at a time")
	fl.BoolVar(&f.drillClock, "drill-clock", false, "for drills: the clock is ahead by the duration in the file drill-clock of --dir")
	fl.BoolVar(&f.cfg.Delivery.DrillNoRecycle, "drill-no-recycle", false, "for drills: the slots stay with the first gateways, dead or not")
	fl.IntVar(&f.cfg.Delivery.MinPeers, "gateway-min-peers", d.MinPeers, "peers that a gateway must have")
	fl.Uint64Var(&f.cfg.Poet.Work.MaxLeavesPerSecond, "max-leaves-per-second", 0, "slow the work down; 0 is full speed")
	fl.Uint64Var(&f.cfg.Poet.Work.LeavesPerSecond, "leaves-per-second", 0, "expected speed, for the disk budget and the progress; 0 measures it")
	fl.UintVar(&f.cfg.Poet.Work.K, "keep", 0, "height of the lowest tree layer that is kept; a sudden stop may cost 2^keep leaves; 0 chooses, for a second at most")
	fl.IntVar(&f.cfg.Poet.Work.ProveWorkers, "prove-workers", 0, "cores that make a round's proof at its end; 0 is all")
	fl.DurationVar(&f.cfg.Poet.Work.CheckpointInterval, "checkpoint-interval", work.DefaultCheckpointInterval, "work that a sudden stop may cost, in time")
	fl.Int64Var(&f.cfg.Poet.BallastBytes, "ballast-bytes", rounds.DefaultBallastBytes, "room held back to save a proof on a full disk")
	fl.BoolVar(&f.cfg.Poet.NewIdentity, "new-identity", false, "make a new key if that of the data directory is lost")
	fl.BoolVar(&f.cfg.Poet.AcceptOlderState, "accept-older-state", false, "start on a database whose last transaction is damaged, without it")
	pathVar(fl, &f.admin, "adminlisten", "", "", "address of the admin API: host:port of this machine, or unix:PATH (default --config-rpclisten)")
	fl.StringVar(&f.cfg.Metrics, "metrics-listen", "", "address of the metrics")
	f.front.register(fl, &f.cfg.Limits.Limits, &f.cfg.Operations)
	fl.Float64Var(&f.cfg.Limits.PerKey, "key-rate", f.cfg.Limits.PerKey, "registrations a second that one key may sign; 0 is no limit")
	registerKernel(cmd, &f.kernel)
}

func (f *poetFlags) run(cmd *cobra.Command) error {
	if f.printVersion {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "tweedle", version())
		return err
	}
	if err := settle(cmd); err != nil {
		return err
	}
	if err := readINI(cmd, f); err != nil {
		return err
	}
	f.cfg.Log = f.logger()
	for _, name := range retiredFlags() {
		if cmd.Flags().Changed(name) {
			f.cfg.Log.Info("this setting has nothing to tune here and is ignored", "setting", name)
		}
	}
	if err := f.complete(cmd); err != nil {
		return err
	}
	if err := useKernel(f.kernel); err != nil {
		return err
	}
	if err := f.refuseReference(); err != nil {
		return err
	}
	if f.cpuProfile != "" {
		stop, err := startProfile(f.cpuProfile)
		if err != nil {
			return err
		}
		defer stop()
	}
	err := server.Run(cmd.Context(), f.cfg)
	if err == nil {
		f.cfg.Log.Info("the PoET server has stopped")
	}
	return err
}

func (f *poetFlags) logger() *slog.Logger {
	l := logFlags{level: "info", json: f.json}
	if f.debug {
		l.level = "debug"
	}
	log, _ := l.logger() // the levels are valid
	return log
}

// complete turns the flags into a configuration.
func (f *poetFlags) complete(cmd *cobra.Command) error {
	cfg := &f.cfg
	switch {
	case f.dir != "":
		cfg.Poet.Dir = f.dir
	case f.dataDir != "":
		cfg.Poet.Dir = f.dataDir
	default:
		cfg.Poet.Dir = filepath.Join(f.poetDir, "data")
	}
	if w := cfg.Poet.Work; w.ProveWorkers < 0 || w.CheckpointInterval <= 0 || cfg.Poet.BallastBytes <= 0 {
		return usageError{errors.New("--prove-workers must not be negative, --checkpoint-interval and --ballast-bytes must be positive")}
	}
	if f.drillClock {
		cfg.Poet.Wall = drillClock(cfg.Poet.Dir)
	}
	if f.disableWorker {
		return usageError{errors.New("a server executes its rounds itself: leave --disable-worker out")}
	}
	if err := f.placeInTime(cmd); err != nil {
		return err
	}
	if cfg.Admin = f.admin; cfg.Admin == "" {
		cfg.Admin = f.configListen
	}
	if f.metricsPort != 0 && cfg.Metrics == "" {
		cfg.Metrics = net.JoinHostPort("", strconv.Itoa(int(f.metricsPort)))
	}
	if f.profile != 0 {
		cfg.Profile = net.JoinHostPort("127.0.0.1", strconv.Itoa(int(f.profile)))
	}
	cfg.Limits.Reply = max(cfg.Limits.Reply, f.maxReply)
	if cfg.Limits.PerKey < 0 {
		return usageError{fmt.Errorf("--key-rate must not be negative")}
	}
	o, err := f.front.complete(cmd.Flags(), cfg.Log)
	if err != nil {
		return err
	}
	cfg.Proxies, cfg.Origins, cfg.Certificate = o.Proxies, o.Origins, o.Certificate
	cfg.CertifierURL, cfg.Version = f.certifierURL, version()
	if f.certifier != "" {
		key, err := base64.StdEncoding.DecodeString(f.certifier)
		if err != nil || len(key) != ed25519.PublicKeySize {
			return usageError{fmt.Errorf("--certifier-pubkey is not the base64 form of a key of %d bytes", ed25519.PublicKeySize)}
		}
		cfg.Poet.Certifier = key
	}
	if text := os.Getenv(poetKeyVar); text != "" {
		key, err := rounds.ParseKey(text)
		if err != nil {
			return fmt.Errorf("environment variable %s: %w", poetKeyVar, err)
		}
		cfg.Poet.Key = key
	}
	cfg.Announce = func(e telemetry.Endpoints) (func(), error) { return announce(cfg.Poet.Dir, e) }
	return nil
}

// placeInTime sets the schedule and the network, from the network file or from
// the reference's flags.
func (f *poetFlags) placeInTime(cmd *cobra.Command) error {
	if f.network != "" {
		for _, name := range []string{"genesis-time", "epoch-duration", "phase-shift", "cycle-gap", "network-id"} {
			if cmd.Flags().Changed(name) {
				return usageError{fmt.Errorf("--%s is told by the network file already: leave it out", name)}
			}
		}
		n, err := preset.Load(f.network)
		if err != nil {
			return err
		}
		params, err := n.Params()
		if err != nil {
			return err
		}
		f.cfg.Poet.Schedule, f.cfg.Delivery.Genesis = n.PoetSchedule(params), n.ID()
		return nil
	}
	if f.genesis == "" {
		return usageError{errors.New("a PoET server needs --network, or --genesis-time with epoch, shift and gap")}
	}
	genesis, err := time.Parse(time.RFC3339, f.genesis)
	if err != nil {
		return usageError{fmt.Errorf("--genesis-time: %q is not a time like 2026-12-01T00:00:00Z", f.genesis)}
	}
	s := &f.cfg.Poet.Schedule
	s.Genesis = genesis
	if s.EpochDuration <= 0 || s.CycleGap < 0 || s.CycleGap >= s.EpochDuration || s.PhaseShift < 0 {
		return usageError{errors.New("an epoch must be longer than the cycle gap, and nothing of both negative")}
	}
	if f.networkID == "" {
		return nil
	}
	if f.cfg.Delivery.Genesis, err = parseGenesisID(f.networkID); err != nil {
		return usageError{fmt.Errorf("--network-id: %w", err)}
	}
	return nil
}

func parseGenesisID(s string) (types.GenesisID, error) {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil || len(b) != len(types.GenesisID{}) {
		return types.GenesisID{}, fmt.Errorf("%q is not %d hexadecimal digits", s, 2*len(types.GenesisID{}))
	}
	return types.GenesisID(b), nil
}

// startProfile writes a profile. An earlier one is replaced, and nothing else is.
func startProfile(path string) (stop func(), err error) {
	if !isProfile(path) {
		return nil, usageError{fmt.Errorf("--cpuprofile: %s is there and no profile: choose another file", path)}
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("--cpuprofile: %w", err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = file.Close() // a profile that is cut short says so when it is read
	}, nil
}

// isProfile tells whether a file is missing, empty as a killed process leaves it, or a
// CPU profile: compressed, and after its time it says that it counts samples
// (github.com/google/pprof/proto/profile.proto, as package runtime/pprof writes it).
func isProfile(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() == 0 {
		return true
	}
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return false
	}
	samples := []byte{0x0a, 4, 0x08, 1, 0x10, 2} // sample_type: {type: 1, unit: 2}
	have := make([]byte, 1+binary.MaxVarintLen64+len(samples))
	_, err = io.ReadFull(unzipped, have)
	return err == nil && bytes.Contains(have, samples)
}
