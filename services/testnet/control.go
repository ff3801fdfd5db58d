package testnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"tweedle/base/words"
	"tweedle/edges/front"
)

// Command is what another shell asks of a running testnet.
type Command string

// The commands. All but Add and Down need names of processes; Add takes kinds
// ("node", "poet"), Down without names ends the testnet.
const (
	Kill    Command = "kill"    // SIGKILL; it stays down
	Pause   Command = "pause"   // SIGSTOP
	Resume  Command = "resume"  // SIGCONT
	Restart Command = "restart" // ends it in order if it runs, and starts it
	Move    Command = "move"    // Restart under other addresses
	Add     Command = "add"     // one more process
	Down    Command = "down"    // ends it in order
)

// The control socket: JSON over HTTP in both directions.
const (
	maxControlBody  = 64 << 10 // bytes
	controlDeadline = startTimeout + 2*stopGrace
	downPoll        = 50 * time.Millisecond
)

type controlRequest struct {
	Names []string `json:"names"`
}

type controlReply struct {
	Done  []string `json:"done"` // names of the processes it was done to
	Error string   `json:"error,omitempty"`
}

// serveControl takes commands until the returned function is called, which
// waits for those that are under way.
func (l *launcher) serveControl(ctx context.Context) (stop func(), err error) {
	path, release, err := l.dir.socketPath()
	if err != nil {
		return nil, err
	}
	// We hold the lock, so a socket that is there is a dead launcher's.
	lis, err := front.ListenLocal(front.UnixPrefix + path)
	if err != nil {
		release()
		return nil, l.dir.explain(err)
	}
	srv := &http.Server{
		Handler:           http.HandlerFunc(l.control),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(lis) //nolint:errcheck // it ends with Shutdown, or the next command fails
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), controlDeadline)
		defer cancel()
		srv.Shutdown(ctx) //nolint:errcheck // the process ends soon after
		<-done
		release()
	}, nil
}

func (l *launcher) control(w http.ResponseWriter, r *http.Request) {
	var req controlRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, maxControlBody)).Decode(&req); err != nil {
		writeReply(w, http.StatusBadRequest, controlReply{Error: "cannot read the command: " + words.Of(err)})
		return
	}
	done, err := l.do(r.Context(), Command(strings.TrimPrefix(r.URL.Path, "/")), req.Names)
	if err != nil {
		writeReply(w, http.StatusConflict, controlReply{Done: done, Error: words.Of(err)})
		return
	}
	writeReply(w, http.StatusOK, controlReply{Done: done})
}

func writeReply(w http.ResponseWriter, status int, r controlReply) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(r) //nolint:errcheck // who asked has gone
}

// do carries a command out, name by name.
func (l *launcher) do(ctx context.Context, c Command, names []string) (done []string, err error) {
	if c == Add {
		for _, kind := range names {
			name, err := l.add(ctx, Kind(kind))
			if err != nil {
				return done, err
			}
			done = append(done, name)
		}
		return done, nil
	}
	if c == Down && len(names) == 0 {
		l.cancel(errDown)
		return nil, nil
	}
	act, ok := map[Command]func(context.Context, *process) error{
		Kill: l.kill, Pause: l.pause, Resume: l.resume, Restart: l.restart, Move: l.move, Down: l.down,
	}[c]
	if !ok {
		return nil, fmt.Errorf("unknown command %.40q", c)
	}
	ps := make([]*process, len(names))
	for i, n := range names {
		if ps[i], err = l.process(n); err != nil {
			return nil, err
		}
	}
	for _, p := range ps {
		if err := act(ctx, p); err != nil {
			return done, err
		}
		done = append(done, p.Name)
	}
	return done, nil
}

// Do sends a command to the testnet that runs in dir, and returns the names of
// the processes it was done to. It needs a running `up`, which is the only
// parent of the processes.
func Do(ctx context.Context, dir string, c Command, names ...string) ([]string, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, controlDeadline)
	defer cancel()
	body, err := json.Marshal(controlRequest{Names: names})
	if err != nil {
		return nil, err
	}
	var r controlReply
	if err := d.ask(ctx, c, body, &r); err != nil {
		return nil, err
	}
	if r.Error != "" {
		return r.Done, errors.New(r.Error)
	}
	if c == Down && len(names) == 0 {
		return nil, d.waitDown(ctx)
	}
	return r.Done, nil
}

// ask sends one request over the control socket.
func (d directory) ask(ctx context.Context, c Command, body []byte, reply *controlReply) error {
	path, release, err := d.socketPath()
	if err != nil {
		return err
	}
	defer release()
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://testnet/"+string(c), bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		if !d.isUp() {
			return fmt.Errorf("no testnet runs in %s: start it with `tweedle testnet up --dir %s`", d, d)
		}
		return fmt.Errorf("%s: %w", c, err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, maxControlBody)).Decode(reply); err != nil {
		return fmt.Errorf("%s: the testnet ended meanwhile (%w)", c, err)
	}
	return nil
}

// isUp tells whether an `up` takes commands in the directory.
func (d directory) isUp() bool {
	path, release, err := d.socketPath()
	if err != nil {
		return false
	}
	defer release()
	conn, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// waitDown waits until `up` has ended and with it all processes.
func (d directory) waitDown(ctx context.Context) error {
	for {
		lock, err := lockDir(string(d))
		if err == nil {
			lock.unlock()
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the testnet in %s has not ended yet: look at it with `tweedle testnet status --dir %s`", d, d)
		case <-time.After(downPoll):
		}
	}
}
