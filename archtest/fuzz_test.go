package archtest

import (
	"go/ast"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Whatever a peer or a client can reach has a fuzz target, which scripts/fuzz.sh runs: a
// decoder, a topic, a request, a service, a page. Who adds one names its target here, or says
// why strangers cannot reach it.
func TestWhatStrangersReachIsFuzzed(t *testing.T) {
	files, err := Load(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	targets := fuzzTargets(t)
	list := fuzzed()
	found := reachable(files)
	for _, name := range slices.Sorted(maps.Keys(found)) {
		by, listed := list[name]
		target, fuzz := strings.CutPrefix(by, "by ")
		switch {
		case !listed:
			t.Errorf("%q has no fuzz target: write one, and name it in archtest/fuzz_test.go", name)
		case fuzz && !targets[target]:
			t.Errorf("%q is said to be fuzzed by %s, which there is not", name, target)
		}
	}
	for name := range list {
		if !found[name] {
			t.Errorf("%q is listed, and not in the code any more", name)
		}
	}
	// The night and `make fuzz-short` run all of them, of no list but the one that the script finds.
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range []string{`(?m)^fuzz-short:.*\n\t\./scripts/fuzz\.sh 15s$`, `(?m)^nightly-fuzz:.*\n\t\$\(MAKE\) --no-print-directory fuzz-short$`} {
		if !regexp.MustCompile(rule).Match(makefile) {
			t.Errorf("the Makefile has no %s", rule)
		}
	}
	if len(found) < 70 {
		t.Errorf("only %d ways in were found", len(found))
	}
}

// fuzzed says of each way in which target tries it: "by FOLDER TARGET", or why none has to.
func fuzzed() map[string]string {
	list := map[string]string{}
	types := func(names ...string) (all []string) {
		for _, n := range names {
			all = append(all, "decoder values/types "+n)
		}
		return all
	}
	for by, names := range map[string][]string{
		// Peers.
		"by edges/p2p FuzzDecodeHello":                {"parser edges/p2p decodeHello"},
		"by edges/p2p FuzzDecodePeers":                {"parser edges/p2p decodePeers", "request edges/p2p servePeers"},
		"by edges/p2p FuzzReadAnswer":                 {"parser edges/p2p readAnswer"},
		"by services/node FuzzHandlersOfPeers":        {"topic services/node onGossip", "request services/node serveAsk", "request services/node servePoet", "decoder services/node poetAnswer"},
		"by protocol/core FuzzMessagesFromTheNetwork": {"parser protocol/core Check", "parser protocol/core VerifySignatures"},
		"by protocol/core FuzzAnswersOfPeers": {
			"parser protocol/core CheckAnswer", "decoder protocol/core ObjectsAnswer", "decoder protocol/core EpochsAnswer", "decoder protocol/core LayersAnswer"},
		"by protocol/core FuzzRequestsOfPeers":                       {"decoder protocol/core Request"},
		"by protocol/hare FuzzHareFromTheNetwork":                    {"decoder protocol/hare Message"},
		"by protocol/beacon FuzzMessagesFromTheNetworkAreBounded":    {"decoder protocol/beacon Message"},
		"by protocol/tortoise FuzzRecord":                            {"decoder protocol/tortoise Record"},
		"by protocol/malfeasance FuzzProofsFromTheNetworkAreBounded": {"decoder protocol/malfeasance Proof"},
		"by protocol/vm FuzzParse":                                   {"parser protocol/vm Parse", "parser protocol/vm VerifySignature"},
		"by protocol/vm FuzzAccount":                                 {"decoder protocol/vm Account"},
		"by values/types FuzzATX":                                    types("ATX", "NIPost", "SubPost", "PostProof", "Marriage"),
		"by values/types FuzzBallot":                                 types("Ballot", "Votes", "Vote", "Eligibility"),
		"by values/types FuzzProposal":                               types("Proposal"),
		"by values/types FuzzBlock":                                  types("Block", "Reward"),
		"by values/types FuzzCertifyMessage":                         types("CertifyMessage", "CertifySignature", "Decision"),
		"by values/types FuzzCertificate":                            types("Certificate"),
		"by values/types FuzzActiveSet":                              types("ActiveSet"),
		"by values/types FuzzPoetChallenge":                          types("PoetChallenge"),
		"by values/types FuzzPoetReceipt":                            types("PoetReceipt"),
		"by values/types FuzzPoetProofMessage":                       types("PoetProofMessage", "PoetProof"),
		"by values/codec FuzzDecode":                                 {"parser values/codec Decode", "parser values/codec DecodeList"},
		"by values/merkle FuzzVerify":                                {"parser values/merkle Verify"},
		"by values/signing FuzzVerify":                               {"parser values/signing VerifyPrefixed", "parser values/signing VerifyVRF"},
		"by proofs/posw FuzzVerify":                                  {"parser proofs/posw Verify"},
		"by proofs/post FuzzVerify":                                  {"parser proofs/post Verify"},
		"by proofs/post FuzzVerifyAll":                               {"parser proofs/post VerifyAll", "parser proofs/post VerifyVRFNonces", "parser protocol/activation VerifyAll", "parser protocol/core CheckSpaces"},
		"by values/types FuzzParseAddress":                           {"parser values/types ParseAddress", "parser values/types CheckHRP"},
		// Clients of a node.
		"by edges/api FuzzCalls": {
			"service edges/api NodeService", "service edges/api MeshService", "service edges/api TransactionService", "service edges/api GlobalStateService",
			"service edges/api GatewayService", "service edges/api DebugService", "service edges/api AdminService"},
		"by edges/api FuzzJSON": {"page edges/front h"},
		"by services/node FuzzPages": {
			"page edges/api GET /status", "page edges/api GET /smesher", "page edges/api GET /peers", "page edges/api GET /layers",
			"page base/telemetry GET /metrics", "page base/telemetry GET /metrics/list"},
		// Clients of a PoET.
		"by services/poet/door FuzzSubmit":     {"service services/poet/door PoetService"},
		"by services/poet/door FuzzCalls":      {"service services/poet/door AdminService", "service services/poet/door ConfigurationService", "parser services/poet ParseRoundID"},
		"by protocol/registration FuzzRequest": {"decoder protocol/registration certificateData"},
		"by services/poet/door FuzzREST": {
			"page services/poet/door /", "page services/poet/door /v1/proofs/{round_id}", "page services/poet/door GET /healthz",
			"page services/poet/door GET /openapi.json", "page services/poet/door GET /version"},
		// Files of a network and of others.
		"by edges/preset FuzzNetworkFile":     {"parser edges/preset parse"},
		"by services/poet/legacy FuzzParse":   {"parser services/poet/legacy parse"},
		"by protocol/activation FuzzOmission": {"decoder protocol/activation Omission"},
		"by protocol/activation FuzzRecord":   {"decoder protocol/activation Record"},
		// What strangers do not reach.
		"the library's own, which fuzzes it": {
			"service edges/api Health", "service services/poet/door Health", "page services/poet/server GET /debug/pprof/", "page services/poet/server GET /debug/pprof/profile", "page services/poet/server GET /debug/pprof/trace"},
		"it reads our own files, whose damage has tests of its own": {
			"decoder edges/smeshing receipts", "parser proofs/post Check", "parser services/poet/book decodeMember", "parser services/poet/book decodePow"},
		"it reads what the operator writes": {"parser services/poet/rounds ParseKey", "parser values/types ParseHex32"},
	} {
		for _, name := range names {
			list[name] = by
		}
	}
	return list
}

// fuzzTargets returns all targets, by folder and name.
func fuzzTargets(t *testing.T) map[string]bool {
	t.Helper()
	targets := map[string]bool{}
	name := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)
	err := fs.WalkDir(os.DirFS(".."), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path.Join("..", file))
		for _, m := range name.FindAllStringSubmatch(string(source), -1) {
			targets[path.Dir(file)+" "+m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return targets
}

// reachable returns the ways in, as "KIND FOLDER NAME".
func reachable(files []File) map[string]bool {
	found := map[string]bool{}
	for _, f := range files {
		if strings.Contains(f.Dir, "/gen/") || strings.HasSuffix(f.Dir, "test") || strings.HasPrefix(f.Dir, "sim") || strings.HasPrefix(f.Dir, "archtest") {
			continue
		}
		floor, _, _ := strings.Cut(f.Dir, "/")
		add := func(kind, name string) { found[kind+" "+f.Dir+" "+name] = true }
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				switch name := n.Name.Name; {
				case name == "DecodeFrom" && n.Recv != nil:
					add("decoder", strings.TrimPrefix(nameOf(n.Recv.List[0].Type), "*"))
				case n.Recv == nil && slices.Contains([]string{"values", "protocol", "proofs"}, floor) && regexp.MustCompile(`^(Decode|Parse|Check|Verify)`).MatchString(name),
					n.Recv == nil && slices.Contains([]string{"edges", "services"}, floor) && regexp.MustCompile(`^(decode|Decode|parse|Parse|readAnswer)`).MatchString(name):
					add("parser", name)
				}
			case *ast.SelectorExpr:
				if m := regexp.MustCompile(`^Register(\w+)Server$`).FindStringSubmatch(n.Sel.Name); m != nil && !strings.HasSuffix(m[1], "Handler") {
					add("service", m[1])
				}
			case *ast.CallExpr:
				called, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || len(n.Args) == 0 {
					break
				}
				last := n.Args[len(n.Args)-1]
				switch called.Sel.Name {
				case "Handle", "HandleFunc", "HandlePath":
					pattern := ""
					for _, a := range n.Args {
						if lit, ok := a.(*ast.BasicLit); ok {
							pattern, _ = strconv.Unquote(lit.Value)
						}
					}
					switch {
					case pattern != "":
						add("page", pattern)
					case called.Sel.Name == "Handle":
						add("request", nameOf(last))
					default:
						add("page", nameOf(last))
					}
				case "Register":
					if lit, ok := n.Args[0].(*ast.CompositeLit); ok && nameOf(lit.Type) == "Topic" {
						add("topic", nameOf(last))
					}
				}
			}
			return true
		})
	}
	return found
}

// nameOf returns the last name of an expression.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.StarExpr:
		return nameOf(e.X)
	case *ast.CallExpr:
		return nameOf(e.Fun)
	}
	return "?"
}
