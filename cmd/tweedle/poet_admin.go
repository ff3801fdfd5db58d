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
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tweedle/base/telemetry"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/services/poet/door"
)

// adminTimeout bounds one call of the admin API.
const adminTimeout = 10 * time.Second

// adminFlags say which server is meant.
type adminFlags struct {
	dir  string
	json bool
}

func (a *adminFlags) register(cmd *cobra.Command) *cobra.Command {
	pathVar(cmd.Flags(), &a.dir, "dir", "", "", "data directory of the server (required)")
	cmd.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return cmd
}

// call makes one call at the server's admin API.
func (a *adminFlags) call(ctx context.Context, do func(context.Context, poetadminpb.AdminServiceClient) error) error {
	return a.connected(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return do(ctx, poetadminpb.NewAdminServiceClient(conn))
	})
}

// connected does something with a connection to the server's admin listener.
func (a *adminFlags) connected(ctx context.Context, do func(context.Context, *grpc.ClientConn) error) error {
	if a.dir == "" {
		return usageError{fmt.Errorf("say which server: --dir is its data directory")}
	}
	b, err := os.ReadFile(filepath.Join(a.dir, telemetry.EndpointsFile))
	if err != nil {
		return fmt.Errorf("no PoET server runs in %s: start it with `tweedle poet --dir %s`", a.dir, a.dir)
	}
	var e telemetry.Endpoints
	if err := json.Unmarshal(b, &e); err != nil || e.Admin == "" {
		return fmt.Errorf("%s does not name an admin listener: start the server again", filepath.Join(a.dir, telemetry.EndpointsFile))
	}
	conn, err := door.DialAdmin(e.Admin, filepath.Join(a.dir, door.TokenFile))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	if err := do(ctx, conn); err != nil {
		return fmt.Errorf("the PoET server answers: %s", status.Convert(err).Message())
	}
	return nil
}

// show prints a reply as JSON, or as its table.
func (a *adminFlags) show(w io.Writer, m proto.Message, table func(w io.Writer)) error {
	if a.json {
		b, err := protojson.MarshalOptions{Multiline: true, EmitUnpopulated: true, UseProtoNames: true}.Marshal(m)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w, string(b))
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	table(t)
	return t.Flush()
}

func ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return "never"
	}
	return time.Since(t.AsTime()).Round(time.Second).String() + " ago"
}

func poetGateways() *cobra.Command {
	parent := &cobra.Command{Use: "gateways", Short: "List, set, add or remove the nodes that take proofs", Example: "  tweedle poet gateways list --dir ~/poet", Args: noArgs}
	reply := func(a *adminFlags, call func(context.Context, poetadminpb.AdminServiceClient, []string) (*poetadminpb.ListGatewaysResponse, error)) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			var out *poetadminpb.ListGatewaysResponse
			err := a.call(cmd.Context(), func(ctx context.Context, c poetadminpb.AdminServiceClient) (err error) {
				out, err = call(ctx, c, args)
				return err
			})
			if err != nil {
				return err
			}
			return a.show(cmd.OutOrStdout(), out, func(w io.Writer) { gatewayTable(w, out) })
		}
	}
	var list, set, add, remove adminFlags
	parent.AddCommand(
		list.register(&cobra.Command{
			Use: "list", Short: "Show the pool and the candidates", Example: "  tweedle poet gateways list --dir ~/poet", Args: noArgs,
			RunE: reply(&list, func(ctx context.Context, c poetadminpb.AdminServiceClient, _ []string) (*poetadminpb.ListGatewaysResponse, error) {
				return c.ListGateways(ctx, &poetadminpb.ListGatewaysRequest{})
			})}),
		set.register(&cobra.Command{
			Use: "set ADDRESS...", Short: "Replace all gateways; deliveries start at once",
			Example: "  tweedle poet gateways set --dir ~/poet node-1.example:9092 node-2.example:9092",
			Args: func(_ *cobra.Command, args []string) error {
				if len(args) == 0 {
					return usageError{errors.New("name the gateways: one or more times ADDRESS, as host:port")}
				}
				return nil
			},
			RunE: reply(&set, func(ctx context.Context, c poetadminpb.AdminServiceClient, args []string) (*poetadminpb.ListGatewaysResponse, error) {
				return c.SetGateways(ctx, &poetadminpb.SetGatewaysRequest{Addresses: args})
			})}),
		add.register(&cobra.Command{
			Use: "add ADDRESS", Short: "Add a gateway", Example: "  tweedle poet gateways add --dir ~/poet node-3.example:9092",
			Args: exactArgs(1, "ADDRESS"),
			RunE: reply(&add, func(ctx context.Context, c poetadminpb.AdminServiceClient, args []string) (*poetadminpb.ListGatewaysResponse, error) {
				return c.AddGateway(ctx, &poetadminpb.AddGatewayRequest{Address: args[0]})
			})}),
		remove.register(&cobra.Command{
			Use: "remove ADDRESS", Short: "Forget a gateway", Example: "  tweedle poet gateways remove --dir ~/poet node-3.example:9092",
			Args: exactArgs(1, "ADDRESS"),
			RunE: reply(&remove, func(ctx context.Context, c poetadminpb.AdminServiceClient, args []string) (*poetadminpb.ListGatewaysResponse, error) {
				return c.RemoveGateway(ctx, &poetadminpb.RemoveGatewayRequest{Address: args[0]})
			})}),
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
	var list, again adminFlags
	var undelivered bool
	listCmd := list.register(&cobra.Command{
		Use: "list", Short: "Show how far each proof is delivered", Example: "  tweedle poet proofs list --dir ~/poet --undelivered", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out *poetadminpb.ListProofsResponse
			err := list.call(cmd.Context(), func(ctx context.Context, c poetadminpb.AdminServiceClient) (err error) {
				out, err = c.ListProofs(ctx, &poetadminpb.ListProofsRequest{Undelivered: undelivered})
				return err
			})
			if err != nil {
				return err
			}
			return list.show(cmd.OutOrStdout(), out, func(w io.Writer) { proofTable(w, out.GetProofs()...) })
		}})
	listCmd.Flags().BoolVar(&undelivered, "undelivered", false, "only those that wait")
	parent.AddCommand(listCmd, again.register(&cobra.Command{
		Use: "rebroadcast ROUND", Short: "Offer a stored proof to every gateway again", Example: "  tweedle poet proofs rebroadcast --dir ~/poet 17",
		Args: exactArgs(1, "ROUND"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out *poetadminpb.RebroadcastResponse
			err := again.call(cmd.Context(), func(ctx context.Context, c poetadminpb.AdminServiceClient) (err error) {
				out, err = c.Rebroadcast(ctx, &poetadminpb.RebroadcastRequest{RoundId: args[0]})
				return err
			})
			if err != nil {
				return err
			}
			return again.show(cmd.OutOrStdout(), out, func(w io.Writer) { proofTable(w, out.GetProof()) })
		}}))
	return parent
}

