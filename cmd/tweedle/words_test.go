package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"zombiezen.com/go/sqlite"

	"tweedle/base/durable"
	"tweedle/base/sealed"
	"tweedle/base/words"
)

// raw finds what only the programmer of a library understands.
var raw = regexp.MustCompile(`strconv\.|rpc error|desc =|transport:|json: |proto:|Go struct|Go value|dial (?:tcp|udp|unix)|listen tcp|lookup |invalid character|unexpected E|unexpected end|\bEOF\b|time: |parsing |context (?:deadline|canceled)|i/o timeout|encoding/|archive/|gzip:|toml: |\.tmp\b|multiaddr "|sqlite:|server preface|[\n\t]`)

// Each error here is one of the library itself, wrapped as a command would. It is said in words.
func TestErrorsOfLibrariesAreSaidInWords(t *testing.T) {
	dir := t.TempDir()
	rude := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer rude.Close()
	closed := func() string { // an address at which nobody listens
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}()
	web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer web.Close()
	silent := strings.TrimPrefix(web.URL, "http://")
	type outer struct {
		Name string `json:"name"`
		In   struct {
			Count uint32  `json:"count"`
			Yes   bool    `json:"yes"`
			Part  float64 `json:"part"`
			List  []int   `json:"list"`
		} `json:"in"`
	}
	var v outer
	unmarshal := func(text string) error { return json.Unmarshal([]byte(text), &v) }
	strict := func(text string) error {
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		return d.Decode(&v)
	}
	get := func(url string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err == nil {
			_ = res.Body.Close()
		}
		return err
	}
	invoke := func(addr string) error {
		conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return conn.Invoke(ctx, "/x/y", &wrapperspb.BytesValue{}, &wrapperspb.BytesValue{})
	}
	second := func(_ any, err error) error { return err }
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	database := func(path string) error {
		db, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
		if err == nil {
			_, err = db.Prepare("SELECT * FROM sqlite_master")
			_ = db.Close()
		}
		return err
	}
	flag := func(args ...string) error {
		root := rootCommand()
		root.SetArgs(args)
		root.SetOut(io.Discard)
		return root.ExecuteContext(t.Context())
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"flag: whole number":    {flag("node", "--units", "many"), `"many" for "--units" flag: it is not a whole number`},
		"flag: negative":        {flag("node", "--units", "-1"), "it must not be negative"},
		"flag: too large":       {flag("testnet", "up", "--nodes", "99999999999999999999"), "the number is too large"},
		"flag: number":          {flag("testnet", "up", "--tx-rate", "fast"), `"--tx-rate" flag: it is not a number`},
		"flag: duration":        {flag("wallet", "send", "--timeout", "soon"), `"--timeout" flag: it is not a time like 90s, 30m or 12h`},
		"flag: no unit":         {flag("wallet", "send", "--timeout", "10"), "it is not a time like 90s"},
		"flag: odd unit":        {flag("wallet", "send", "--timeout", "10y"), "it is not a time like 90s"},
		"flag: switch":          {flag("node", "--smeshing=perhaps"), "it is neither true nor false"},
		"flag: level":           {flag("node", "--dir", dir, "--network", "n", "--log-level", "loud"), `--log-level "loud": choose debug, info, warn or error`},
		"flag: expression":      {flag("testnet", "logs", "--grep", "a(b"), `--grep: "a(b" is no regular expression: missing closing )`},
		"flag: since":           {flag("testnet", "logs", "--since", "lately"), `--since "lately": give how long ago, like 5m`},
		"time":                  {second(time.Parse(time.RFC3339, "tomorrow")), `"tomorrow" is not a time like 2026-12-01T00:00:00Z`},
		"time: month":           {second(time.Parse(time.RFC3339, "2026-13-01T00:00:00Z")), `"2026-13-01T00:00:00Z" is not a time like`},
		"atoi":                  {second(strconv.Atoi("x")), "it is not a whole number"},
		"hex":                   {second(hex.DecodeString("zz")), "it is not hexadecimal"},
		"hex: odd":              {second(hex.DecodeString("abc")), "it is not hexadecimal"},
		"base64":                {second(base64.StdEncoding.DecodeString("%")), "it is not base64"},
		"JSON: none":            {unmarshal("hello"), "it is not JSON, from the h on"},
		"JSON: a bit":           {unmarshal(`{"name": "a" "b"}`), `it is not JSON, from the " on`},
		"JSON: short":           {unmarshal(`{"name":`), "it ends too early"},
		"JSON: read":            {strict(`{"name":`), "it ends too early"},
		"JSON: empty":           {strict(``), "it ends too early"},
		"JSON: text":            {unmarshal(`{"name": 3}`), `"name" is a number, and should be text`},
		"JSON: count":           {unmarshal(`{"in": {"count": "x"}}`), `"in.count" is text, and should be a whole number`},
		"JSON: negative":        {unmarshal(`{"in": {"count": -1}}`), `"in.count" is a number, and should be a whole number that fits`},
		"JSON: switch":          {unmarshal(`{"in": {"yes": []}}`), `"in.yes" is a list, and should be true or false`},
		"JSON: part":            {unmarshal(`{"in": {"part": true}}`), `"in.part" is true or false, and should be a number`},
		"JSON: list":            {unmarshal(`{"in": {"list": {}}}`), `"in.list" is an object, and should be a list`},
		"JSON: whole":           {unmarshal(`[]`), `it is a list, and should be`},
		"JSON: unknown":         {strict(`{"nane": 1}`), `unknown field "nane"`},
		"TOML":                  {toml.Unmarshal([]byte("x = ["), &map[string]any{}), "line 1"},
		"protobuf":              {proto.Unmarshal([]byte{0xff}, &wrapperspb.BytesValue{}), "it cannot be decoded"},
		"HTTP: nobody":          {get("http://" + closed + "/x"), "http://" + closed + "/x: nobody listens at " + closed},
		"HTTP: late":            {get(web.URL), "there was no answer in time"},
		"HTTP: no answer":       {get(rude.URL), "the connection ended without an answer"},
		"HTTP: host":            {get("http://no-such-host.invalid/"), `no-such-host.invalid`},
		"HTTP: TLS":             {get("https://" + silent), `it speaks http://, not https://`},
		"gRPC: nobody":          {invoke(closed), "nobody listens at " + closed},
		"gRPC: a name":          {invoke("no-such-host.invalid:1"), `no-such-host.invalid`},
		"gRPC: a port":          {invoke("127.0.0.1:x"), `"x" is no port`},
		"gRPC: no port":         {invoke("127.0.0.1"), `"127.0.0.1" is not host:port`},
		"socket: none":          {second(net.Dial("unix", filepath.Join(dir, "none"))), "nobody listens at " + filepath.Join(dir, "none")},
		"listen: port":          {second(net.Listen("tcp", "127.0.0.1:99999")), `"99999" is no port`},
		"listen: no port":       {second(net.Listen("tcp", "127.0.0.1")), `"127.0.0.1" is not host:port`},
		"context":               {context.DeadlineExceeded, "there was no answer in time"},
		"stopped":               {context.Canceled, "it was stopped"},
		"SQLite: other":         {database(write("other.db", strings.Repeat("no database ", 1000))), "the database is damaged"},
		"SQLite: none":          {database(filepath.Join(dir, "none.db")), "the database cannot be opened"},
		"tar":                   {second(tar.NewReader(strings.NewReader(strings.Repeat("x", 1024))).Next()), "it is damaged, or no archive"},
		"gzip":                  {second(gzip.NewReader(strings.NewReader("this is no gzip"))), "it is damaged, or no archive"},
		"gzip: short":           {second(gzip.NewReader(strings.NewReader("\x1f"))), "it ends too early"},
		"a folder that is none": {durable.NewSecret(durable.OS{}, filepath.Join(dir, "none", "wallet.key"), []byte("x")), filepath.Join("none", "wallet.key") + ": no such file or directory"},
	} {
		if c.err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		got := words.Of(fmt.Errorf("config file x: %w", c.err))
		if !strings.Contains(got, c.want) || raw.MatchString(got) {
			t.Errorf("%s: %q, want %q; it was %q", name, got, c.want, c.err)
		}
	}
	// bbolt's never come so far: what it cannot read is named by our own check before it is asked.
	path := write("poet.db", strings.Repeat("no database ", 1000))
	_, err := sealed.Open(path, sealed.Options{})
	if err == nil || raw.MatchString(words.Of(err)) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a database that is none: %v", err)
	}
	// What is ours stays as it is.
	for _, s := range []string{`node 127.0.0.1:9092: nonce is too low`, `give --dir and --network`, `x.key exists: choose another file with --key, a key is never overwritten`} {
		if got := words.Of(errors.New(s)); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}
