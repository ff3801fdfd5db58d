package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tweedle/base/durable"
	"tweedle/base/telemetry"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/edges/front"
)

// adminTimeout bounds one call of the admin API.
const adminTimeout = 10 * time.Second

// adminClient are the services of a server's admin listener.
type adminClient struct {
	poetadminpb.AdminServiceClient
	config poetpb.ConfigurationServiceClient
}

// adminCommand makes c a command that asks the server of a data directory for one
// reply, and prints it as JSON or as a table.
func adminCommand[T proto.Message](c cobra.Command, call func(context.Context, adminClient, []string) (T, error), table func(io.Writer, T)) *cobra.Command {
	var a adminFlags
	cmd := &c
	a.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var reply T
		err := a.connected(cmd.Context(), adminTimeout, func(ctx context.Context, client adminClient) (err error) {
			reply, err = call(ctx, client, args)
			return err
		})
		if err != nil {
			return err
		}
		if a.json {
			return printProto(cmd.OutOrStdout(), reply)
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		table(t, reply)
		return t.Flush()
	}
	return cmd
}

// printProto prints a message as JSON in which 64-bit numbers are numbers, as everywhere in what
// our commands print; protojson, whose other forms it has, makes them strings.
func printProto(w io.Writer, m proto.Message) error {
	b, err := protojson.MarshalOptions{EmitUnpopulated: true, UseProtoNames: true}.Marshal(m)
	if err != nil {
		return err
	}
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	numbers(m.ProtoReflect().Descriptor(), v)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func numbers(d protoreflect.MessageDescriptor, v map[string]any) {
	for name, value := range v {
		f := d.Fields().ByName(protoreflect.Name(name))
		if f == nil {
			continue
		}
		list, many := value.([]any)
		if !many {
			list = []any{value}
		}
		for i, value := range list {
			switch value := value.(type) {
			case map[string]any:
				if f.Message() != nil && !f.IsMap() {
					numbers(f.Message(), value)
				}
			case string:
				if k := f.Kind(); k == protoreflect.Uint64Kind || k == protoreflect.Int64Kind {
					list[i] = json.Number(value)
				}
			}
		}
		if !many {
			v[name] = list[0]
		}
	}
}

// adminFlags say which server is meant.
type adminFlags struct {
	dir  string
	json bool
}

func (a *adminFlags) register(cmd *cobra.Command) {
	pathVar(cmd.Flags(), &a.dir, "dir", "", "", "data directory of the server (required)")
	cmd.Flags().BoolVar(&a.json, "json", false, "print JSON")
}

// connected does something with a connection to the server's admin listener.
func (a *adminFlags) connected(ctx context.Context, timeout time.Duration, do func(context.Context, adminClient) error) error {
	if a.dir == "" {
		return usageError{errors.New("say which server: --dir is its data directory")}
	}
	e, err := a.endpoints()
	if err != nil {
		return err
	}
	// Whoever answers there may be somebody else by now, who must not see the token.
	if running, err := durable.Locked(a.dir); err != nil {
		return fmt.Errorf("data directory: %w", err)
	} else if !running {
		return a.notRunning(fmt.Sprintf("its %s is left from one that was killed", telemetry.EndpointsFile))
	}
	conn, err := front.DialAdmin(e.Admin, filepath.Join(a.dir, front.TokenFile))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = do(ctx, adminClient{poetadminpb.NewAdminServiceClient(conn), poetpb.NewConfigurationServiceClient(conn)})
	if err == nil {
		return nil
	}
	said := status.Convert(err)
	if said.Code() == codes.Unavailable || said.Code() == codes.DeadlineExceeded {
		return fmt.Errorf("the PoET server of %s does not answer at %s: see its log (%s)", a.dir, e.Admin, said.Message())
	}
	return fmt.Errorf("the PoET server answers: %s", said.Message())
}

func (a *adminFlags) notRunning(why string) error {
	return fmt.Errorf("no PoET server runs in %s, %s: start it with `tweedle poet --dir %s`", a.dir, why, a.dir)
}

// endpoints reads where the server of the data directory listens.
func (a *adminFlags) endpoints() (e telemetry.Endpoints, err error) {
	e, err = readEndpoints(a.dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return e, a.notRunning("it has no " + telemetry.EndpointsFile)
	case err != nil:
		return e, fmt.Errorf("where the PoET server listens: %w", err)
	case e.Admin == "":
		return e, fmt.Errorf("%s does not name an admin listener: start the server again", filepath.Join(a.dir, telemetry.EndpointsFile))
	}
	return e, nil
}

func ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return "never"
	}
	return time.Since(t.AsTime()).Round(time.Second).String() + " ago"
}

