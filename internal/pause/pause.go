// Package pause waits for a while, unless something else ends that.
package pause

import (
	"context"
	"time"
)

// For waits for d, and reports whether ctx is still alive then. It returns at once when ctx
// ends.
func For(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
