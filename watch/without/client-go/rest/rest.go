// Package rest stands where Prometheus's logging imports the Kubernetes client, for
// a handler of warnings that nobody calls: the watch discovers nothing there.
package rest

import "context"

// WarningHandlerWithContext hears warnings.
type WarningHandlerWithContext interface {
	HandleWarningHeaderWithContext(ctx context.Context, code int, agent string, text string)
}

// WarningLogger is silent.
type WarningLogger struct{}

// HandleWarningHeaderWithContext does nothing.
func (WarningLogger) HandleWarningHeaderWithContext(context.Context, int, string, string) {}
