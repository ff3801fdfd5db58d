package main

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"

	"github.com/spf13/pflag"

	"tweedle/edges/front"
)

// frontFlags are the settings of a public door, the same for node and PoET.
type frontFlags struct {
	limits           *front.Limits
	proxies, origins []string
}

func (f *frontFlags) register(fl *pflag.FlagSet, l *front.Limits) {
	f.limits = l
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
	fl.IntVar(&l.Message, "max-message", l.Message, "bytes of a gRPC request")
	fl.IntVar(&l.Body, "max-body", l.Body, "bytes of a JSON request")
	fl.IntVar(&l.Header, "max-header", l.Header, "bytes of the headers of a request")
	fl.StringArrayVar(&f.proxies, "trusted-proxy", nil,
		"address (or network, like 10.0.0.0/24) of a proxy whose X-Forwarded-For tells the client's address; may be repeated")
	fl.StringArrayVar(&f.origins, "cors-origin", nil,
		"web page whose scripts may read the JSON API, like https://explorer.example, or * for all; may be repeated")
}

// complete checks the settings, and sets what follows from them.
func (f *frontFlags) complete(fl *pflag.FlagSet) (proxies []netip.Prefix, origins []string, err error) {
	l := f.limits
	if l.Rate < 0 || l.AddressConnections < 0 || l.AddressCalls < 0 || l.AddressReplies < 0 {
		return nil, nil, usageError{fmt.Errorf("--rate-limit and limits of an address must not be negative")}
	}
	if l.Connections < 1 || l.Calls < 1 || l.Replies < 1 || l.Send <= 0 || l.Read <= 0 || l.Message < 1 || l.Body < 1 || l.Header < 1 || l.Header > math.MaxInt32 {
		return nil, nil, usageError{fmt.Errorf("--max-connections, --max-calls, --max-replies, --send-time, --request-time, --max-message, --max-body and --max-header must be more than nothing")}
	}
	if l.Rate == 0 {
		for name, limit := range map[string]*int{"address-connections": &l.AddressConnections, "address-calls": &l.AddressCalls, "address-replies": &l.AddressReplies} {
			if !fl.Changed(name) {
				*limit = 0
			}
		}
	}
	for _, text := range f.proxies {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return nil, nil, usageError{fmt.Errorf("--trusted-proxy: %q is not an address like 10.0.0.7 or a network like 10.0.0.0/24", text)}
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		proxies = append(proxies, p.Masked())
	}
	for _, text := range f.origins {
		u, err := url.Parse(text)
		if text != "*" && (err != nil || u.Host == "" || u.Scheme+"://"+u.Host != text) {
			return nil, nil, usageError{fmt.Errorf("--cors-origin: %q is not like https://explorer.example, without anything behind the host", text)}
		}
	}
	return proxies, f.origins, nil
}
