package engine

import (
	"os/exec"
	"strings"
	"testing"
)

// What Prometheus and Alertmanager import of clouds is replaced by what refuses
// (watch/without): a watch is small, quick to build, and has no client that could
// send a credential anywhere.
func TestTheWatchHasNoClientOfACloud(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not (and .Module .Module.Replace)}}{{.ImportPath}}{{end}}", "tweedle/watch/cmd/tweedle-watch").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	all := strings.Fields(string(out))
	if len(all) < 300 {
		t.Fatalf("only %d packages", len(all))
	}
	for _, pkg := range all {
		for _, cloud := range []string{"github.com/aws/", "github.com/Azure/", "github.com/AzureAD/", "cloud.google.com/go/auth", "google.golang.org/api/", "k8s.io/"} {
			if strings.HasPrefix(pkg, cloud) {
				t.Errorf("the watch builds %s", pkg)
			}
		}
	}
}
