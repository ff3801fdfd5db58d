package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"tweedle/base/durable"
	"tweedle/edges/api/gen/poetadminpb"
	"tweedle/services/poet/rounds"
)

// backupTimeout bounds a backup of a running server.
const backupTimeout = 10 * time.Minute

func poetBackup() *cobra.Command {
	var a adminFlags
	var out string
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Copy a server's key and database, also while it runs",
		Long: `Writes the server's key and its database, as they are at one moment, to a new
file that only you can read: a tar archive. The server may run or not. To
restore, unpack it into an empty directory and start the server on that:

  mkdir -m 700 DIR && tar -xpf FILE -C DIR && tweedle poet --dir DIR ...

What was registered after the backup is not in it. Never let two servers run
from the same key.`,
		Example: "  tweedle poet backup --dir ~/poet --out poet-backup.tar",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.dir == "" || out == "" {
				return usageError{errors.New("a backup needs --dir, the server's data directory, and --out, a new file")}
			}
			bytes, err := a.backup(cmd.Context(), out)
			if err != nil {
				return err
			}
			if a.json {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(written{out, bytes})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s holds key and database, %d bytes; to restore it: mkdir -m 700 DIR && tar -xpf %s -C DIR\n", out, bytes, shellWord(out))
			return err
		},
	}
	a.register(cmd)
	pathVar(cmd.Flags(), &out, "out", "", "", "file to write (required)")
	return cmd
}

// written is what the commands report that keep something in a file.
type written struct {
	File  string `json:"file"`
	Bytes int64  `json:"bytes"` // of the file
}

// backup makes the file. If we stop anywhere, it is there whole or not at all.
func (a *adminFlags) backup(ctx context.Context, out string) (bytes int64, err error) {
	running, err := durable.Locked(a.dir)
	if err != nil {
		return 0, fmt.Errorf("data directory: %w", err)
	}
	err = durable.NewFile(durable.OS{}, out, 0o600, func(w io.Writer) error {
		count := &counter{w: w}
		defer func() { bytes = count.n }()
		if !running {
			return rounds.BackupStopped(a.dir, count)
		}
		return a.connected(ctx, backupTimeout, func(ctx context.Context, c adminClient) error {
			stream, err := c.Backup(ctx, &poetadminpb.BackupRequest{})
			if err != nil {
				return err
			}
			for {
				part, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if _, err := count.Write(part.GetPart()); err != nil {
					return err
				}
			}
		})
	})
	if errors.Is(err, os.ErrExist) {
		return 0, fmt.Errorf("%s exists: choose another file with --out, a backup is never overwritten", out)
	}
	return bytes, err
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
