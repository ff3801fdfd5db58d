package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tweedle/edges/preset"
)

// Each figure in the prose of these pages is one that the program has: the default of a flag, or a constant. So
// who changes it is told to look at the sentence. What was measured is named here with the reason; the other
// pages are generated, or are measurements with their dates.

// claim is a piece of a page, and what its figures come from.
type claim struct{ text, from string }

// A claim's figures come from a flag and its default ("--x=5 of poet"), a file that has a line ("dir/file.go: re"),
// or nothing that a test can look at ("measured: why", "no figure: what it is").
var claims = map[string][]claim{
	"README.md": {
		{"`make fuzz-short` (15 s of each target)", `Makefile: scripts/fuzz\.sh 15s`},
		{"They need Go 1.26 or newer", `go.mod: ^go 1\.26`},
		{"The first block comes 40 s after genesis, with layer 20", `edges/preset/preset.go: LayerDuration: 2 \* time.Second, LayersPerEpoch: 10`},
		{"in epoch 0 smeshers register with a PoET and wait for its round, in epoch 1 they publish their first ATXs, and those count from epoch 2 on", `values/types/time.go: FirstEpochWithBallots += 2|FirstEpochWithBallots Epoch = 2`},
	},
	"docs/poet-operators.md": {
		{"about 1/30,000 of the reference's disk", "measured: docs/performance.md"},
		{"(77 MB in 0.05 to 0.3 s on a busy machine)", "measured: docs/performance.md"},
		{"SIGTERM ends the server within 10 s, in the middle of a round and with a stalled gateway too", `services/poet/server/stalled_test.go: <-time.After\(10 \* time.Second\)`},
		{"(the systemd unit kills after 45 s)", `watch/systemd/tweedle-poet.service: TimeoutStopSec=45`},
		{"In its last 14 days `the TLS certificate expires soon` is said each day", `edges/front/certificate.go: expireSoon = 14 \* 24 \* time.Hour`},
		{"`--gateway-slots` (5) of the live ones", "--gateway-slots=5 of poet"},
		{"`--broadcast-acks` (2) took it", "--broadcast-acks=2 of poet"},
		{"(`--gateway`, a node's `--grpc-listen`, 9092)", "--grpc-listen=127.0.0.1:9092 of node"},
		{"| localhost:8080, or", "--restlisten=localhost:8080 of poet"},
		{"| localhost:50002, or", "--rpclisten=localhost:50002 of poet"},
		{"| localhost:50001,", "--config-rpclisten=localhost:50001 of poet"},
		{"32 MiB (`--ballast-bytes`)", "--ballast-bytes=33554432 of poet"},
		{"| `poet_disk_rounds_fit` below 2, `poet_disk_ballast` 0 |", `watch/rules/poet.yml: poet_disk_rounds_fit < 2 .*poet_disk_ballast == 0`},
		{"`poet_gateways{state=\"live\"}` is 0", `watch/rules/poet.yml: poet_gateways\{state="live"\} == 0`},
		{"the rate of `poet_round_leaves_total` is 0 while a round executes", `watch/rules/poet.yml: rate\(poet_round_leaves_total\[2m\]\)\) == 0`},
		{"`poet_journals_paused` above 0", `watch/rules/poet.yml: poet_journals_paused > 0`},
		{"fewer than 3 rounds that fit", `services/poet/poet.go: MinRoundsFit = 3`},
		{"registrations answered 503", "no figure: a status of HTTP"},
		{"| 20 requests a second, 200 at once, of an address | 429 |", `services/poet/door/door.go: Rate: 20, Burst: 200`},
		{"| 1024, gRPC and REST together |", "--max-connections=1024 of poet"},
		{"| 16 of an address |", "--address-connections=16 of poet"},
		{"| 2048 answered at a time, 64 of an address | 429 |", "--max-calls=2048 of poet"},
		{"| 2048 answered at a time, 64 of an address | 429 |", "--address-calls=64 of poet"},
		{"| 64 MiB of answers that nobody has read yet, 4 MiB of an address | 429 |", "--max-replies=67108864 of poet"},
		{"| 64 MiB of answers that nobody has read yet, 4 MiB of an address | 429 |", "--address-replies=4194304 of poet"},
		{"| one registration a second of a key, 20 at once | 429 |", "--key-rate=1 of poet"},
		{"| 30 s to take an answer, and a second for each 32 KiB of it |", "--send-time=30s of poet"},
		{"| 30 s to take an answer, and a second for each 32 KiB of it |", `services/poet/door/door.go: Speed: 32 << 10`},
		{"| 16 KiB of a request over gRPC, and of one over REST | 429, 413 |", "--max-message=16384 of poet"},
		{"| 16 KiB of a request over gRPC, and of one over REST | 429, 413 |", "--max-body=16384 of poet"},
		{"| 16 KiB of the headers of a request | 431;", "--max-header=16384 of poet"},
		{"| 16 requests at a time on one gRPC connection |", "--max-streams=16 of poet"},
		{"| 10 s for a request to arrive | the call is cancelled, 400 |", "--request-time=10s of poet"},
		{"| 5 s for a connection to say what it wants:", "--handshake-time=5s of poet"},
		{"over gRPC 429, or the call is cut off", "no figure: a status"},
		{"speak TLS 1.2 and 1.3, and no plain text", `edges/front/certificate.go: MinVersion: tls.VersionTLS12`},
		{"The key has mode 0600, else the server does not start", "no figure: a file mode"},
		{"at most once a second: a renewed certificate needs no restart", `edges/front/certificate.go: lookAgain = time.Second`},
		{"over a socket, of mode 0660", `edges/front/listen.go: listenUnix\(path, 0o660,`},
		{"20 requests a second of an address, 100 at once, 16 connections", `edges/front/serve.go: Rate: 20, Burst: 100`},
		{"20 requests a second of an address, 100 at once, 16 connections", `edges/front/serve.go: AddressConnections: 16`},
		{"an IPv4 address or an IPv6 /64; all /64s of one /48 have four times that together", `edges/front/front.go: networkShare = 4`},
		{"at most 16 calls go over one gRPC connection at a time", `services/poet/door/door.go: Streams: 16`},
		{"with 500 requests a second, 1,000 at once and 32 connections of an address", "--rate-limit=500 of node"},
		{"with 500 requests a second, 1,000 at once and 32 connections of an address", "--address-connections=32 of node"},
		{"with 500 requests a second, 1,000 at once and 32 connections of an address", `edges/api/limits.go: Rate: 500, Burst: 1000`},
	},
	"docs/smeshers.md": {
		{"Peers reach you on UDP 7513", "--listen=[/ip4/0.0.0.0/udp/7513/quic-v1] of node"},
		{"with up to 16 identities", `edges/smeshing/keys.go: MaxIdentities = 16`},
		{"exits with status 1", "no figure: of a command that failed, docs/json.md"},
		{"0600 (another mode is refused)", "no figure: a file mode"},
	},
	"docs/drills.md": {
		{"crashes are told in 10 s", `services/testnet/drill/tweedledee.go: "each crash is told", Within: 10 \* time.Second`},
		{"one node of five for 24 s, then two of five for 12 s", `services/testnet/drill/parted.go: aloneFor += 24 \* time.Second`},
		{"one node of five for 24 s, then two of five for 12 s", `services/testnet/drill/parted.go: partedFor = 12 \* time.Second`},
		{"(24 MiB each, in memory; root)", `services/testnet/drill/tweedledee.go: poetDisk += 24 << 20`},
		{"all waiting proofs go out within 15 seconds", `services/testnet/drill/tweedledee.go: all waiting proofs go out within 15 s`},
	},
	"docs/page.md": {
		{"(127.0.0.1:9096 unless `listen` says otherwise)", `watch/config/config.go: Listen: "127.0.0.1:9096"`},
		{"files, 25 kB compressed,", "measured: the page's test of its size"},
		{"With more than 64 nodes those with trouble come first", `watch/page/seen.go: mostShown = 64`},
		{"fewer than 70 % of the one before", `watch/page/model.go: atxDrop += 0\.7`},
		{"the last 300 lines", `watch/page/story.go: maxEvents = 300`},
		{"64 at a time, 4 s for all", `watch/page/look.go: lookers += 64`},
		{"64 at a time, 4 s for all", `watch/page/look.go: lookTimeout += 4 \* time.Second`},
		{"over made-up networks of 1, 5 and 500 nodes", "no figure: the sizes of a test"},
		{"Of a page of 500 nodes and 100 layers that change each second, the longest task took 27 ms of processor time; by the clock it was 244 ms on a machine with a load of 35 on two cores, and 48 ms in a nightly run that had the machine for itself.", "measured: docs/performance.md"},
		{"**137 ms** after the HTML in the median of eleven new browser windows, where an **empty page with the same headers took 71 ms**: a new process and its first frame. So the 100 ms that are asked of the page are judged by the difference: 66 ms (53 to 100 in other runs, the last at a load of 4).", "measured: docs/performance.md"},
		{"keeps the last 200 that supervisors told", `watch/page/deaths.go: maxDeaths = 200`},
	},
}

