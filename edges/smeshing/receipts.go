package smeshing

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"tweedle/base/durable"
	"tweedle/edges/api/gen/poetpb"
	"tweedle/edges/store"
	"tweedle/protocol/activation"
	"tweedle/values/codec"
	"tweedle/values/types"
)

const (
	// stepReceipts is the name of the receipts in local.db.
	stepReceipts = "receipts"
	// maxReceipts bounds those that are kept, the newest: what every PoET of a
	// smesher signs for an epoch (activation.MaxRegistrations), and as many again.
	maxReceipts = 2 * activation.MaxRegistrations
)

// errNoReceipt says that a PoET took a registration and signed nothing: those of
// the reference do not.
var errNoReceipt = errors.New("it gave no receipt: if its round leaves us out, nothing will show it")

// receiptOf reads the receipt in an answer to a registration. poet is the PoET's
// own name. The error says why the receipt is worth nothing.
func receiptOf(in *poetpb.Receipt, round string, id, poet types.NodeID, challenge types.Hash32) (*types.PoetReceipt, error) {
	if in == nil {
		return nil, errNoReceipt
	}
	r := &types.PoetReceipt{Round: in.GetRoundId(), Time: time.UnixMilli(in.GetTime())}
	fits := copy(r.NodeID[:], in.GetPubkey()) == len(in.GetPubkey()) && copy(r.Challenge[:], in.GetChallenge()) == len(in.GetChallenge()) &&
		copy(r.PoetID[:], in.GetServicePubkey()) == len(in.GetServicePubkey()) && copy(r.Signature[:], in.GetSignature()) == len(in.GetSignature())
	switch {
	case !fits || r.Round != round || r.NodeID != id || r.Challenge != challenge:
		return nil, errors.New("its receipt is for something else")
	case r.PoetID != poet:
		return nil, fmt.Errorf("its receipt is of PoET %s, and it calls itself %s", r.PoetID.Short(), poet.Short())
	case !r.Verify():
		return nil, errors.New("the signature of its receipt is wrong")
	}
	return r, nil
}

// receive verifies what a PoET signed for a registration and keeps it: before
// that, the registration does not count. A PoET that signed nothing, or something
// that is worth nothing, is warned of and taken: its word is worth no less than
// that of a PoET of the reference.
func (s *Smesher) receive(ctx context.Context, c *client, round string, signed *poetpb.Receipt, challenge types.Hash32) error {
	var poet types.NodeID
	err := errNoReceipt
	if signed != nil {
		poet, err = c.serviceID(ctx)
	}
	var r *types.PoetReceipt
	if err == nil {
		r, err = receiptOf(signed, round, s.id, poet, challenge)
	}
	if errors.Is(err, errNoReceipt) {
		c.judge(nil) // as the reference's
	} else {
		c.judge(err)
	}
	if err != nil {
		s.log.Warn("no receipt of a PoET", "poet", c.base, "round", round, "err", err)
		return nil
	}
	return s.keepReceipt(c.base, r)
}

// poetRound names a round of a PoET.
type poetRound struct{ poet, round string }

// receipts is what is stored of them, oldest first.
type receipts []kept

type kept struct {
	poet    string // as configured
	receipt types.PoetReceipt
}

func (l *receipts) EncodeTo(e *codec.Encoder) {
	e.Compact(uint64(len(*l)))
	for i := range *l {
		e.String((*l)[i].poet)
		(*l)[i].receipt.EncodeTo(e)
	}
}

func (l *receipts) DecodeFrom(d *codec.Decoder) {
	for range d.Count(maxReceipts) {
		k := kept{poet: d.String(activation.MaxPoetName)}
		k.receipt.DecodeFrom(d)
		*l = append(*l, k)
	}
}

func (s *Smesher) loadReceipts() (l receipts, err error) {
	err = s.cfg.Store.LoadStep(s.id, stepReceipts, &l)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return l, err
}

// keepReceipt makes a receipt durable. If we stop before that, the registration
// does not count, and the PoET gives the same receipt again.
func (s *Smesher) keepReceipt(poet string, r *types.PoetReceipt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.loadReceipts()
	if err != nil {
		return err
	}
	l = append(l, kept{poet, *r})
	l = l[max(0, len(l)-maxReceipts):]
	return s.cfg.Store.SaveStep(s.id, stepReceipts, &l)
}

// omitted handles a round's proof that does not cover a challenge which the PoET
// took: it writes the evidence into a file, and says so once. The error says what
// there is.
func (s *Smesher) omitted(r activation.Registration, challenge types.Hash32, p *proof) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	const claim = "its round leaves our challenge out, though it took it"
	key := poetRound{r.Poet, r.Round}
	if path := s.accused[key]; path != "" {
		return fmt.Errorf("%s; the evidence is in %s", claim, path)
	}
	l, err := s.loadReceipts()
	if err != nil {
		return err
	}
	o := activation.Omission{Proof: p.msg}
	for _, k := range l {
		if k.poet == r.Poet && k.receipt.Round == r.Round && k.receipt.Challenge == challenge {
			o.Receipt = k.receipt
		}
	}
	if o.Receipt.Round == "" {
		return errors.New(claim + " and signed nothing")
	}
	for _, m := range p.members {
		o.Members = append(o.Members, m)
	}
	if err := o.Verify(); err != nil {
		return fmt.Errorf("%s, and the evidence does not hold: %w", claim, err)
	}
	path := filepath.Join(s.cfg.Evidence, fmt.Sprintf("%s-%s.omission", hex.EncodeToString(o.Receipt.PoetID[:8]), o.Receipt.Round))
	err = (durable.OS{}).Mkdir(filepath.Dir(path), 0o700)
	if err == nil {
		err = durable.WriteFile(durable.OS{}, path, codec.Encode(&o), 0o600)
	}
	if err != nil {
		return fmt.Errorf("%s, and the evidence cannot be written: %w", claim, err)
	}
	s.accused[key] = path
	s.log.Error("a PoET signed for our challenge and left it out of its round: show the evidence to others, `tweedle poet evidence FILE` verifies it",
		"poet", r.Poet, "key", o.Receipt.PoetID, "round", r.Round, "evidence", path)
	return fmt.Errorf("%s; the evidence is in %s", claim, path)
}
