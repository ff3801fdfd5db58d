package rounds

import (
	"testing"
	"time"

	"tweedle/services/poet"
)

// In real time: a server that is stopped while a round executes goes on where it
// was, and a round that took registrations is made up for.
func TestRestartGoesOn(t *testing.T) {
	t.Parallel() // it waits most of its time
	cfg := config(t, time.Now().Add(500*time.Millisecond))
	cfg.Schedule.PhaseShift = 300 * time.Millisecond
	cfg.Schedule.EpochDuration = 1500 * time.Millisecond
	cfg.Schedule.CycleGap = 500 * time.Millisecond
	cfg.Work.CheckpointInterval = 50 * time.Millisecond
	s := start(t, cfg)
	receipt := s.register(1)
	time.Sleep(time.Until(cfg.Schedule.Start(0)) + 500*time.Millisecond)
	leaves := s.Rounds()[0].Leaves
	next := s.register(2)
	begin := time.Now()
	s.close()
	t.Logf("stopped in %s", time.Since(begin))
	time.Sleep(1500 * time.Millisecond)
	s = start(t, cfg)
	for range 2 {
		<-s.proofs
	}
	p := s.checkProof("0")
	if p.Message.Proof.NumLeaves < leaves {
		t.Errorf("%d leaves, there were %d before the stop", p.Message.Proof.NumLeaves, leaves)
	}
	if s.count(poet.EventResumed) != 1 {
		t.Error("round did not resume")
	}
	s.checkMember(receipt)
	if next.Round != "1" {
		t.Fatalf("second registration in round %s", next.Round)
	}
	s.checkProof("1")
	s.checkMember(next)
	s.close()
}
