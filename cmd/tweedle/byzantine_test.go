package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"tweedle/edges/smeshing"
	"tweedle/protocol/beacon"
	"tweedle/protocol/core"
	"tweedle/protocol/hare"
	"tweedle/values/codec"
	"tweedle/values/signing"
	"tweedle/values/types"
)

// byzantine is the name under which this test binary is the program with one flag more, of its node:
//
//	--byzantine two-sets@4,withheld-beacon
//
// names lies (lies, below), and the epoch from which on each is told; 0 if none is given. All else of such a
// node is honest: its machine, its store, and what it tells of others.
const byzantine, byzantineFlag = "byzantine", "byzantine"

func byzantineMain() {
	root := rootCommand()
	honest, _, err := root.Find([]string{"node"})
	if err != nil {
		panic(err)
	}
	root.RemoveCommand(honest)
	var f nodeFlags
	var told string
	node := f.command()
	node.Flags().StringVar(&told, byzantineFlag, "", "lies to tell")
	node.PreRunE = func(*cobra.Command, []string) (err error) {
		if told != "" {
			f.cfg.Lies, err = newLiar(&f, told)
		}
		return err
	}
	root.AddCommand(node)
	os.Exit(run(root))
}

// liar changes what the smesher of a node says.
type liar struct {
	f     *nodeFlags
	tells []lie // the first that fits a message is told

	// Known when it first says something: the key and the network file are read by then.
	key      *signing.Signer
	schedule types.Schedule
	hare     hare.Params
	send     func(core.Topic, []byte)
}

// lie is one of lies, and from when on it is told.
type lie struct {
	name string
	from types.Epoch
}

// told is a message of the liar's own.
type told struct {
	topic   core.Topic
	raw     []byte
	epoch   types.Epoch // in which it is said
	content any
}

// lies change a message, or say it otherwise; false leaves it to the next one.
var lies = map[string]func(*liar, told) bool{
	"two-sets":        (*liar).twoSets,
	"two-proposals":   (*liar).twoProposals,
	"two-decisions":   (*liar).twoDecisions,
	"withheld-beacon": (*liar).withheldBeacon,
	"silent":          (*liar).silent,
	"late":            (*liar).late,
}

// proved are the lies that all must know of in the end.
var proved = []string{"two-sets", "two-proposals", "two-decisions"}

func newLiar(f *nodeFlags, list string) (func(func(core.Topic, []byte), core.Topic, []byte), error) {
	l := &liar{f: f}
	for _, one := range strings.Split(list, ",") {
		name, at, _ := strings.Cut(one, "@")
		epoch, err := strconv.ParseUint("0"+at, 10, 32)
		if lies[name] == nil || err != nil {
			return nil, usageError{fmt.Errorf("--%s %q: there are %v, each with @EPOCH", byzantineFlag, one, slices.Sorted(maps.Keys(lies)))}
		}
		l.tells = append(l.tells, lie{name, types.Epoch(epoch)})
	}
	return l.says, nil
}

// says is what a node does with what its machine sends. Only the machine's loop calls it.
func (l *liar) says(send func(core.Topic, []byte), t core.Topic, raw []byte) {
	if l.key == nil {
		if err := l.learn(send); err != nil {
			panic(err)
		}
	}
	m, own := l.read(t, raw)
	if own {
		for _, lie := range l.tells {
			if m.epoch >= lie.from && lies[lie.name](l, m) {
				l.f.cfg.Log.Info("lie", "told", lie.name, "epoch", m.epoch, "about", t.String())
				return
			}
		}
	}
	send(t, raw)
}

func (l *liar) learn(send func(core.Topic, []byte)) error {
	p, err := l.f.cfg.Network.Params()
	if err != nil {
		return err
	}
	all, err := smeshing.Identities(l.f.cfg.Network.ID(), l.f.dir)
	if err != nil {
		return err
	}
	l.key, l.schedule, l.hare, l.send = all[0].Signer, l.f.cfg.Network.Schedule(p), p.Hare(), send
	return nil
}

// read tells whether a message is of the liar's smesher, and what it says.
func (l *liar) read(t core.Topic, raw []byte) (m told, own bool) {
	m = told{topic: t, raw: raw}
	by, layer, err := types.NodeID{}, types.Layer(0), error(nil)
	switch t {
	case core.TopicHare:
		var c hare.Message
		err, m.content = codec.Decode(raw, &c), &c
		by, layer = c.Smesher, c.Layer
	case core.TopicProposal:
		var c types.Proposal
		err, m.content = codec.Decode(raw, &c), &c
		by, layer = c.Ballot.Smesher, c.Ballot.Layer
	case core.TopicDecision:
		var c types.CertifyMessage
		err, m.content = codec.Decode(raw, &c), &c
		by, layer = c.By.Smesher, c.Decision.Layer
	case core.TopicBeacon:
		var c beacon.Message
		err, m.content = codec.Decode(raw, &c), &c
		by, layer = c.Smesher, l.schedule.First(c.Target-1)
	default:
		return m, false
	}
	if err != nil {
		panic(err) // our own machine made it
	}
	m.epoch = l.schedule.EpochOf(layer)
	return m, by == l.key.NodeID()
}

