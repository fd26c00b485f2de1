package within_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/internal/within"
)

type key struct{}

// A Deadline does what context.WithDeadline does, whether somebody has waited for it before
// or not.
func TestDeadlineAlike(t *testing.T) {
	gone := errors.New("gone")
	for name, end := range map[string]func(parent context.CancelCauseFunc, cancel context.CancelFunc){
		"nothing":             func(context.CancelCauseFunc, context.CancelFunc) {},
		"cancelled":           func(_ context.CancelCauseFunc, cancel context.CancelFunc) { cancel() },
		"cancelled twice":     func(_ context.CancelCauseFunc, cancel context.CancelFunc) { cancel(); cancel() },
		"its parent":          func(parent context.CancelCauseFunc, _ context.CancelFunc) { parent(gone) },
		"its time":            func(context.CancelCauseFunc, context.CancelFunc) { time.Sleep(time.Second + 1) },
		"its parent, then it": func(parent context.CancelCauseFunc, cancel context.CancelFunc) { parent(gone); cancel() },
		"its time, then its parent": func(parent context.CancelCauseFunc, _ context.CancelFunc) {
			time.Sleep(time.Second + 1)
			parent(gone)
		},
	} {
		for _, waited := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					play := func(limit func(context.Context, time.Time) (context.Context, context.CancelFunc)) (told, child bool, err, cause error) {
						var called atomic.Bool
						parent, stop := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
						defer stop(nil)
						ctx, cancel := limit(parent, time.Now().Add(time.Second))
						defer cancel()
						var below context.Context
						if waited {
							context.AfterFunc(ctx, func() { called.Store(true) })
							below, cancel = context.WithCancel(ctx)
							defer cancel()
						}
						end(stop, cancel)
						synctest.Wait()
						err = ctx.Err() // of context.WithDeadline it is what has come first
						cause = context.Cause(ctx)
						if again := ctx.Err(); again != err {
							t.Errorf("%v, and then %v", err, again)
						}
						if ctx.Value(key{}) != "value" {
							t.Error("its parent's value is lost")
						}
						return called.Load(), below != nil && below.Err() != nil, err, cause
					}
					wantTold, wantChild, wantErr, wantCause := play(context.WithDeadline)
					told, child, err, cause := play(within.Deadline)
					if name == "its time, then its parent" && !waited { // nobody has looked in between
						wantErr, wantCause = context.Canceled, gone
					}
					if err != wantErr || cause != wantCause || told != wantTold || child != wantChild {
						t.Errorf("%v by %v, told: %v, %v; want %v by %v, %v, %v", err, cause, told, child, wantErr, wantCause, wantTold, wantChild)
					}
				})
			})
		}
	}
}

// Who only asks pays one allocation.
func TestDeadlineAllocates(t *testing.T) {
	parent, stop := context.WithCancel(t.Context())
	defer stop()
	n := testing.AllocsPerRun(100, func() {
		ctx, cancel := within.Deadline(parent, time.Now().Add(time.Hour))
		if _, ok := ctx.Deadline(); !ok || ctx.Err() != nil {
			t.Error("no deadline, or over")
		}
		cancel()
	})
	if n > 2 {
		t.Errorf("%v allocations", n)
	}
}