func proofTable(w io.Writer, proofs ...*poetadminpb.Delivery) {
	fmt.Fprintln(w, "ROUND\tREFERENCE\tSTATE\tACKNOWLEDGED BY\tGIVEN BACK BY\tATTEMPTS\tLAST ERROR")
	for _, p := range proofs {
		fmt.Fprintf(w, "%s\t%.10s\t%s\t%s\t%s\t%d\t%s\n", p.GetRoundId(), hex.EncodeToString(p.GetRef()), p.GetState(),
			strings.Join(p.GetAcknowledged(), " "), strings.Join(p.GetConfirmed(), " "), p.GetAttempts(), p.GetLastError())
	}
}

func poetRounds() *cobra.Command {
	var a adminFlags
	return a.register(&cobra.Command{
		Use: "rounds", Short: "Show the rounds", Example: "  tweedle poet rounds --dir ~/poet", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out *poetadminpb.ListRoundsResponse
			err := a.call(cmd.Context(), func(ctx context.Context, c poetadminpb.AdminServiceClient) (err error) {
				out, err = c.ListRounds(ctx, &poetadminpb.ListRoundsRequest{})
				return err
			})
			if err != nil {
				return err
			}
			return a.show(cmd.OutOrStdout(), out, func(w io.Writer) {
				fmt.Fprintln(w, "ROUND\tSTATE\tSTART\tEND\tMEMBERS\tLEAVES\tLEAVES/S")
				for _, r := range out.GetRounds() {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%.0f\n", r.GetId(), r.GetState(), r.GetStart().AsTime().Format(time.DateTime),
						r.GetEnd().AsTime().Format(time.DateTime), r.GetMembers(), r.GetLeaves(), r.GetRate())
				}
			})
		}})
}

func poetStorage() *cobra.Command {
	var a adminFlags
	return a.register(&cobra.Command{
		Use: "storage", Short: "Show the disk budget", Example: "  tweedle poet storage --dir ~/poet", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out *poetadminpb.GetStorageResponse
			err := a.call(cmd.Context(), func(ctx context.Context, c poetadminpb.AdminServiceClient) (err error) {
				out, err = c.GetStorage(ctx, &poetadminpb.GetStorageRequest{})
				return err
			})
			if err != nil {
				return err
			}
			return a.show(cmd.OutOrStdout(), out, func(w io.Writer) {
				fmt.Fprintf(w, "free\t%d bytes\nused\t%d bytes\nreserved\t%d bytes\nneeded for a round\t%d bytes\nrounds that fit\t%d\n",
					out.GetFreeBytes(), out.GetUsedBytes(), out.GetReservedBytes(), out.GetNeededBytes(), out.GetRoundsThatFit())
				if out.GetAlert() != "" {
					fmt.Fprintln(w, "alert\t"+out.GetAlert())
				}
			})
		}})
}

func poetReloadKeys() *cobra.Command {
	var a adminFlags
	return a.register(&cobra.Command{
		Use: "reload-keys", Short: "Read the folder of trusted certifier keys again", Example: "  tweedle poet reload-keys --dir ~/poet", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := a.connected(cmd.Context(), func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := poetpb.NewConfigurationServiceClient(conn).ReloadTrustedKeys(ctx, &poetpb.ReloadTrustedKeysRequest{})
				return err
			})
			if err != nil {
				return err
			}
			return a.show(cmd.OutOrStdout(), &poetpb.ReloadTrustedKeysResponse{}, func(w io.Writer) { fmt.Fprintln(w, "the keys were read") })
		}})
}
