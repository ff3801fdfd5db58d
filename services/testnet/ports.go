package testnet

import (
	"fmt"
	"net"
	"strings"

	"tweedle/base/telemetry"
)

// Fixed ports: a process has ten from its number on, so that they can be kept in mind. With
// base port 20000 the watch has 20000, node-3 has 20030 to 20033, and poet-2 21020 to 21023.
const (
	portsPerProcess = 10
	poetPorts       = 1000 // from the base port to PoET number 0

	MinBasePort = 1024 // below it ports are the system's
	MaxBasePort = 65535 - poetPorts - portsPerProcess*MaxPoets - (portsPerProcess - 1)
)

// fixedEndpoints are a process's addresses with a base port, which is not 0.
func fixedEndpoints(m member, base int) telemetry.Endpoints {
	at := func(from, n int) string { return fmt.Sprintf("127.0.0.1:%d", base+from+n) }
	switch m.Kind {
	case Watch:
		return telemetry.Endpoints{Metrics: at(0, 0)}
	case Poet:
		first := poetPorts + portsPerProcess*Poet.number(m.Name)
		return telemetry.Endpoints{REST: at(first, 0), GRPC: at(first, 1), Admin: at(first, 2), Metrics: at(first, 3)}
	}
	first := portsPerProcess * Node.number(m.Name)
	return telemetry.Endpoints{
		P2P:  fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", base+first),
		GRPC: at(first, 1), REST: at(first, 2), Metrics: at(first, 3),
	}
}

// fix gives a process that does not run its fixed addresses. The id that its peers know it by
// belongs to the address, and is known from its last run.
func (p *process) fix(base int) {
	e := fixedEndpoints(p.member, base)
	if id := strings.Index(p.rec.Endpoints.P2P, "/p2p/"); id >= 0 && e.P2P != "" {
		e.P2P += p.rec.Endpoints.P2P[id:]
	}
	p.rec.Endpoints = e
}

// taken returns which addresses of the process's last run cannot be listened on now.
func taken(e telemetry.Endpoints) (all []string) {
	for _, a := range []string{e.GRPC, e.REST, e.Admin, e.Metrics} {
		if a == "" {
			continue
		}
		lis, err := net.Listen("tcp", a)
		if err != nil {
			all = append(all, a)
			continue
		}
		lis.Close()
	}
	if udp := udpAddress(e.P2P); udp != "" {
		c, err := net.ListenPacket("udp", udp)
		if err != nil {
			return append(all, udp+" (UDP)")
		}
		c.Close()
	}
	return all
}

// checkPorts names every fixed address that another program has, before anything starts.
func (l *launcher) checkPorts() error {
	if l.plan.BasePort == 0 {
		return nil
	}
	all := l.all()
	if _, err := findWatch(l.opts.Executable); err == nil && !l.opts.noWatch {
		all = append(all, l.newProcess(member{Name: watchName, Kind: Watch}))
	}
	var bad []string
	for _, p := range all {
		for _, a := range taken(p.rec.Endpoints) {
			bad = append(bad, a+" of "+p.Name)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("in use by other programs: %s; end them, or choose another --base-port", strings.Join(bad, ", "))
}