// later says something at a time of the clock.
func (l *liar) later(at time.Time, t core.Topic, raw []byte) {
	time.AfterFunc(time.Until(at), func() { l.send(t, raw) })
}

// edge is how long before the end of a round a message is said that is to be in time for some and not
// for others: about what it needs on loopback.
const edge = 10 * time.Millisecond

// ends is when a round of a message's layer ends.
func (l *liar) ends(m *hare.Message, r hare.Round) time.Time {
	return l.schedule.LayerStart(m.Layer).Add(l.hare.Ends(r))
}

// drawn is an even bit that follows from a message: what it does not decide changes from run to run.
func (m told) drawn() bool { return types.Sum(m.raw)[0]&1 == 0 }

// twoSets signs a second set in each round of Hare. Half of the time both are said at once, else the second one
// at the edge of the round.
func (l *liar) twoSets(m told) bool {
	first, ok := m.content.(*hare.Message)
	if !ok {
		return false
	}
	second := *first
	if second.Set, second.Ref = nil, hare.SetRef(nil); second.Says() == first.Says() {
		second.Set, second.Ref = []types.ProposalID{{1}}, hare.SetRef([]types.ProposalID{{1}})
	}
	second.Signature = l.key.Sign(signing.Hare, hare.SignedBytes(first.Layer, first.Round, second.Says()))
	if m.drawn() {
		l.send(m.topic, codec.Encode(&second))
		l.send(m.topic, m.raw)
		return true
	}
	l.send(m.topic, m.raw)
	l.later(l.ends(first, first.Round).Add(-edge), m.topic, codec.Encode(&second))
	return true
}

// twoProposals signs a second proposal for a layer, on another mesh.
func (l *liar) twoProposals(m told) bool {
	p, ok := m.content.(*types.Proposal)
	if !ok {
		return false
	}
	second := *p
	second.MeshHash[0]++
	second.Signature = l.key.Sign(signing.Proposal, second.SignedBytes())
	l.send(m.topic, codec.Encode(&second))
	l.send(m.topic, m.raw)
	return true
}

// twoDecisions signs a second decision for a layer, of another block.
func (l *liar) twoDecisions(m told) bool {
	d, ok := m.content.(*types.CertifyMessage)
	if !ok {
		return false
	}
	second := *d
	second.Decision.Block[0]++
	second.By.Signature = l.key.Sign(signing.Certify, codec.Encode(&second.Decision))
	l.send(m.topic, codec.Encode(&second))
	l.send(m.topic, m.raw)
	return true
}

// withheldBeacon proposes, and then says neither what it votes for nor its coins.
func (l *liar) withheldBeacon(m told) bool {
	b, ok := m.content.(*beacon.Message)
	return ok && b.Kind != beacon.Propose
}

// silent says nothing in half of the rounds of Hare.
func (l *liar) silent(m told) bool {
	_, ok := m.content.(*hare.Message)
	return ok && m.drawn()
}

// late says what it says in Hare at the edge of its round or in a later one, its proposals at the end of their
// time, and its decisions a layer and a half late.
func (l *liar) late(m told) bool {
	switch c := m.content.(type) {
	case *hare.Message:
		at := l.ends(c, c.Round).Add(-edge)
		if m.drawn() {
			at = at.Add(l.hare.Round)
		}
		l.later(at, m.topic, m.raw)
	case *types.Proposal:
		l.later(l.schedule.LayerStart(c.Ballot.Layer).Add(l.hare.Delay-edge), m.topic, m.raw)
	case *types.CertifyMessage:
		l.later(time.Now().Add(l.schedule.LayerDuration*3/2), m.topic, m.raw)
	default:
		return false
	}
	return true
}

// No program but this test's binary can lie: the flag is not there, and nothing that is no test sets what it does.
func TestTheProgramCannotLie(t *testing.T) {
	cmd, _, err := rootCommand().Find([]string{"node"})
	if err != nil || cmd.Flags().Lookup(byzantineFlag) != nil {
		t.Errorf("%v, or the program has --%s", err, byzantineFlag)
	}
	mentions := 0
	err = filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for i, line := range strings.Split(string(source), "\n") {
			switch at := strings.TrimLeft(path, "./"); {
			case !strings.Contains(line, "cfg.Lies") && !strings.Contains(line, "Lies:") && !strings.Contains(line, ".Lies ="):
			case at == "services/node/drive.go":
				mentions++
			default:
				t.Errorf("%s:%d: %s", at, i+1, line)
			}
		}
		return err
	})
	if err != nil || mentions != 2 { // it is asked for, and called
		t.Errorf("%v, or package node mentions Lies %d times: look where", err, mentions)
	}
}
