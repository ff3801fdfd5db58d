package p2p

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// Whatever a peer answers is an answer within its limit, or one of the errors that Request names.
func FuzzReadAnswer(f *testing.F) {
	for status := range byte(8) {
		f.Add(append([]byte{status}, "x\n\xff"...))
	}
	limits := Limits{MaxResponse: 10}.withDefaults()
	named := []error{ErrBusy, ErrRateLimited, ErrTooLarge, ErrTimeout, ErrBroken}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := readAnswer(raw, limits)
		if len(got) > limits.MaxResponse || err != nil && got != nil {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		var remote *RemoteError
		if errors.As(err, &remote) {
			if len(remote.Text) > 3*MaxErrorText || !utf8.ValidString(remote.Text) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q", remote.Text)
			}
			return
		}
		for _, n := range named {
			if errors.Is(err, n) {
				return
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}
