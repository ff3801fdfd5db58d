package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tweedle/base/telemetry"
)

// whyLeft says in words what telemetry.PeerLeft names.
var whyLeft = map[string]string{
	"room":   "it made room for a newcomer",
	"share":  "its address block had its share",
	"peer":   "the peer closed it",
	"silent": "the peer fell silent",
	"us":     "we closed it",
}

func nodePeersCommand() *cobra.Command {
	var f nodeStatusFlags
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "Show with whom a node is connected, and why the last ones left",
		Long: `Shows the sessions of a node, the oldest first, and the last that ended. When all
are taken, a newcomer takes the place of one that is unproved (nothing of it was
accepted yet), else of one that is useful, last of one that is busy with a request;
one that the node chose itself stays.`,
		Example: `  tweedle node peers --dir ~/tweedle-node
  tweedle node peers --metrics 127.0.0.1:9095 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.peers(cmd.Context(), cmd.OutOrStdout()) },
	}
	f.register(cmd)
	return cmd
}

func (f *nodeStatusFlags) peers(ctx context.Context, out io.Writer) error {
	address, err := f.address()
	if err != nil {
		return err
	}
	var p telemetry.Peers
	found, err := ask(ctx, address, "/peers", &p)
	switch {
	case err != nil:
		return err
	case !found:
		return fmt.Errorf("the node at %s is of a version that does not tell its peers: update it", address)
	case f.json:
		return json.NewEncoder(out).Encode(p)
	}
	return peersText(out, p, time.Now())
}

// peersText says it in tables.
func peersText(out io.Writer, p telemetry.Peers, now time.Time) error {
	ago := func(stamp string) string {
		t, err := time.Parse(time.RFC3339, stamp)
		if err != nil {
			return "?"
		}
		return now.Sub(t).Round(time.Second).String()
	}
	fmt.Fprintf(out, "%s\n", strings.Join(append([]string{"node " + p.ID}, p.Addrs...), "\n  at "))
	if p.Reached {
		fmt.Fprintln(out, "reached from outside")
	} else {
		fmt.Fprintln(out, "not reached from outside yet")
	}
	fmt.Fprintf(out, "%s of at most %d\n", count(len(p.Sessions), "session"), p.Limit)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(p.Sessions) > 0 {
		fmt.Fprintln(w, "PEER\tADDRESS\tDIRECTION\tAGE\tSTATE\tLAST USE\tIN\tOUT\tSCORE")
	}
	for _, s := range p.Sessions {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%.1f\n", s.Peer, s.Addr, s.Direction, ago(s.Since), s.State, ago(s.Used), s.BytesIn, s.BytesOut, s.Score)
	}
	if len(p.Left) > 0 {
		fmt.Fprintln(w, "LEFT\t\tDIRECTION\tAGO\tWHY")
	}
	for _, l := range p.Left {
		why := whyLeft[l.Reason]
		if why == "" {
			why = l.Reason
		}
		fmt.Fprintf(w, "%s\t\t%s\t%s\t%s\n", l.Peer, l.Direction, ago(l.At), why)
	}
	return w.Flush()
}
