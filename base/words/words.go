// Package words says in plain words what libraries say to programmers, in errors that people
// read: those that end a command, lines of the log, the smesher's screen, statuses in JSON.
//
// It promises one line, and to leave what it does not know as it is. It leaves to whoever
// makes an error to say what to do about it.
package words

import (
	"regexp"
	"strings"
)

// Of is an error as people are told it, in one line.
func Of(err error) string { return Plain(err.Error()) }

// Plain is what an error said, as people are told it, in one line.
func Plain(text string) string {
	for _, w := range wordings {
		text = w.library.ReplaceAllString(text, w.words)
	}
	text = jsonKind.ReplaceAllStringFunc(text, func(s string) string {
		m := jsonKind.FindStringSubmatch(s)
		field := "it"
		if m[2] != "" {
			field = `"` + m[2] + `"`
		}
		return field + " is " + kindWords(m[1]) + ", and should be " + kindWords(m[3])
	})
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "\n", "; ")), " ")
}

const noAnswer = "there was no answer in time"

// wordings are tried in this order: what wraps comes before what it wraps.
var wordings = []struct {
	library *regexp.Regexp
	words   string
}{
	// gRPC and HTTP, around what happened.
	{regexp.MustCompile(`rpc error: code = \w+ desc = `), ""},
	{regexp.MustCompile(`(?:last )?connection error: desc = "(.*?)"(\)|$|: )`), "$1$2"},
	{regexp.MustCompile(`transport: (?:Error while dialing|authentication handshake failed): `), ""},
	{regexp.MustCompile(`name resolver error: produced zero addresses`), "the host has no address"},
	{regexp.MustCompile(`(?:Get|Post|Put|Delete|Head) "([^"]*)": `), "$1: "},
	{regexp.MustCompile(`(https?://\S+): (?:unexpected )?EOF`), "$1: the connection ended without an answer"},
	{regexp.MustCompile(`context deadline exceeded \(Client\.Timeout[^)]*\)`), noAnswer},
	{regexp.MustCompile(`http: server gave HTTP response to HTTPS client`), "it speaks http://, not https://"},
	{regexp.MustCompile(`tls: first record does not look like a TLS handshake`), "it does not speak TLS"},
	{regexp.MustCompile(`error reading server preface: .*?(\)|$)`), "it is no gRPC address$1"},
	// Sockets.
	{regexp.MustCompile(`dial (?:tcp|udp|unix) (\S+): connect: connection refused`), "nobody listens at $1"},
	{regexp.MustCompile(`dial unix (\S+): connect: no such file or directory`), "nobody listens at $1"},
	{regexp.MustCompile(`(?:dial|listen) (?:tcp|udp)[46]?: lookup (?:tcp|udp)/(\S+): unknown port`), `"$1" is no port`},
	{regexp.MustCompile(`(?:(?:dial|listen) (?:tcp|udp)[46]?: )?lookup (\S+?)(?: on \S+)?: (?:no such host|server misbehaving|Temporary failure in name resolution)`), `the host "$1" is not found`},
	{regexp.MustCompile(`(?:(?:dial|listen) (?:tcp|udp)[46]?: )?address (\S+): (?:missing port in address|too many colons in address)`), `"$1" is not host:port`},
	{regexp.MustCompile(`(?:(?:dial|listen) (?:tcp|udp)[46]?: )?address (\S+): invalid port`), `"$1" is no port`},
	{regexp.MustCompile(`dial (?:tcp|udp) (\S+): (?:connect: )?(?:i/o timeout|connection timed out)`), "$1 does not answer"},
	{regexp.MustCompile(`(?:read|write) (?:tcp|udp|unix) \S*->\S*: (?:read|write): (?:connection reset by peer|broken pipe)`), "the connection was cut off"},
	{regexp.MustCompile(`i/o timeout|context deadline exceeded`), noAnswer},
	{regexp.MustCompile(`context canceled`), "it was stopped"},
	// Values of flags, variables and files.
	{regexp.MustCompile(`strconv\.ParseUint: parsing "-[0-9]+": invalid syntax`), "it must not be negative"},
	{regexp.MustCompile(`strconv\.(?:ParseInt|ParseUint|Atoi): parsing "[^"]*": invalid syntax`), "it is not a whole number"},
	{regexp.MustCompile(`strconv\.ParseFloat: parsing "[^"]*": invalid syntax`), "it is not a number"},
	{regexp.MustCompile(`strconv\.ParseBool: parsing "[^"]*": invalid syntax`), "it is neither true nor false"},
	{regexp.MustCompile(`strconv\.\w+: parsing "[^"]*": value out of range`), "the number is too large"},
	{regexp.MustCompile(`time: (?:invalid duration|unknown unit "[^"]*" in duration|missing unit in duration) "[^"]*"`), "it is not a time like 90s, 30m or 12h"},
	{regexp.MustCompile(`parsing time "([^"]*)"(?: as "[^"]*": cannot parse .* as "[^"]*"|: \w+ out of range)`), `"$1" is not a time like 2026-12-01T00:00:00Z`},
	{regexp.MustCompile(`encoding/hex: (?:invalid byte: \S+ '.'|odd length hex string)`), "it is not hexadecimal"},
	{regexp.MustCompile(`illegal base64 data at input byte \d+`), "it is not base64"},
	{regexp.MustCompile(`toml: (line \d+)`), "$1"},
	{regexp.MustCompile("error parsing regexp: (.*?): `([^`]*)`"), `"$2" is no regular expression: $1`},
	// Files.
	{regexp.MustCompile(`(/[^:\s]*|[^:\s/]+)\.[A-Z2-7]{8}\.tmp\b`), "$1"}, // written before it has its name
	{regexp.MustCompile(`invalid character '.+?' after top-level value`), "something follows its end"},
	{regexp.MustCompile(`invalid character '(.+?)' .*?(\)|$|: )`), "it is not JSON, from the $1 on$2"},
	{regexp.MustCompile(`unexpected end of JSON input|unexpected EOF`), "it ends too early"},
	{regexp.MustCompile(`: EOF($|\)|:)`), ": it ends too early$1"},
	{regexp.MustCompile(`json: unknown field`), "unknown field"},
	{regexp.MustCompile(`proto:[\s\x{a0}]+(?:\(line \d+:\d+\): )?unknown field "([^"]*)"`), `unknown field "$1"`},
	{regexp.MustCompile(`proto:[\s\x{a0}].*`), "it cannot be decoded"}, // the rest is worded otherwise in each build
	{regexp.MustCompile(`archive/tar: invalid tar header|gzip: invalid (?:header|checksum)`), "it is damaged, or no archive of this kind"},
	{regexp.MustCompile(`sqlite: (?:open "([^"]*)"|\w+(?: "[^"]*")?): `), "$1: "},
	{regexp.MustCompile(`database disk image is malformed|file is not a database`), "the database is damaged"},
	{regexp.MustCompile(`database is locked`), "another program uses the database"},
	{regexp.MustCompile(`database or disk is full`), "the disk is full"},
	{regexp.MustCompile(`unable to open database file`), "the database cannot be opened"},
}

var jsonKind = regexp.MustCompile(`json: cannot unmarshal (\w+)(?: [-\d.e+]+)? into Go (?:struct field \w*\.([\w.]+)|value) of type (\S+)`)

// kindWords names a kind of JSON, or the Go type that wants one.
func kindWords(kind string) string {
	switch {
	case kind == "string":
		return "text"
	case kind == "number" || strings.HasPrefix(kind, "float"):
		return "a number"
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "a whole number that fits"
	case kind == "bool":
		return "true or false"
	case kind == "object":
		return "an object"
	case kind == "array" || strings.HasPrefix(kind, "["):
		return "a list"
	}
	return "something else"
}
