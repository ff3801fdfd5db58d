package sim

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Drawn returns the options with all that the seed draws filled in: they play
// the same run.
func Drawn(o Options) Options {
	w := &world{opts: o}
	w.draw()
	return w.opts
}

// Shrink returns the least options that still fail: what is left can be taken
// away no further without the failure going too. It gives up after so many runs,
// and tells how many it took. o must fail.
func Shrink(o Options, limit int, fails func(Options) bool) (Options, int) {
	o = Drawn(o)
	o.Transcript = nil
	runs := 0
	for again := true; again; {
		again = false
		for _, less := range smaller(o) {
			if runs >= limit {
				return o, runs
			}
			runs++
			if fails(less) {
				o, again = less, true
				break
			}
		}
	}
	return o, runs
}

// smaller returns options with one thing less each, what takes away most first.
func smaller(o Options) (out []Options) {
	add := func(change func(*Options)) {
		less, faults := o, *o.Faults
		less.Faults = &faults
		change(&less)
		out = append(out, less)
	}
	if f := *o.Faults; f != (Faults{Latency: f.Latency}) {
		add(func(l *Options) { l.Faults = &Faults{Latency: f.Latency} })
		if f.Loss > 0 {
			add(func(l *Options) { l.Faults.Loss = 0 })
		}
		if f.Skew > 0 {
			add(func(l *Options) { l.Faults.Skew = 0 })
		}
		if f.Splits > 0 {
			add(func(l *Options) { l.Faults.Splits-- })
		}
		if f.Crashes > 0 {
			add(func(l *Options) { l.Faults.Crashes-- })
		}
	}
	for _, list := range []func(*Options) *[]string{
		func(l *Options) *[]string { return &l.Hostile }, func(l *Options) *[]string { return &l.Strangers },
		func(l *Options) *[]string { return &l.Poets }, func(l *Options) *[]string { return &l.Clients },
	} {
		n := len(*list(&o))
		if n > 1 {
			add(func(l *Options) { *list(l) = []string{} })
		}
		for i := range n {
			add(func(l *Options) { *list(l) = slices.Delete(slices.Clone(*list(l)), i, i+1) })
		}
	}
	for _, n := range []int{(o.Nodes + 1) / 2, o.Nodes - 1} {
		if n >= 4 && n < o.Nodes && len(o.Hostile) <= n/5 && o.Late < n-2 && o.Several+len(o.Hostile) <= n {
			add(func(l *Options) { l.Nodes = n })
		}
	}
	for _, e := range []int{(o.Epochs + 1) / 2, o.Epochs - 1} {
		if e >= 1 && e < o.Epochs {
			add(func(l *Options) { l.Epochs = e })
		}
	}
	if o.Late > 0 {
		add(func(l *Options) { l.Late = 0 })
	}
	if o.Several > 0 {
		add(func(l *Options) { l.Several-- })
	}
	if o.Age > 0 {
		add(func(l *Options) { l.Age = 0 })
	}
	if o.BeaconRounds > 0 {
		add(func(l *Options) { l.BeaconRounds = 0 })
	}
	if o.RealKeys {
		add(func(l *Options) { l.RealKeys = false })
	}
	return out
}

// String is the faults as the command takes them.
func (f Faults) String() string {
	return fmt.Sprintf("latency=%v,loss=%v,crashes=%d,splits=%d,skew=%v", f.Latency, f.Loss, f.Crashes, f.Splits, f.Skew)
}

func parseFaults(s string) (*Faults, error) {
	f := &Faults{Latency: 20 * time.Millisecond}
	switch s {
	case "":
		return nil, nil
	case "none":
		return f, nil
	}
	for _, part := range strings.Split(s, ",") {
		name, value, _ := strings.Cut(part, "=")
		var err error
		switch name {
		case "latency":
			f.Latency, err = time.ParseDuration(value)
		case "skew":
			f.Skew, err = time.ParseDuration(value)
		case "loss":
			f.Loss, err = strconv.ParseFloat(value, 64)
		case "crashes":
			f.Crashes, err = strconv.Atoi(value)
		case "splits":
			f.Splits, err = strconv.Atoi(value)
		default:
			err = fmt.Errorf("no fault %q", name)
		}
		if err != nil {
			return nil, fmt.Errorf("--faults %s: %w", s, err)
		}
	}
	return f, nil
}

