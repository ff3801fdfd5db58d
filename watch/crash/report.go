package crash

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// death finds the runtime's words in a report. The first line of a report can be
// blank, and a log can stand before it.
var death = regexp.MustCompile(`(?m)^(panic: |fatal error: |SIG[A-Z]+: |unexpected fault address|runtime: goroutine stack exceeds)`)

// report is what a program said when it died.
type report struct {
	reason  Reason // empty if it said nothing
	message string // one line
	stack   string
	hash    string
}

// parseReport reads a report, or output that ends in one.
func parseReport(text string) report {
	at := death.FindStringIndex(text)
	if at == nil {
		return report{}
	}
	text = text[at[0]:]
	r := report{reason: Fatal, stack: text[:min(len(text), maxStack)], hash: hashStack(text)}
	first, _, _ := strings.Cut(text, "\n")
	if strings.HasPrefix(first, "panic: ") {
		r.reason = Panic
	}
	if strings.HasPrefix(first, "runtime: ") { // the error follows
		if _, after, ok := strings.Cut(text, "fatal error: "); ok {
			first, _, _ = strings.Cut("fatal error: "+after, "\n")
		}
	}
	r.message = strings.TrimSpace(first)
	return r
}

// address is what differs between two runs of the same fault.
var address = regexp.MustCompile(`\(.*\)$|\+0x[0-9a-f]+$`)

// hashStack names the fault by the functions and lines of the first goroutine,
// which is the one that died. It is empty without a stack.
func hashStack(text string) string {
	_, stack, ok := strings.Cut(text, "\ngoroutine ")
	if !ok {
		return ""
	}
	stack, _, _ = strings.Cut(stack, "\n\n")
	h := sha256.New()
	for i, line := range strings.Split(stack, "\n") {
		if i == 0 || strings.HasPrefix(line, "created by ") {
			continue
		}
		if strings.HasPrefix(line, "\t") {
			where, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			line = filepath.Base(where)
		} else {
			line = address.ReplaceAllString(line, "")
		}
		h.Write([]byte(line + "\n"))
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// readReport reads a crash report file, at most its beginning, where the fault is.
func readReport(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 2*maxStack)
	n, _ := f.Read(b) // a report that cannot be read is none
	return string(b[:n])
}

// hidden replaces a secret.
const hidden = "[hidden]"

// patterns are secrets by their look. The first group stays.
var patterns = []*regexp.Regexp{
	regexp.MustCompile(`(?i)((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{6,}`),
	regexp.MustCompile(`(?i)((?:[a-z0-9_-]*(?:token|secret|passwd|password|passphrase|api[_-]?key|private[_-]?key|seed|mnemonic))["']?\s*[=: ]\s*["']?)[^\s"',;&)]{3,}`),
	regexp.MustCompile(`(://)[^/\s:@]+:[^/\s@]+@`), // user and password of a URL
	regexp.MustCompile(`(https://hooks\.slack\.com/)\S+`),
	regexp.MustCompile(`(https://(?:canary\.|ptb\.)?discord(?:app)?\.com/api/webhooks/)\S+`),
	regexp.MustCompile(`(\bbot)\d{6,}:[A-Za-z0-9_-]{20,}`), // Telegram
	regexp.MustCompile(`()(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`),
}

// secretName is a variable or flag whose value is never shown.
var secretName = regexp.MustCompile(`(?i)token|secret|passw|passphrase|key$|seed|mnemonic|credential|webhook`)

// strip removes secrets from a text: what looks like one, and the given values.
func strip(text string, values []string) string {
	for _, v := range values {
		text = strings.ReplaceAll(text, v, hidden)
	}
	for _, p := range patterns {
		text = p.ReplaceAllString(text, "${1}"+hidden)
	}
	return text
}

// secretValues lists the values of an environment and a command line that must
// not be shown. Very short ones would hide ordinary words.
func secretValues(env, args []string) []string {
	var out []string
	add := func(name, value string) {
		if len(value) >= 6 && secretName.MatchString(name) {
			out = append(out, value)
		}
	}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		add(name, value)
	}
	for i, a := range args {
		if !strings.HasPrefix(a, "-") {
			continue
		}
		name, value, ok := strings.Cut(a, "=")
		if !ok && i+1 < len(args) {
			value = args[i+1]
		}
		if !strings.HasPrefix(value, "-") && !strings.HasSuffix(strings.ToLower(name), "-file") {
			add(name, value)
		}
	}
	return out
}
