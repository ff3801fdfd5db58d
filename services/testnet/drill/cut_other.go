//go:build !linux

package drill

import "fmt"

// Enter refuses a drill that drops packets.
func Enter(s Script) error {
	if s.Cuts {
		return fmt.Errorf("drill %s drops packets between nodes: only on Linux it knows how", s.Name)
	}
	return nil
}

func (s *Stage) cut(_, _ []string) error { return errNoCut }
func (s *Stage) join() error             { return errNoCut }

var errNoCut = fmt.Errorf("only on Linux packets are dropped")
