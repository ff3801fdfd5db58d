package smeshing

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"tweedle/base/durable"
	"tweedle/proofs/post"
	"tweedle/protocol/activation"
	"tweedle/values/types"
)

// checkSpace compares what is wanted, what the record says and what the disk
// has. The metadata beside the labels says what they are: units, commitment and
// nonce are taken from there, so that losing the record costs no space, and
// losing the space no identity.
func (s *Smesher) checkSpace(rec *activation.Record) error {
	dir, asked := s.cfg.Dir, s.cfg.NumUnits
	if s.cfg.NumUnits == 0 {
		s.cfg.NumUnits = s.rules.Post.MinUnits
	}
	meta, err := post.ReadMetadata(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.noSpace(rec, asked)
	case err != nil:
		return err
	case meta.NodeID != s.id:
		return fmt.Errorf("space in %s is of identity %x, ours is %s: restore that identity.key, or move the space away", dir, meta.NodeID, s.id)
	case meta.LabelsPerUnit != s.rules.Post.LabelsPerUnit:
		return fmt.Errorf("space in %s has units of %d labels, the network's have %d: it is of another network, move it away", dir, meta.LabelsPerUnit, s.rules.Post.LabelsPerUnit)
	case asked != 0 && asked != meta.NumUnits:
		return fmt.Errorf("space in %s was made for %d units, not %d: ask for --units %d or for none, or move it away", dir, meta.NumUnits, asked, meta.NumUnits)
	}
	s.cfg.NumUnits = meta.NumUnits
	commitment := types.ATXID(meta.CommitmentATX)
	s.commitment = &commitment
	if rec.Space == nil {
		return nil // it is made, or only the record of it is lost
	}
	if rec.Space.CommitmentATX != commitment || rec.Space.NumUnits != meta.NumUnits || meta.Nonce == nil || rec.Space.VRFNonce != *meta.Nonce {
		s.log.Warn("space is another one than the record says: it is proved anew", "dir", dir)
		rec.Space = nil
		return nil
	}
	if _, err := post.Open(dir); err != nil {
		return fmt.Errorf("%w, or delete %s to have it filled again", err, dir)
	}
	return nil
}

// noSpace is checkSpace for a folder without metadata. What was filled before
// is filled again with the same labels, but only where somebody wants that: a
// folder that is not there may be a disk that is not mounted.
func (s *Smesher) noSpace(rec *activation.Record, asked uint32) error {
	dir := s.cfg.Dir
	if files, err := filepath.Glob(filepath.Join(dir, "postdata_*.bin")); err == nil && len(files) > 0 {
		return fmt.Errorf("space in %s has labels but no %s: restore that file, or delete %s to have it filled again", dir, post.MetadataFile, dir)
	}
	if rec.Space == nil {
		return nil
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("space in %s is gone: make its disk available, or create the empty folder to have it filled again", dir)
	}
	if asked != 0 && asked != rec.Space.NumUnits {
		return fmt.Errorf("space in %s had %d units, not %d: ask for --units %d or for none", dir, rec.Space.NumUnits, asked, rec.Space.NumUnits)
	}
	s.log.Warn("space is empty: it is filled again", "dir", dir, "units", rec.Space.NumUnits)
	commitment := rec.Space.CommitmentATX
	s.commitment, s.cfg.NumUnits = &commitment, rec.Space.NumUnits
	rec.Space = nil
	return nil
}

// bind chooses what the labels are bound to. If we stop before the first of
// them is written, it is chosen again.
func (s *Smesher) bind() (types.ATXID, error) {
	if s.commitment != nil {
		id := *s.commitment
		if _, err := s.cfg.Store.ATXRecord(id); id != s.rules.Golden && err != nil {
			return id, fmt.Errorf("space in %s is bound to ATX %s, which is not known here: if the node is synced the space is of another network, move it away", s.cfg.Dir, id)
		}
		return id, nil
	}
	chosen := s.rules.Golden
	if own, err := s.cfg.Store.LastATX(s.id); err == nil {
		chosen = own.CommitmentATX // to which an identity is bound for ever
	} else if highest, ok := s.cfg.Node.Highest(s.schedule.EpochAt(s.cfg.Now())); ok {
		chosen = highest
	}
	s.commitment = &chosen
	return chosen, nil
}

