package page

import (
	"encoding/json"
	"html"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The first frame is there before any script has run, and is what the scripts begin with.
func TestTheHTMLHasTheFirstFrame(t *testing.T) {
	p, s := newTestPage(t)
	if _, body := get(t, s.URL+"/"); !strings.Contains(body, ">Waiting for the watch<") || !strings.Contains(body, `<body data-state="wait">`) {
		t.Errorf("before anything was seen:\n%s", body)
	}
	node := Target{Job: "node", Name: "node-1", Address: "127.0.0.1:1"}
	evil := `"><img src=x onerror=alert(1)>`
	p.Show(Seen{At: time.Now().Add(-1500 * time.Millisecond), Network: evil, Every: time.Second, Targets: []Target{node}, Nodes: map[string]NodeSeen{"node-1": {Trouble: evil}}})
	_, body := get(t, s.URL+"/")
	for _, want := range []string{`<body data-state="bad"`, `>Something is broken</h1>`, `<li class="bad"><a href="#nodes"><b><span>broken:</span><span>Nodes</span></b><span class="fact">0 of 1 answer</span><span class="why">node-1 does not answer</span>`} {
		if !strings.Contains(body, want) {
			t.Errorf("it has no %s:\n%s", want, body)
		}
	}
	if strings.Contains(body, "<img") {
		t.Error("what a network is called is HTML")
	}
	data := regexp.MustCompile(`data-first="([^"]*)" data-age="(1[5-9]|2[0-9])[0-9]{2}"`).FindStringSubmatch(body)
	if data == nil {
		t.Fatalf("nothing for the scripts, or not 1.5 s old:\n%s", body)
	}
	var got Parts
	if err := json.Unmarshal([]byte(html.UnescapeString(data[1])), &got); err != nil {
		t.Fatal(err)
	}
	if whole := p.hub.newest(); len(got) != 2 || string(got["status"]) != string(whole["status"]) || string(got["chain"]) != string(whole["chain"]) {
		t.Errorf("the scripts begin with %s", data[1])
	}
}
