package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tweedle/base/telemetry"
)

// nodeView is what `tweedle node status --json` prints: a node, and its smesher if it has one.
type nodeView struct {
	Node    telemetry.NodeStatus `json:"node"`
	Smesher *telemetry.Smesher   `json:"smesher"`
}

type nodeStatusFlags struct {
	dir, metrics string
	json, watch  bool
}

func nodeStatusCommand() *cobra.Command {
	var f nodeStatusFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show where a node is, and what its smesher waits for",
		Long: `Shows whether a node follows the network, and what the owner of a space asks: will
it publish an ATX in this epoch, what does it wait for and until when, how far is
it with each PoET, in which layers may it propose, and what did it earn.`,
		Example: `  tweedle node status --dir ~/tweedle-node
  tweedle node status --dir ~/tweedle-node --watch
  tweedle node status --metrics 127.0.0.1:9095 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&f.watch, "watch", false, "go on until Ctrl-C; in a terminal the screen is drawn anew each second")
	return cmd
}

func (f *nodeStatusFlags) register(cmd *cobra.Command) {
	pathVar(cmd.Flags(), &f.dir, "dir", "", "", "the node's folder")
	cmd.Flags().StringVar(&f.metrics, "metrics", "", "address of the node's metrics listener, instead of --dir")
	cmd.Flags().BoolVar(&f.json, "json", false, "print one line of JSON; times are RFC 3339, amounts smidges")
}

func (f *nodeStatusFlags) run(ctx context.Context, out io.Writer) error {
	address, err := f.address()
	if err != nil {
		return err
	}
	file, _ := out.(*os.File)
	screen := f.watch && !f.json && file != nil && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb"
	last := ""
	for {
		view, err := lookAtNode(ctx, address)
		switch {
		case ctx.Err() != nil && f.watch:
			return nil
		case err != nil:
			return err
		}
		text := view.text(time.Now())
		if f.json {
			line, err := json.Marshal(view)
			if err != nil {
				return err
			}
			text = string(line) + "\n"
		}
		switch {
		case screen:
			fmt.Fprintf(out, "\x1b[H\x1b[2J%s", text)
		case text != last:
			fmt.Fprint(out, text)
		}
		if last = text; !f.watch {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// address is where the node tells its status.
func (f *nodeStatusFlags) address() (string, error) {
	switch {
	case (f.dir == "") == (f.metrics == ""):
		return "", usageError{errors.New("say which node: --dir is its folder, or --metrics the address of its metrics listener")}
	case f.metrics != "":
		return f.metrics, nil
	}
	e, err := readEndpoints(f.dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("no node runs in %s, it has no %s: start it with `tweedle node --dir %s`", f.dir, telemetry.EndpointsFile, f.dir)
	case err != nil:
		return "", fmt.Errorf("where the node listens: %w", err)
	case e.Metrics == "":
		return "", fmt.Errorf("the node of %s has no metrics listener: start it with --metrics-listen", f.dir)
	}
	return e.Metrics, nil
}

// nodeAnswer is the most that is read of a node's answer, in bytes.
const nodeAnswer = 4 << 20

func lookAtNode(ctx context.Context, address string) (v nodeView, err error) {
	if _, err = ask(ctx, address, "/status", &v.Node); err != nil {
		return v, err
	}
	var s telemetry.Smesher
	found, err := ask(ctx, address, "/smesher", &s)
	if found {
		v.Smesher = &s
	}
	return v, err
}

// ask gets one page; false if the node has none.
func ask(ctx context.Context, address, page string, into any) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+page, nil)
	if err != nil {
		return false, usageError{fmt.Errorf("--metrics %q is no address: give it as host:port", address)}
	}
	resp, err := http.DefaultClient.Do(req)
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		return false, fmt.Errorf("the node did not answer at %s within %v: is it busy, or stopped?", address, callTimeout)
	case err != nil:
		return false, fmt.Errorf("no node answers at %s: is it running?", address)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return false, nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, nodeAnswer))
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(b, into) != nil {
		return false, fmt.Errorf("what answers at %s is no node's metrics listener, or the node is in trouble: see its log", address)
	}
	return true, nil
}

// text says it in words, lines of 80 columns as far as names allow.
func (v nodeView) text(now time.Time) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	n := v.Node
	synced := "in sync"
	if !n.Synced {
		synced = "NOT in sync"
	}
	line("network", "%s, layer %d of epoch %d, applied up to layer %d, %s", n.Network, n.Layer, n.Epoch, n.AppliedLayer, count(n.Peers, "peer"))
	line("node", "%s: %s", synced, n.SyncReason)
	for _, trouble := range troubles(n) {
		line("TROUBLE", "%s", trouble)
	}
	if v.Smesher == nil {
		line("smesher", "none: this node does not smesh")
		return b.String()
	}
	smesherText(line, v.Smesher, now)
	for i := range v.Smesher.Others {
		b.WriteString("\n")
		smesherText(line, &v.Smesher.Others[i], now)
	}
	return b.String()
}

// smesherText says where one identity is.
func smesherText(line func(name, format string, args ...any), s *telemetry.Smesher, now time.Time) {
	who := cmp.Or(s.NodeID, "its key cannot be read")
	if s.Dir != "" {
		who += ", in " + s.Dir
	}
	line("smesher", "%s", who)
	if s.Elsewhere {
		line("TROUBLE", "the key of this smesher signs on another machine too: nothing is signed with it here until one of them ends")
	}
	if s.PublishBy == "" { // it cannot smesh
		line("TROUBLE", "%s", s.Step.Error)
		return
	}
	line("rewards", "%s", earnings(s))
	line("ATX", "%s", atx(s, now))
	step := s.Step.Step
	if s.Making != nil {
		step += fmt.Sprintf(" (ATX of epoch %d)", *s.Making)
	}
	if s.Step.Detail != "" {
		step += ": " + s.Step.Detail
	}
	if s.Step.Until != "" {
		step += "; " + s.Step.For + " " + when(s.Step.Until, now)
	}
	line("now", "%s", step)
	if s.Step.Error != "" {
		line("TROUBLE", "%s", s.Step.Error)
	}
	for i, p := range s.Poets {
		name := ""
		if i == 0 {
			name = "PoETs"
		}
		line(name, "%s: %s", p.URL, registered(p))
	}
	line("deadlines", "registration closes %s", when(s.RegistrationCloses, now))
	line("", "the PoET round ends %s", when(s.ProofDue, now))
	line("", "an ATX of epoch %d must be heard %s", s.Epoch, when(s.PublishBy, now))
	line("slots", "%s", slots(s))
}

// troubles are what the owner must look at.
func troubles(n telemetry.NodeStatus) (out []string) {
	if n.Dispute != "" {
		out = append(out, "others certified what does not fit our history, "+n.Dispute)
	}
	if n.ClockAhead != 0 {
		out = append(out, fmt.Sprintf("the clocks of most peers are %.1f s ahead of this machine's: set its clock", n.ClockAhead))
	}
	return out
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// when says a time, and how long until then.
func when(stamp string, now time.Time) string {
	t, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		return "at " + stamp
	}
	left := t.Sub(now).Round(time.Second)
	if left < 0 {
		return fmt.Sprintf("at %s, %v ago", t.UTC().Format("15:04:05Z"), -left)
	}
	at := t.UTC().Format("15:04:05Z")
	if left > 20*time.Hour {
		at = t.UTC().Format("2006-01-02 15:04Z")
	}
	return fmt.Sprintf("at %s, in %v", at, left)
}

// atx says whether the smesher takes part in the next epoch.
func atx(s *telemetry.Smesher, now time.Time) string {
	by, _ := time.Parse(time.RFC3339, s.PublishBy)
	switch {
	case s.LastATX != nil && *s.LastATX >= s.Epoch:
		return fmt.Sprintf("published for epoch %d: it counts in epoch %d", *s.LastATX, *s.LastATX+1)
	case s.Making != nil && *s.Making == s.Epoch && now.Before(by):
		return fmt.Sprintf("of epoch %d in the making", s.Epoch)
	case s.Making != nil:
		return fmt.Sprintf("none for epoch %d, so nothing is earned in epoch %d; one for epoch %d is in the making", s.Epoch, s.Epoch+1, *s.Making)
	}
	return fmt.Sprintf("none for epoch %d, so nothing is earned in epoch %d", s.Epoch, s.Epoch+1)
}

func registered(p telemetry.PoetStep) string {
	said := "not registered"
	switch {
	case p.Member:
		said = "member of round " + p.Round
	case p.Round != "":
		said = "registered for round " + p.Round
	}
	if p.Trouble != "" {
		said += "; it cannot be used now: " + p.Trouble
	}
	return said
}

// slots says in which layers the smesher may propose.
func slots(s *telemetry.Smesher) string {
	if len(s.Slots) == 0 {
		return fmt.Sprintf("none known in epoch %d", s.Epoch)
	}
	next := slices.Compact(slices.DeleteFunc(slices.Clone(s.Slots), func(l uint32) bool { return l < s.Layer }))
	said := fmt.Sprintf("%d in epoch %d", len(s.Slots), s.Epoch)
	switch {
	case len(next) == 0:
		return said + ", all of them past"
	case len(next) > 8:
		return said + ", next in layers " + join(next[:8]) + " ..."
	}
	return said + ", next in layers " + join(next)
}

func join(layers []uint32) string {
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(layers)), ", "), "[]")
}

func earnings(s *telemetry.Smesher) string {
	if s.Earned.Layers == 0 {
		return "none yet; they go\n          to " + s.Coinbase
	}
	return fmt.Sprintf("%s in %s, the last in layer %d\n          to %s", formatAmount(s.Earned.Smidges), count(s.Earned.Layers, "layer"), s.Earned.Last, s.Coinbase)
}
