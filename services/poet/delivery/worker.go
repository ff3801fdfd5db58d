package delivery

import (
	"context"
	"errors"
)

// worker makes the calls of one seat, one after the other, and owns its
// connection.
type worker struct {
	ctx   context.Context
	stop  context.CancelFunc
	dial  Dialer
	calls chan Call // the machine has at most one in flight
}

func newWorker(ctx context.Context, dial Dialer) *worker {
	ctx, stop := context.WithCancel(ctx)
	return &worker{ctx: ctx, stop: stop, dial: dial, calls: make(chan Call, 1)}
}

// run ends with the worker's context. A connection that failed is not used
// again: what waits behind its own backoff would come later than ours.
func (w *worker) run(results chan<- Result) {
	defer w.stop()
	var gateway Gateway
	hangUp := func() {
		if gateway != nil {
			_ = gateway.Close() // nothing is left to lose
			gateway = nil
		}
	}
	defer hangUp()
	for {
		var call Call
		select {
		case <-w.ctx.Done():
			return
		case call = <-w.calls:
		}
		r := Result{Call: call}
		if gateway == nil {
			gateway, r.Err = w.dial(call.Addr)
		}
		if r.Err == nil {
			r = w.make(gateway, call)
		}
		if r.Err != nil && !errors.Is(r.Err, ErrRejected) && !errors.Is(r.Err, ErrMissing) {
			hangUp()
		}
		select {
		case <-w.ctx.Done():
			return
		case results <- r:
		}
	}
}

func (w *worker) make(g Gateway, call Call) Result {
	ctx, cancel := context.WithTimeout(w.ctx, call.Timeout)
	defer cancel()
	r := Result{Call: call}
	switch call.Kind {
	case CallCheck:
		r.Health, r.Err = g.Check(ctx)
	case CallPush:
		r.Ack, r.Err = g.Publish(ctx, call.Data)
	case CallFetch:
		r.Err = g.Fetch(ctx, call.Ref)
	}
	return r
}
