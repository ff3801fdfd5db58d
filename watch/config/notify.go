package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Notifier is a way to tell people.
type Notifier struct {
	Kind     string
	Severity string            // the least that is told: page, or warn
	Fields   map[string]string // as the kind needs them
}

// kind is what a notifier of a kind needs.
type kind struct {
	section string            // of an Alertmanager receiver
	keys    map[string]string // our key -> Alertmanager's
	needs   [][]string        // one of each is needed
	numbers []string          // keys whose values are numbers
}

func kinds() map[string]kind {
	return map[string]kind{
		"webhook":  {section: "webhook_configs", keys: map[string]string{"url": "url", "url_file": "url_file"}, needs: [][]string{{"url", "url_file"}}},
		"slack":    {section: "slack_configs", keys: map[string]string{"url": "api_url", "url_file": "api_url_file", "channel": "channel"}, needs: [][]string{{"url", "url_file"}}},
		"discord":  {section: "discord_configs", keys: map[string]string{"url": "webhook_url", "url_file": "webhook_url_file"}, needs: [][]string{{"url", "url_file"}}},
		"telegram": {section: "telegram_configs", keys: map[string]string{"token": "bot_token", "token_file": "bot_token_file", "chat": "chat_id", "api": "api_url"}, needs: [][]string{{"token", "token_file"}, {"chat"}}, numbers: []string{"chat"}},
		"email": {section: "email_configs", keys: map[string]string{"to": "to", "from": "from", "server": "smarthost", "user": "auth_username", "password": "auth_password",
			"password_file": "auth_password_file", "tls": "require_tls"}, needs: [][]string{{"to"}, {"from"}, {"server"}}},
		"pagerduty": {section: "pagerduty_configs", keys: map[string]string{"key": "routing_key", "key_file": "routing_key_file", "api": "url"}, needs: [][]string{{"key", "key_file"}}},
	}
}

func (r *reader) notifier(n *yaml.Node) Notifier {
	out := Notifier{Severity: "warn", Fields: map[string]string{}}
	fields := map[string]field{
		"kind":     func(*yaml.Node) {},
		"severity": func(n *yaml.Node) { out.Severity = r.choice(n, "severity", []string{"page", "warn"}) },
	}
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "kind" {
				out.Kind = r.choice(n.Content[i+1], "kind", []string{"webhook", "slack", "discord", "telegram", "email", "pagerduty"})
			}
		}
	}
	k, known := kinds()[out.Kind]
	if !known {
		if out.Kind == "" {
			r.fault(n, "a notifier needs its kind, as in {kind: webhook, url: https://...}")
		}
		return out
	}
	for key := range k.keys {
		fields[key] = func(n *yaml.Node) {
			out.Fields[key] = r.text(n)
			if (key == "url" || key == "api") && n.Kind == yaml.ScalarNode {
				r.url(n)
			}
			if _, err := strconv.ParseInt(n.Value, 10, 64); err != nil && slices.Contains(k.numbers, key) {
				r.fault(n, "%s must be a number", key)
			}
			if key == "server" {
				r.address(n)
			}
		}
	}
	r.mapping(n, "a notifier of kind "+out.Kind, fields)
	for _, one := range k.needs {
		if !slices.ContainsFunc(one, func(key string) bool { return out.Fields[key] != "" }) {
			r.fault(n, "a notifier of kind %s needs %s", out.Kind, strings.Join(one, " or "))
		}
	}
	return out
}

// Groups of alerts wait so long for others (seconds); a crash waits for nobody.
const (
	groupWait     = "3s"
	groupInterval = "30s"
	crashInterval = "5s" // how late a resolve can be
	repeat        = "4h"
)

// nobody is the receiver of what only the page shows.
const nobody = "nobody"

// Notify returns the Alertmanager configuration. Whoever reads it reads secrets.
func (c Config) Notify() (string, error) {
	m := func(kv ...any) map[string]any {
		out := map[string]any{}
		for i := 0; i < len(kv); i += 2 {
			out[kv[i].(string)] = kv[i+1]
		}
		return out
	}
	crash := m("matchers", []string{`alertname=~"NodeCrashed|NodeCrashLooping"`}, "group_by", []string{"alertname", "net", "name", "crash"},
		"group_wait", "0s", "group_interval", crashInterval)
	receivers := []any{m("name", nobody)}
	var routes []any
	for i, n := range c.Notifiers {
		k := kinds()[n.Kind]
		body := m("send_resolved", true)
		for key, value := range n.Fields {
			body[k.keys[key]] = value
			if number, err := strconv.ParseInt(value, 10, 64); err == nil && slices.Contains(k.numbers, key) {
				body[k.keys[key]] = number
			}
			if yes, err := strconv.ParseBool(value); err == nil && key == "tls" {
				body[k.keys[key]] = yes
			}
		}
		words(n.Kind, body)
		name := fmt.Sprintf("%s-%d", n.Kind, i+1)
		receivers = append(receivers, m("name", name, k.section, []any{body}))
		matcher := `severity=~"page|warn"`
		if n.Severity == "page" {
			matcher = `severity="page"`
		}
		routes = append(routes, m("receiver", name, "matchers", []string{matcher}, "continue", true, "routes", []any{crash}))
	}
	route := m("receiver", nobody, "group_by", []string{"net", "alertname"}, "group_wait", groupWait, "group_interval", groupInterval, "repeat_interval", repeat)
	if routes != nil {
		route["routes"] = routes
	}
	b, err := yaml.Marshal(m("route", route, "receivers", receivers, "inhibit_rules", inhibitions()))
	return string(b), err
}

// words are the texts of a kind, where Alertmanager's own say too little of a crash.
func words(kind string, body map[string]any) {
	const text = `{{ range .Alerts }}{{ .Status }}: {{ .Labels.alertname }} {{ .Labels.net }} {{ .Labels.name }}
{{ .Annotations.summary }}
{{ if .Annotations.stack }}{{ .Annotations.stack }}
{{ end }}{{ end }}`
	switch kind {
	case "slack":
		body["text"], body["title"] = text, `{{ .Status }}: {{ .CommonLabels.alertname }}`
	case "discord":
		body["message"] = text
	case "telegram":
		body["message"], body["parse_mode"] = text, ""
	}
}

// inhibitions lists which alerts say nothing new while another one fires.
func inhibitions() []any {
	rule := func(source, target string, equal ...string) any {
		return map[string]any{"source_matchers": []string{`alertname=~"` + source + `"`}, "target_matchers": []string{`alertname=~"` + target + `"`}, "equal": equal}
	}
	return []any{
		rule("NodeCrashed|NodeCrashLooping", "TargetDown", "net", "name"),
		rule("NodeCrashLooping", "NodeCrashed", "net", "name"),
		rule("NetworkStalled", "LayerStalled|SyncStuck|SmesherLate", "net"),
		rule("AtxDrop", "SmesherLate", "net"),
		rule("PoetAllSlotsDead", "PoetGatewaySlotDead|PoetBroadcastFailed|PoetProofUndelivered", "net", "name"),
		rule("PoetDiskFull", "PoetDiskLow|PoetWriterStopped", "net", "name"),
		rule("DiskLow", "DiskWillFill", "net", "name", "mountpoint"),
	}
}
