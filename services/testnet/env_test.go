package testnet

import (
	"os/exec"
	"strings"
	"testing"
)

// Whatever stands in a path, a shell reads the settings as they are, and the words of the
// command that joins.
func TestAShellReadsTheEnvironmentAsItIs(t *testing.T) {
	e := Env{
		Network: "/home/o'neil/my nets/$HOME/network.json", Bootnode: "/ip4/127.0.0.1/udp/1/quic-v1/p2p/12D3", GRPC: "127.0.0.1:1", REST: "127.0.0.1:2",
		Poets: []string{"http://127.0.0.1:3", "http://127.0.0.1:4"}, Faucet: "/tmp/`id`.key", Account: "stest1qq",
	}
	script := e.Text("tweedle") + `printf '%s|' "$TWEEDLE_NETWORK" "$TWEEDLE_BOOTNODE" "$TWEEDLE_GRPC" "$TWEEDLE_REST" "$TWEEDLE_POETS" "$TWEEDLE_FAUCET_KEY" "$TWEEDLE_FAUCET_ACCOUNT"`
	out, err := exec.Command("/bin/sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := strings.Join([]string{e.Network, e.Bootnode, e.GRPC, e.REST, strings.Join(e.Poets, " "), e.Faucet, e.Account}, "|") + "|"
	if string(out) != want {
		t.Errorf("a shell has\n%s\nand not\n%s", out, want)
	}
	out, err = exec.Command("/bin/sh", "-c", "printf '%s|' "+e.Join("my tweedle")).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "my tweedle|node|--network|"+e.Network+"|") || !strings.HasSuffix(string(out), "|--poet|http://127.0.0.1:3|--poet|http://127.0.0.1:4|") {
		t.Errorf("the command that joins is, %v,\n%s", err, out)
	}
}
