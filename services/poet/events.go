package poet

import (
	"context"
	"log/slog"
)

// Event is something that an operator may want to know.
type Event struct {
	Kind    EventKind
	Round   string // empty if it is about none
	Gateway string // its address; empty if it is about none
	Text    string // one line
	Err     error  // nil unless something went wrong
}

// EventKind names the kinds of events; they are stable, alert rules use them.
type EventKind string

// The kinds of events.
const (
	EventOpened            EventKind = "round_opened"
	EventClosed            EventKind = "round_closed"
	EventExecuting         EventKind = "round_executing"
	EventProgress          EventKind = "round_progress"
	EventProving           EventKind = "round_proving"
	EventProved            EventKind = "round_proved"
	EventOverdue           EventKind = "proof_overdue"
	EventResumed           EventKind = "round_resumed"
	EventDamage            EventKind = "damage_found"
	EventJournalPaused     EventKind = "journal_paused"
	EventJournalResumed    EventKind = "journal_resumed"
	EventDiskLow           EventKind = "disk_low"
	EventDiskFine          EventKind = "disk_fine"
	EventDiskFull          EventKind = "disk_full"
	EventBallast           EventKind = "ballast_released"
	EventWriteFailed       EventKind = "write_failed"
	EventClockJumped       EventKind = "clock_jumped"
	EventClockFollowed     EventKind = "clock_followed"
	EventJournalUnreadable EventKind = "journal_unreadable"
	EventProofRefused      EventKind = "proof_refused"
	EventClockChecked      EventKind = "clock_checked"
	EventStrayed           EventKind = "round_strayed"
)

// EventKinds lists the kinds of events.
func EventKinds() []EventKind {
	return []EventKind{
		EventOpened, EventClosed, EventExecuting, EventProgress, EventProving,
		EventProved, EventOverdue, EventResumed, EventDamage, EventJournalPaused,
		EventJournalResumed, EventDiskLow, EventDiskFine, EventDiskFull, EventBallast,
		EventWriteFailed, EventClockJumped, EventClockFollowed, EventJournalUnreadable, EventProofRefused,
		EventClockChecked, EventStrayed,
	}
}

// Tell logs an event; log may be nil.
func Tell(log *slog.Logger, e Event) {
	if log == nil {
		return
	}
	level := slog.LevelInfo
	if e.Err != nil {
		level = slog.LevelError
	}
	attrs := []slog.Attr{slog.String("event", string(e.Kind))}
	if e.Round != "" {
		attrs = append(attrs, slog.String("round", e.Round))
	}
	if e.Gateway != "" {
		attrs = append(attrs, slog.String("gateway", e.Gateway))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("error", e.Err))
	}
	log.LogAttrs(context.Background(), level, e.Text, attrs...)
}
