package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"

	"github.com/spf13/pflag"

	"tweedle/edges/front"
)

// frontFlags are the settings of a public door, the same for node and PoET.
type frontFlags struct {
	limits, operations *front.Limits
	proxies, origins   []string
	cert, key          string
}

// operationsPrefix begins the names of the limits of the listener of metrics.
const operationsPrefix = "operations-"

func (f *frontFlags) register(fl *pflag.FlagSet, public, operations *front.Limits) {
	f.limits, f.operations = public, operations
	limitFlags(fl, public)
	fl.IntVar(&public.Message, "max-message", public.Message, "bytes of a gRPC request")
	fl.Uint32Var(&public.Streams, "max-streams", public.Streams, "requests that run at a time on one gRPC connection")
	*operations = front.OperationsLimits()
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	limitFlags(set, operations)
	set.VisitAll(func(flag *pflag.Flag) {
		flag.Name, flag.Usage = operationsPrefix+flag.Name, "--"+flag.Name+" of the listener of metrics"
		fl.AddFlag(flag)
	})
	fl.StringArrayVar(&f.proxies, "trusted-proxy", nil,
		"address (or network, like 10.0.0.0/24, or unix for all who come over a unix socket) of a proxy whose X-Forwarded-For tells the client's address; may be repeated")
	fl.StringArrayVar(&f.origins, "cors-origin", nil,
		"web page whose scripts may read the JSON API, like https://explorer.example, or * for all; may be repeated")
	pathVar(fl, &f.cert, "tls-cert", "", "", "PEM file of the certificate, with those above it, that the public gRPC and JSON listeners show; what is on a unix socket stays plain text. It is read again when it changes")
	pathVar(fl, &f.key, "tls-key", "", "", "PEM file of its key, mode 0600")
}

// limitFlags registers the limits that every door has.
func limitFlags(fl *pflag.FlagSet, l *front.Limits) {
	fl.Float64Var(&l.Rate, "rate-limit", l.Rate,
		"requests a second from one address; 0 is for servers behind a load balancer: no limit of an address holds, not for connections either")
	fl.IntVar(&l.Connections, "max-connections", l.Connections, "connections of the public API open at a time")
	fl.IntVar(&l.AddressConnections, "address-connections", l.AddressConnections, "the same of one address; 0 is no limit")
	fl.IntVar(&l.Calls, "max-calls", l.Calls, "requests that are answered at a time, open streams included")
	fl.IntVar(&l.AddressCalls, "address-calls", l.AddressCalls, "the same of one address; 0 is no limit")
	fl.IntVar(&l.Replies, "max-replies", l.Replies, "bytes of answers that clients have not read yet")
	fl.IntVar(&l.AddressReplies, "address-replies", l.AddressReplies, "the same of one address; 0 is no limit")
	fl.DurationVar(&l.Send, "send-time", l.Send, "time that a client has to take an answer, beside a second for each 32 KiB of it")
	fl.DurationVar(&l.Read, "request-time", l.Read, "time in which a request must have arrived")
	fl.DurationVar(&l.Handshake, "handshake-time", l.Handshake, "time in which a connection must have said what it wants: TLS, the greeting of gRPC, the headers of a JSON request")
	fl.IntVar(&l.Body, "max-body", l.Body, "bytes of a JSON request")
	fl.IntVar(&l.Header, "max-header", l.Header, "bytes of the headers of a request")
}

// maxHeader is far more than any client has, and no number overflows.
const maxHeader = 1 << 30

// checkLimits refuses what cannot be meant, and sets what follows from the rest.
func checkLimits(fl *pflag.FlagSet, prefix string, l *front.Limits) error {
	if l.Rate < 0 || l.AddressConnections < 0 || l.AddressCalls < 0 || l.AddressReplies < 0 {
		return usageError{fmt.Errorf("--%srate-limit and limits of an address must not be negative", prefix)}
	}
	if l.Connections < 1 || l.Calls < 1 || l.Replies < 1 || l.Send <= 0 || l.Read <= 0 || l.Handshake <= 0 || l.Body < 1 || l.Header < 1 || l.Header > maxHeader {
		return usageError{fmt.Errorf("--%[1]smax-connections, --%[1]smax-calls, --%[1]smax-replies, --%[1]ssend-time, --%[1]srequest-time, --%[1]shandshake-time, --%[1]smax-body and --%[1]smax-header must be more than nothing, and the last at most %d", prefix, maxHeader)}
	}
	if l.Rate > 0 {
		return nil
	}
	for name, limit := range map[string]*int{"address-connections": &l.AddressConnections, "address-calls": &l.AddressCalls, "address-replies": &l.AddressReplies} {
		if !fl.Changed(prefix + name) {
			*limit = 0
		}
	}
	return nil
}

// complete checks the settings, sets what follows from them, and returns whom and what
// they name. log is told of the certificate, and may be nil.
func (f *frontFlags) complete(fl *pflag.FlagSet, log *slog.Logger) (o front.Options, err error) {
	if err := checkLimits(fl, "", f.limits); err != nil {
		return o, err
	}
	if err := checkLimits(fl, operationsPrefix, f.operations); err != nil {
		return o, err
	}
	if f.limits.Message < 1 || f.limits.Streams < 1 {
		return o, usageError{fmt.Errorf("--max-message and --max-streams must be more than nothing")}
	}
	for _, text := range f.proxies {
		if text == "unix" {
			o.Proxies = append(o.Proxies, netip.Prefix{})
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return o, usageError{fmt.Errorf("--trusted-proxy: %q is not an address like 10.0.0.7, a network like 10.0.0.0/24, or unix", text)}
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		o.Proxies = append(o.Proxies, p.Masked())
	}
	for _, text := range f.origins {
		u, err := url.Parse(text)
		if text != "*" && (err != nil || u.Host == "" || u.Scheme+"://"+u.Host != text) {
			return o, usageError{fmt.Errorf("--cors-origin: %q is not like https://explorer.example, without anything behind the host", text)}
		}
	}
	o.Origins = f.origins
	switch {
	case (f.cert == "") != (f.key == ""):
		return o, usageError{fmt.Errorf("--tls-cert and --tls-key belong together: give both")}
	case f.cert != "":
		o.Certificate, err = front.OpenCertificate(f.cert, f.key, log)
	}
	return o, err
}
