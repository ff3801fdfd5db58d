package config

import (
	"strings"
	"testing"
)

// Each mistake is named with its line and what to write instead, and no secret is
// shown.
func TestMistakesAreNamed(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "name at least one target"},
		{"no yaml", "listen: [", "line"},
		{"a typo", "listn: 127.0.0.1:1", `line 1: the file has no key "listn": write "listen"`},
		{"an unknown key", "a: 1", "the keys are data, evaluate"},
		{"twice", "network: a\nnetwork: b", `line 2: key "network" is there twice`},
		{"address", "\nlisten: here", `line 2: "here" is no address: write host:port`},
		{"duration", "scrape: 5 seconds", `line 1: "5 seconds" is no duration: write for example 5s`},
		{"too short", "scrape: 1ms", "out of range: write 1s to 1m0s"},
		{"a list", "targets: {name: a}", `line 1: targets must be a list: begin each of its entries with "- "`},
		{"incomplete", "targets:\n- {name: a, job: node}", "line 2: a target needs name, job and address"},
		{"an API without its token", "targets:\n- {name: a, job: poet, address: a:1, admin: a:2}", "line 2: admin and admin_token_file belong together, and to a target of job poet"},
		{"an API of a node", "targets:\n- {name: a, job: node, address: a:1, admin: a:2, admin_token_file: t}", "to a target of job poet"},
		{"a job", "targets:\n- {name: a, job: nod, address: a:1}", `line 2: job "nod" is not known: write "node"`},
		{"same names", "targets:\n- {name: a, job: node, address: a:1}\n- {name: a, job: node, address: a:2}", `two targets of job node are called "a"`},
		{"kind", "notify:\n- {kind: smoke}", `line 2: kind "smoke" is not known: use one of webhook`},
		{"no kind", "notify:\n- {url: http://a}", "line 2: a notifier needs its kind"},
		{"a key of another kind", "notify:\n- {kind: slack, urll: a, url: http://a}", `line 2: a notifier of kind slack has no key "urll": write "url"`},
		{"needs", "notify:\n- {kind: telegram, token: secret77}", "line 2: a notifier of kind telegram needs chat"},
		{"chat", "notify:\n- {kind: telegram, token: secret77, chat: me}", "line 2: chat must be a number"},
		{"url", "notify:\n- {kind: discord, url: secret77}", "line 2: this is no URL: write one that begins with http"},
		{"severity", "notify:\n- {kind: webhook, url: http://a, severity: pag}", `write "page"`},
		{"bool", "host: perhaps", `"perhaps" is neither true nor false`},
		{"not a mapping", "- a", "line 1: the file must have keys and values"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("the error is %v", err)
			}
			if strings.Contains(err.Error(), "secret77") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

// All mistakes of a file are named at once.
func TestAllMistakesAtOnce(t *testing.T) {
	_, err := Parse("listn: a\nscrape: x\nhost: y")
	if err == nil || strings.Count(err.Error(), "line ") != 3 {
		t.Errorf("the error is %v", err)
	}
}
