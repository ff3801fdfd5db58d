package crash

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// outbox keeps events as files, one for each.
type outbox struct{ dir string }

func openOutbox(dir string) (outbox, error) {
	return outbox{dir}, os.MkdirAll(dir, 0o700)
}

// put writes an event durably: the file and its name are on the disk when it
// returns.
func (o outbox) put(e *Event) error {
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(o.dir, e.ID+".json")
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(path + ".new") // list passes it over, too
		return err
	}
	// If we stop here, list finds the old file, or none, and passes the new one over.
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(o.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// list reads all events, oldest first. One that cannot be read is told with the
// others.
func (o outbox) list() ([]*Event, error) {
	files, err := filepath.Glob(filepath.Join(o.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var out []*Event
	var errs []error
	for _, f := range files {
		var e Event
		b, err := os.ReadFile(f)
		if err == nil {
			err = json.Unmarshal(b, &e)
		}
		if err == nil && e.ID+".json" != filepath.Base(f) {
			err = errors.New("it names another event")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("event file %s: %w: delete it", f, err))
			continue
		}
		out = append(out, &e)
	}
	slices.SortFunc(out, func(a, b *Event) int { return cmp.Or(a.Time.Compare(b.Time), strings.Compare(a.ID, b.ID)) })
	return out, errors.Join(errs...)
}

// trim deletes the oldest events that are done, or all of the oldest, so that
// maxEvents stay.
func (o outbox) trim(undone bool) error {
	all, _ := o.list() // what cannot be read was told
	var errs []error
	for _, e := range all[:max(0, len(all)-maxEvents)] {
		if undone || e.BackTold != nil {
			errs = append(errs, os.Remove(filepath.Join(o.dir, e.ID+".json")))
		}
	}
	return errors.Join(errs...)
}