func poetGateways() *cobra.Command {
	parent := &cobra.Command{Use: "gateways", Short: "List, set, add or remove the nodes that take proofs", Example: "  tweedle poet gateways list --dir ~/poet", Args: noArgs}
	someArgs := func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{errors.New("name the gateways: one or more times ADDRESS, as host:port, or https://host:port")}
		}
		return nil
	}
	parent.AddCommand(
		adminCommand(cobra.Command{
			Use: "list", Short: "Show the gateways, by rank", Example: "  tweedle poet gateways list --dir ~/poet", Args: noArgs,
		}, func(ctx context.Context, c adminClient, _ []string) (*poetadminpb.ListGatewaysResponse, error) {
			return c.ListGateways(ctx, &poetadminpb.ListGatewaysRequest{})
		}, gatewayTable),
		adminCommand(cobra.Command{
			Use: "set ADDRESS...", Short: "Replace all gateways; deliveries start at once",
			Example: "  tweedle poet gateways set --dir ~/poet node-1.example:9092 node-2.example:9092", Args: someArgs,
		}, func(ctx context.Context, c adminClient, args []string) (*poetadminpb.ListGatewaysResponse, error) {
			return c.SetGateways(ctx, &poetadminpb.SetGatewaysRequest{Addresses: args})
		}, gatewayTable),
		adminCommand(cobra.Command{
			Use: "add ADDRESS", Short: "Add a gateway", Example: "  tweedle poet gateways add --dir ~/poet node-3.example:9092", Args: exactArgs(1, "ADDRESS"),
		}, func(ctx context.Context, c adminClient, args []string) (*poetadminpb.ListGatewaysResponse, error) {
			return c.AddGateway(ctx, &poetadminpb.AddGatewayRequest{Address: args[0]})
		}, gatewayTable),
		adminCommand(cobra.Command{
			Use: "remove ADDRESS", Short: "Forget a gateway", Example: "  tweedle poet gateways remove --dir ~/poet node-3.example:9092", Args: exactArgs(1, "ADDRESS"),
			ValidArgsFunction: ofServer(gatewayAddresses),
		}, func(ctx context.Context, c adminClient, args []string) (*poetadminpb.ListGatewaysResponse, error) {
			return c.RemoveGateway(ctx, &poetadminpb.RemoveGatewayRequest{Address: args[0]})
		}, gatewayTable),
	)
	return parent
}

func gatewayTable(w io.Writer, out *poetadminpb.ListGatewaysResponse) {
	fmt.Fprintln(w, "GATEWAY\tSTATE\tFROM\tPEERS\tLAST SUCCESS\tLAST ERROR")
	for _, g := range out.GetGateways() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", g.GetAddress(), g.GetState(), g.GetSource(), g.GetPeers(), ago(g.GetLastSuccess()), g.GetLastError())
	}
}

func poetProofs() *cobra.Command {
	parent := &cobra.Command{Use: "proofs", Short: "List the proofs and their delivery, or offer one again", Example: "  tweedle poet proofs list --dir ~/poet", Args: noArgs}
	var undelivered bool
	list := adminCommand(cobra.Command{
		Use: "list", Short: "Show how far each proof is delivered", Example: "  tweedle poet proofs list --dir ~/poet --undelivered", Args: noArgs,
	}, func(ctx context.Context, c adminClient, _ []string) (*poetadminpb.ListProofsResponse, error) {
		return c.ListProofs(ctx, &poetadminpb.ListProofsRequest{Undelivered: undelivered})
	}, func(w io.Writer, out *poetadminpb.ListProofsResponse) { proofTable(w, out.GetProofs()...) })
	list.Flags().BoolVar(&undelivered, "undelivered", false, "only those that wait")
	parent.AddCommand(list, adminCommand(cobra.Command{
		Use: "rebroadcast ROUND", Short: "Offer a stored proof to every gateway again", Example: "  tweedle poet proofs rebroadcast --dir ~/poet 17", Args: exactArgs(1, "ROUND"),
		ValidArgsFunction: ofServer(roundsWithProof),
	}, func(ctx context.Context, c adminClient, args []string) (*poetadminpb.RebroadcastResponse, error) {
		return c.Rebroadcast(ctx, &poetadminpb.RebroadcastRequest{RoundId: args[0]})
	}, func(w io.Writer, out *poetadminpb.RebroadcastResponse) { proofTable(w, out.GetProof()) }))
	return parent
}

