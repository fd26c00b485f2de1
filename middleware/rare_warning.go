package middleware

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// A rareWarning logs one warning a second at most: what is wrong with one request is wrong
// with many. The next warning has the number of those that were left out.
type rareWarning struct {
	log     *slog.Logger // nil: slog.Default()
	last    atomic.Int64 // the second of the last warning, of Unix time
	skipped atomic.Int64
}

func (w *rareWarning) warn(ctx context.Context, msg string, args ...any) {
	now, last := time.Now().Unix(), w.last.Load()
	if now == last || !w.last.CompareAndSwap(last, now) {
		w.skipped.Add(1)
		return
	}
	if n := w.skipped.Swap(0); n > 0 {
		args = append(args, "unwritten", n)
	}
	log := w.log
	if log == nil {
		log = slog.Default()
	}
	log.WarnContext(ctx, msg, args...)
}
