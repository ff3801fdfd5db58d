package front

import (
	"context"
	"net"

	"google.golang.org/grpc"
)

// Admin is a server for the operator alone, ready to be served.
type Admin struct {
	Server *grpc.Server
	guard  *Guard
}

// NewAdmin returns a server with the limits of a public one that lets those who
// show a token of the file use the listed methods, and nothing else; register adds
// its services. The file is made if it is missing. Its listener is one of
// ListenLocal, where all clients have one address: no proxy is believed there.
func NewAdmin(tokenFile string, methods map[string]bool, l Limits, o Options, register func(grpc.ServiceRegistrar)) (*Admin, error) {
	l.Connections, l.Calls = 64, 256
	l.Message = 64 << 10 // a long list of gateways
	log := o.Log
	if log != nil {
		log = log.With("listener", "admin") // its limits are fixed
	}
	g := New(l, Options{Log: log, Metrics: o.Metrics})
	tokens, err := OpenTokens(tokenFile, g.Log())
	if err != nil {
		return nil, err
	}
	s := g.Server(tokens.Only(methods)...)
	register(s)
	return &Admin{Server: s, guard: g}, nil
}

// Serve answers until ctx ends, and closes the listener. It can be called once.
func (a *Admin) Serve(ctx context.Context, l net.Listener) error {
	return a.guard.Serve(ctx, a.Server, l)
}