func proofTable(w io.Writer, proofs ...*poetadminpb.Delivery) {
	fmt.Fprintln(w, "ROUND\tREFERENCE\tSTATE\tKEPT BY\tATTEMPTS\tLAST ERROR")
	for _, p := range proofs {
		fmt.Fprintf(w, "%s\t%.10s\t%s\t%s\t%d\t%s\n", p.GetRoundId(), hex.EncodeToString(p.GetRef()), p.GetState(),
			strings.Join(p.GetKeptBy(), " "), p.GetAttempts(), p.GetLastError())
	}
}

func poetRounds() *cobra.Command {
	parent := adminCommand(cobra.Command{
		Use: "rounds", Short: "Show the rounds, or open the right one after a clock was wrong", Example: "  tweedle poet rounds --dir ~/poet", Args: noArgs,
	}, func(ctx context.Context, c adminClient, _ []string) (*poetadminpb.ListRoundsResponse, error) {
		return c.ListRounds(ctx, &poetadminpb.ListRoundsRequest{})
	}, roundTable)
	parent.AddCommand(adminCommand(cobra.Command{
		Use: "reopen", Short: "Open the round of the clock in place of a later one",
		Long: `Opens the round that is due by the clock, where a later one takes registrations
because the clock was ahead once. The later round keeps its members and is opened
again when its time has come. Where the right round is open nothing changes.`,
		Example: "  tweedle poet rounds reopen --dir ~/poet", Args: noArgs,
	}, func(ctx context.Context, c adminClient, _ []string) (*poetadminpb.ListRoundsResponse, error) {
		return c.ReopenRound(ctx, &poetadminpb.ReopenRoundRequest{})
	}, roundTable))
	return parent
}

// dateUTC is how times are printed for people.
const dateUTC = "2006-01-02 15:04:05Z"

func roundTable(w io.Writer, out *poetadminpb.ListRoundsResponse) {
	fmt.Fprintln(w, "ROUND\tSTATE\tSTART\tEND\tMEMBERS\tLEAVES\tLEAVES/S")
	for _, r := range out.GetRounds() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%.0f\n", r.GetId(), r.GetState(), r.GetStart().AsTime().Format(dateUTC),
			r.GetEnd().AsTime().Format(dateUTC), r.GetMembers(), r.GetLeaves(), r.GetRate())
	}
}

func poetStorage() *cobra.Command {
	return adminCommand(cobra.Command{
		Use: "storage", Short: "Show the disk budget", Example: "  tweedle poet storage --dir ~/poet", Args: noArgs,
	}, func(ctx context.Context, c adminClient, _ []string) (*poetadminpb.GetStorageResponse, error) {
		return c.GetStorage(ctx, &poetadminpb.GetStorageRequest{})
	}, func(w io.Writer, out *poetadminpb.GetStorageResponse) {
		fmt.Fprintf(w, "free\t%d bytes\nused\t%d bytes\nreserved\t%d bytes\nneeded for a round\t%d bytes\nrounds that fit\t%d\n",
			out.GetFreeBytes(), out.GetUsedBytes(), out.GetReservedBytes(), out.GetNeededBytes(), out.GetRoundsThatFit())
		if out.GetAlert() != "" {
			fmt.Fprintln(w, "alert\t"+out.GetAlert())
		}
	})
}

func poetReloadKeys() *cobra.Command {
	return adminCommand(cobra.Command{
		Use: "reload-keys", Short: "Read the folder of trusted certifier keys again", Example: "  tweedle poet reload-keys --dir ~/poet", Args: noArgs,
	}, func(ctx context.Context, c adminClient, _ []string) (*poetpb.ReloadTrustedKeysResponse, error) {
		return c.config.ReloadTrustedKeys(ctx, &poetpb.ReloadTrustedKeysRequest{})
	}, func(w io.Writer, _ *poetpb.ReloadTrustedKeysResponse) { fmt.Fprintln(w, "the keys were read") })
}