// noFigure is what has digits and is no figure: names, and the incident's date.
var noFigure = regexp.MustCompile(`SHA-256|RFC 3339|IPv[46]|August 2020|\(docs/decisions/\d+-|mode 0600|base64|(?:In|of|in) 2020|HTTP/\d|Apache-2\.0|X25519|BLAKE3|\bEd25519`)

// dated are the numbers of lists, and lines that have the date of their measurement.
var dated = regexp.MustCompile(`(?m)^ *\d+\. |^.*\d{4}-\d\d-\d\d.*$`)

// prose returns a page without its blocks of commands, which have a test of their own.
func prose(page string) string {
	page = regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(page, "")
	return regexp.MustCompile(`(?m)^ {4}.*$`).ReplaceAllString(page, "")
}

// spaced makes one space of each run of white space.
func spaced(s string) string { return strings.Join(strings.Fields(s), " ") }

// wrong tells why a claim's figures are not what the code has.
func (c claim) wrong() error {
	if m := regexp.MustCompile(`^--([\w-]+)=(\S+) of (.+)$`).FindStringSubmatch(c.from); m != nil {
		cmd, _, err := rootCommand().Find(strings.Fields(m[3]))
		if err != nil {
			return err
		}
		f := cmd.Flag(m[1])
		if f == nil || f.DefValue != m[2] {
			return fmt.Errorf("the default of --%s of %s is not %s: %+v", m[1], m[3], m[2], f)
		}
		return nil
	}
	kind, rest, _ := strings.Cut(c.from, ": ")
	if kind == "measured" || kind == "no figure" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(repository, kind))
	if err != nil {
		return err
	}
	if !regexp.MustCompile("(?m)" + rest).Match(b) {
		return fmt.Errorf("%s has no %q", kind, rest)
	}
	return nil
}

func TestEachFigureInProseIsOneOfTheProgram(t *testing.T) {
	for name, all := range claims {
		b, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			t.Fatal(err)
		}
		joined := spaced(dated.ReplaceAllString(prose(string(b)), ""))
		for _, c := range all {
			if !strings.Contains(joined, spaced(c.text)) {
				t.Errorf("%s does not say any more: %s", name, c.text)
			}
			if err := c.wrong(); err != nil {
				t.Errorf("%s says: %s: %v", name, c.text, err)
			}
		}
		left := joined
		for _, c := range all {
			left = strings.ReplaceAll(left, spaced(c.text), "")
		}
		left = noFigure.ReplaceAllString(left, "")
		left = regexp.MustCompile("`[^`]*`").ReplaceAllString(left, "")
		for _, m := range regexp.MustCompile(`.{0,60}\d.{0,40}`).FindAllString(left, -1) {
			t.Errorf("%s has a figure that nothing holds against the program: %s", name, m)
		}
	}
	if p := preset.Local(); time.Duration(p.LayersPerEpoch)*2*p.LayerDuration != 40*time.Second {
		t.Error("the first block of the local preset comes at another time than README.md says")
	}
}
