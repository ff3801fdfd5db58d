package front

import (
	"errors"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tweedle/base/words"
)

// Reason says which status an error has for users. Bare: they are told only
// Err's own text, not what is wrapped around it.
type Reason struct {
	Err  error
	Code codes.Code
	Bare bool
}

// Status turns an error into the status of the first reason that fits, in one
// line. An error without reason is logged, and told without its details:
// paths and causes are not the user's business.
func Status(log *slog.Logger, reasons []Reason, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	for _, r := range reasons {
		if errors.Is(err, r.Err) {
			if r.Bare {
				err = r.Err
			}
			return status.Error(r.Code, words.Of(err))
		}
	}
	log.Error("a request failed", "err", err)
	return status.Error(codes.Internal, "internal error: the server's log says more")
}