// initialize fills the space and proves it for the zero challenge.
func (s *Smesher) initialize(ctx context.Context) (activation.Input, error) {
	commitment, err := s.bind()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := s.room(); err != nil {
		return nil, err
	}
	// "tweedle post" may be at work on it.
	lock, err := durable.Lock(s.cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	var meta post.Metadata
	err = s.atTurn(ctx, false, func(cancel func() bool) error {
		started := time.Now()
		meta, err = post.Init(s.cfg.Dir, s.rules.Post, post.Setup{
			NodeID: s.id, CommitmentATX: commitment, NumUnits: s.cfg.NumUnits,
		}, post.InitOptions{
			Workers: s.cfg.Workers, Cancel: cancel,
			Progress: func(p post.InitProgress) {
				left := p.Left(time.Since(started))
				s.say(float64(p.Done)/float64(max(p.Total, 1)), fmt.Sprintf("%d of %d labels, %v left", p.Done, p.Total, left.Round(time.Second)))
			},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if meta.Nonce == nil {
		return nil, errors.New("space is initialized but has no VRF nonce")
	}
	proof, err := s.prove(ctx, types.PoetProofRef{})
	if err != nil {
		return nil, err
	}
	return activation.Initialized{Space: activation.Space{
		CommitmentATX: commitment, NumUnits: s.cfg.NumUnits, VRFNonce: *meta.Nonce, Post: proof,
	}}, nil
}

// room tells whether the disk has room for what is not filled yet. It is looked
// at again with every try.
func (s *Smesher) room() error {
	err := post.Room(s.cfg.Dir, s.rules.Post, post.Setup{NumUnits: s.cfg.NumUnits})
	if full := (*post.NoRoomError)(nil); errors.As(err, &full) {
		return fmt.Errorf("%w, it goes on by itself", err)
	}
	return err
}

// glance computes a label of each file anew, another one for each challenge, so that files
// that were swapped, are of another space or cannot be read are named before they are proved:
// the proof does without what is damaged, as long as enough is left.
func (s *Smesher) glance(challenge types.PoetProofRef, cancel func() bool) error {
	_, err := post.Check(s.cfg.Dir, s.rules.Post, post.CheckOptions{
		Fraction: math.SmallestNonzeroFloat64, Seed: binary.LittleEndian.Uint64(challenge[:]), Cancel: cancel,
		Found: func(err error) {
			s.log.Error("space is damaged: look at all of it with \"tweedle post verify\", and mend it with \"tweedle post repair\"", "err", err)
		},
	})
	return err
}

// prove proves the space for a challenge, which is zero while no ATX waits for it.
func (s *Smesher) prove(ctx context.Context, challenge types.PoetProofRef) (types.PostProof, error) {
	var p post.Proof
	err := s.atTurn(ctx, challenge != types.PoetProofRef{}, func(cancel func() bool) error {
		if err := s.glance(challenge, cancel); err != nil {
			return err
		}
		data, err := post.Open(s.cfg.Dir)
		if err != nil {
			return err
		}
		p, err = data.Prove(challenge, s.rules.Post, post.ProveOptions{
			Workers: s.cfg.Workers, Cancel: cancel,
			Progress: func(p post.ProveProgress) {
				s.say(float64(p.Done)/float64(max(p.Total, 1)), fmt.Sprintf("proving, nonces %d to %d", p.FirstNonce, p.EndNonce))
			},
			Lost: func(err error) { s.log.Warn("the proof does without a place that the disk lost", "err", err) },
		})
		return err
	})
	return types.PostProof{Nonce: p.Nonce, Indices: p.Indices, Pow: p.Pow}, err
}
