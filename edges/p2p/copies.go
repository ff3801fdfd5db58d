package p2p

import (
	"context"
	"slices"
	"sync"
)

// gossipsub takes the first copy of a message, and no other. A peer that floods, and passes on what
// others say, would so decide what is heard of them: its copies wait behind all that it sends, or find no
// room beside it. So who brings a copy while nobody has looked at the message waits for a turn as well,
// and whoever's turn comes first has it looked at; one that nobody had a turn for is looked at when it
// comes again.

const (
	maxBringers = 64   // of one message that wait for a turn; of 21 that come at once one may be honest
	maxUnseen   = 4096 // messages that nobody had a turn for, which are remembered
)

// copies are the messages that are not judged yet, and those that nobody had a turn for.
type copies struct {
	mu     sync.Mutex
	open   map[string]*unjudged // by id
	full   meter
	unseen []*unjudged // those that nobody waits with any more, the oldest first; some are judged by now
}

// unjudged is a message that nobody has judged yet.
type unjudged struct {
	id      string
	all     *copies // whose mu guards what follows
	begun   bool    // somebody's copy is looked at
	idle    bool    // it is in unseen
	bringer []PeerID
	next    int           // of bringer who are not asked yet
	more    chan struct{} // there may be some
}

// begin opens a message. False: it is being judged, by what another topic or an older copy brought.
func (c *copies) begin(id string, from PeerID) (*unjudged, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.open[id]; old != nil && !old.idle {
		return nil, false
	}
	u := &unjudged{id: id, all: c, bringer: []PeerID{from}, next: 1, more: make(chan struct{}, 1)}
	c.open[id] = u
	return u, true
}

// again notes who brings one more copy. True: nobody waits with the message, and it must be judged.
func (c *copies) again(id string, from PeerID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.open[id]
	switch {
	case u == nil || u.begun:
		return false
	case u.idle:
		return true
	case slices.Contains(u.bringer, from):
	case len(u.bringer) >= maxBringers:
		c.full.met(limitCopies)
	default:
		u.bringer = append(u.bringer, from)
		select {
		case u.more <- struct{}{}:
		default:
		}
	}
	return false
}

// another returns one more peer that brings the message, if there is one.
func (u *unjudged) another() (p PeerID, ok bool) {
	u.all.mu.Lock()
	defer u.all.mu.Unlock()
	if u.begun || u.next == len(u.bringer) {
		return p, false
	}
	u.next++
	return u.bringer[u.next-1], true
}

// end forgets a message that is judged.
func (u *unjudged) end() {
	u.all.mu.Lock()
	defer u.all.mu.Unlock()
	delete(u.all.open, u.id)
}

// rest remembers a message that nobody had a turn for, until it comes again. False: one more
// peer has just brought it.
func (u *unjudged) rest() bool {
	c := u.all
	c.mu.Lock()
	defer c.mu.Unlock()
	if u.next < len(u.bringer) {
		return false
	}
	u.idle = true
	c.unseen = append(c.unseen, u)
	if len(c.unseen) > maxUnseen {
		c.full.met(limitCopies)
		if oldest := c.unseen[0]; c.open[oldest.id] == oldest {
			delete(c.open, oldest.id)
		}
		c.unseen = c.unseen[1:]
	}
	return true
}

// turn is one peer's wait for a turn with a message.
type turn struct {
	of   *unjudged
	mine bool // it came; guarded by of.all.mu
}

type turnKey struct{}

// Begin says that a handler begins to look at its message. False: it is looked at for another peer that
// brought it, so the handler returns [Unseen]. Only handlers of a topic with OwnTurn need it.
func Begin(ctx context.Context) bool {
	t, _ := ctx.Value(turnKey{}).(*turn)
	if t == nil {
		return true
	}
	t.of.all.mu.Lock()
	defer t.of.all.mu.Unlock()
	if t.of.begun && !t.mine {
		return false
	}
	t.of.begun, t.mine = true, true
	return true
}

// giveUp lets others have the turn, if it was this one's.
func (t *turn) giveUp() {
	t.of.all.mu.Lock()
	defer t.of.all.mu.Unlock()
	if t.mine {
		t.of.begun, t.mine = false, false
	}
}