// Command is the command line that plays the options.
func (o Options) Command() string {
	o = Drawn(o)
	b := &strings.Builder{}
	fmt.Fprintf(b, "go run ./sim/cmd --seed %d --nodes %d --epochs %d --hostile %s --strangers %s --poets %s --clients %s --faults %v",
		o.Seed, o.Nodes, o.Epochs, listed(o.Hostile), listed(o.Strangers), listed(o.Poets), listed(o.Clients), *o.Faults)
	if o.Age > 0 {
		fmt.Fprintf(b, " --age %d", o.Age)
	}
	if o.Late > 0 {
		fmt.Fprintf(b, " --late %d", o.Late)
	}
	if o.Several > 0 {
		fmt.Fprintf(b, " --several %d", o.Several)
	}
	if o.BeaconRounds > 0 {
		fmt.Fprintf(b, " --beacon-rounds %d", o.BeaconRounds)
	}
	if o.RealKeys {
		b.WriteString(" --real-keys")
	}
	if o.Twins != nil {
		rows := make([]string, len(o.Twins))
		for i, r := range o.Twins {
			rows[i] = strconv.Itoa(int(r))
		}
		b.WriteString(" --twins " + strings.Join(rows, ","))
	}
	return b.String()
}

// Test is a test of the options, to be kept under a name that says what broke.
func (o Options) Test() string {
	o = Drawn(o)
	return fmt.Sprintf("func TestSeed%d(t *testing.T) {\n\tplay(t, Options{Seed: %d, Nodes: %d, Epochs: %d, Age: %d, Late: %d, Several: %d, BeaconRounds: %d, RealKeys: %v, Twins: %#v,\n"+
		"\t\tHostile: %#v, Strangers: %#v, Poets: %#v, Clients: %#v,\n\t\tFaults: &Faults{Latency: %d, Loss: %v, Crashes: %d, Splits: %d, Skew: %d}})\n}",
		o.Seed, o.Seed, o.Nodes, o.Epochs, o.Age, o.Late, o.Several, o.BeaconRounds, o.RealKeys, o.Twins, o.Hostile, o.Strangers, o.Poets, o.Clients,
		o.Faults.Latency, o.Faults.Loss, o.Faults.Crashes, o.Faults.Splits, o.Faults.Skew)
}

func listed(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ",")
}

// Parse reads the arguments of the command into options. seeds is how many seeds
// are to be played from the first on.
func Parse(args []string, usage io.Writer) (o Options, seeds uint64, shrink bool, err error) {
	f := flag.NewFlagSet("sim", flag.ContinueOnError)
	f.SetOutput(usage)
	f.Uint64Var(&o.Seed, "seed", 1, "the first seed")
	f.Uint64Var(&seeds, "seeds", 1, "how many seeds to play; more than one prints no transcript")
	f.BoolVar(&shrink, "shrink", false, "of a seed that fails, print the least that still does")
	f.IntVar(&o.Nodes, "nodes", 0, "smeshers; 0 draws 5 to 20")
	f.IntVar(&o.Epochs, "epochs", 0, "epochs with ballots; 0 is 4")
	f.IntVar(&o.Age, "age", 0, "epochs that passed since genesis before anybody came")
	f.IntVar(&o.Late, "late", 0, "of the nodes, so many join late, with nothing")
	f.IntVar(&o.Several, "several", 0, "of the nodes, so many, the last, have two or three identities in turn")
	f.IntVar(&o.BeaconRounds, "beacon-rounds", 0, "rounds of following votes about the beacon; 0 is as preset test has them")
	f.BoolVar(&o.RealKeys, "real-keys", false, "sign with ed25519 and ECVRF instead of hashes")
	list := func(to *[]string, name, what string) {
		f.Func(name, what+", separated by commas; absent draws them, none is none", func(s string) error {
			if *to = []string{}; s != "none" {
				*to = strings.Split(s, ",")
			}
			return nil
		})
	}
	list(&o.Hostile, "hostile", "strategies of smeshers")
	list(&o.Strangers, "strangers", "strategies of peers without weight")
	list(&o.Poets, "poets", "kinds of PoETs beside an honest one")
	list(&o.Clients, "clients", "kinds of API clients beside an honest one")
	f.Func("faults", "none, or latency=20ms,loss=0.1,crashes=1,splits=1,skew=500ms; absent draws them", func(s string) (err error) {
		o.Faults, err = parseFaults(s)
		return err
	})
	f.Func("twins", "a scenario of twins: for each honest smesher the bits of the layers in which it hears the first", func(s string) error {
		for _, row := range strings.Split(s, ",") {
			r, err := strconv.ParseUint(row, 10, TwinLayers)
			if err != nil {
				return err
			}
			o.Twins = append(o.Twins, uint16(r))
		}
		return nil
	})
	err = f.Parse(args)
	return o, seeds, shrink, err
}
