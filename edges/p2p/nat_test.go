//go:build linux

package p2p

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// behindRouter marks the process that stands in a network of its own.
const behindRouter = "TWEEDLE_TEST_BEHIND_ROUTER"

// A host asks its router for a way in and tells the address that it got, but not when it is told
// not to; on loopback nobody is asked. The router is one that speaks UPnP, in a network namespace.
func TestARouterIsAskedForAWayIn(t *testing.T) {
	if os.Getenv(behindRouter) == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestARouterIsAskedForAWayIn$", "-test.v")
		cmd.Env = append(os.Environ(), behindRouter+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		switch {
		case err != nil && (os.IsPermission(err) || strings.Contains(err.Error(), "operation not permitted")):
			t.Skip("SKIPPED: only root may make a network namespace")
		case err != nil || !strings.Contains(string(out), "--- PASS: TestARouterIsAskedForAWayIn"):
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for _, c := range []string{
		"link set lo up", "link add wan type veth peer name lan", "address add 10.1.1.2/24 dev wan", "link set lan up", "link set wan up",
		"route add default via 10.1.1.1 dev wan", "address add 10.1.1.1/32 dev lo",
	} {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", c, err, out)
		}
	}
	r := router(t)
	// mapped tells whether the host tells the way in that the router has for its port.
	mapped := func(h *Host) bool {
		port := strings.Split(h.Addrs()[0], "/")[4]
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.mapped[port] != "" && slices.Contains(h.Addrs(), fmt.Sprintf("/ip4/5.9.9.9/udp/%s/quic-v1/p2p/%s", r.mapped[port], h.ID()))
	}
	for _, c := range []struct {
		listen string
		nat    bool
	}{{"10.1.1.2", false}, {"127.0.0.1", true}, {"10.1.1.2", true}} {
		cfg := loopbackConfig(t, "test")
		cfg.Listen, cfg.NAT = []string{fmt.Sprintf("/ip4/%s/udp/0/quic-v1", c.listen)}, c.nat
		want := c.nat && c.listen != "127.0.0.1"
		if cfg.asksRouter() != want {
			t.Errorf("%+v: asks %v", c, cfg.asksRouter())
		}
		h := newHost(t, cfg)
		run(t, h)
		if want {
			within(t, time.Minute, "the router's address is told", func() bool { return mapped(h) })
			continue
		}
		time.Sleep(2 * time.Second)
		r.mu.Lock()
		if r.asked {
			t.Errorf("%+v: the router was asked", c)
		}
		r.mu.Unlock()
	}
}

// igd is a router that speaks UPnP at 10.1.1.1; outside it is 5.9.9.9.
type igd struct {
	mu     sync.Mutex
	asked  bool
	mapped map[string]string // internal port to external one, both as text
}

const igdService = "urn:schemas-upnp-org:service:WANIPConnection:1"

func (r *igd) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method == http.MethodGet {
		fmt.Fprintf(w, `<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major></specVersion><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><UDN>uuid:1</UDN><serviceList><service>
<serviceType>%s</serviceType><serviceId>urn:upnp-org:serviceId:1</serviceId><controlURL>/c</controlURL><eventSubURL>/e</eventSubURL><SCPDURL>/s</SCPDURL>
</service></serviceList></device></root>`, igdService)
		return
	}
	body, _ := io.ReadAll(io.LimitReader(req.Body, 1<<16))
	field := func(name string) string {
		m := regexp.MustCompile("<" + name + ">([^<]*)<").FindSubmatch(body)
		if m == nil {
			return ""
		}
		return string(m[1])
	}
	_, action, _ := strings.Cut(strings.Trim(req.Header.Get("SOAPAction"), `"`), "#")
	answer := ""
	switch action {
	case "GetNATRSIPStatus":
		answer = "<NewRSIPAvailable>0</NewRSIPAvailable><NewNATEnabled>1</NewNATEnabled>"
	case "GetExternalIPAddress":
		answer = "<NewExternalIPAddress>5.9.9.9</NewExternalIPAddress>"
	case "AddPortMapping":
		if field("NewProtocol") == "UDP" {
			r.mu.Lock()
			r.mapped[field("NewInternalPort")] = field("NewExternalPort")
			r.mu.Unlock()
		}
	}
	fmt.Fprintf(w, `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">
<s:Body><u:%sResponse xmlns:u="%s">%s</u:%sResponse></s:Body></s:Envelope>`, action, igdService, answer, action)
}

func router(t *testing.T) *igd {
	r := &igd{mapped: make(map[string]string)}
	l, err := net.Listen("tcp", "10.1.1.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: r}
	wan, err := net.InterfaceByName("wan")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenMulticastUDP("udp4", wan, &net.UDPAddr{IP: net.IPv4(239, 255, 255, 250), Port: 1900})
	if err != nil {
		t.Fatal(err)
	}
	var ends sync.WaitGroup
	ends.Go(func() { web.Serve(l) })
	ends.Go(func() {
		b := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			target := regexp.MustCompile(`(?i)\r\nST: ?([^\r]*)`).FindSubmatch(b[:n])
			if target == nil {
				continue
			}
			r.mu.Lock()
			r.asked = true
			r.mu.Unlock()
			if strings.HasSuffix(string(target[1]), "WANConnectionDevice:1") {
				fmt.Fprintf(answerTo{c, from}, "HTTP/1.1 200 OK\r\nST: %s\r\nUSN: uuid:1::x\r\nLOCATION: http://%s/d.xml\r\nCACHE-CONTROL: max-age=100\r\nEXT:\r\n\r\n", target[1], l.Addr())
			}
		}
	})
	t.Cleanup(func() { web.Close(); c.Close(); ends.Wait() })
	return r
}

type answerTo struct {
	net.PacketConn
	to net.Addr
}

func (a answerTo) Write(b []byte) (int, error) { return a.WriteTo(b, a.to) }
