package testnet

import (
	"os"
	"reflect"
	"testing"
	"time"
)

// The watch is told where the PoETs' admin listeners are, in labels that Prometheus drops, and the
// first event says where its page is.
func TestTheWatchAndItsPageAreTold(t *testing.T) {
	d, err := lockDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.unlock()
	p, _, err := d.prepare(Options{Dir: string(d.directory), Preset: "local", Nodes: 1, Poets: 2, Gateways: 1}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l := newLauncher(d, p, Options{}, newEmitter(NewJSONView(os.Stderr)))
	if page := l.started(false).Page; page != nil {
		t.Errorf("nobody watches, and the page is at %s", *page)
	}
	l.watch = l.newProcess(member{Name: watchName, Kind: Watch})
	l.watch.rec.Endpoints.Metrics = "127.0.0.1:96"
	for i, name := range []string{"node-1", "poet-1"} { // the other PoET was stopped
		one := l.processes[name]
		one.expected, one.rec.Endpoints.Metrics = true, []string{"127.0.0.1:1", "127.0.0.1:2"}[i]
	}
	l.processes["poet-1"].rec.Endpoints.Admin = "127.0.0.1:3"
	if err := os.MkdirAll(d.path(watchName), 0o700); err != nil {
		t.Fatal(err)
	}
	l.tellWatch()
	var got []targets
	if err := d.load(&got, watchName, watchTargets); err != nil {
		t.Fatal(err)
	}
	want := []targets{
		{[]string{"127.0.0.1:1"}, map[string]string{"job": "node", "name": "node-1"}},
		{[]string{"127.0.0.1:2"}, map[string]string{"job": "poet", "name": "poet-1", "__admin": "127.0.0.1:3", "__admin_token_file": d.path("poet-1", "admin.token")}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the watch is told of %v, not %v", got, want)
	}
	if page := l.started(false).Page; page == nil || *page != "http://127.0.0.1:96" {
		t.Errorf("the first event has the page %v", page)
	}
	s := &Status{}
	s.fill([]Record{{Kind: Watch, State: Running, Endpoints: l.watch.rec.Endpoints}}, map[string]answer{})
	if s.Page == nil || *s.Page != "http://127.0.0.1:96" {
		t.Errorf("the status has the page %v", s.Page)
	}
}
