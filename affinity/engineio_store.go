package affinity

import (
	"context"
	"time"
)

const (
	storeTries  = 3                      // after the first, which the client has waited for
	storePause  = 100 * time.Millisecond // before the first of them; each one is four times as long
	storeWithin = time.Second            // for one of them; a Redis has a limit of its own
	storeMost   = 1000                   // sessions for which a try may be due at the same time
)

// storeAgain stores the pin of a new session again after a while, since the store has failed
// or was too slow: the other replicas don't know the session, and its client may come to
// them next. It doesn't replace a pin that is there.
func (e *EngineIO) storeAgain(id, home string, try int) {
	if e.storing.Add(1) > storeMost {
		e.storing.Add(-1)
		return
	}
	time.AfterFunc(storePause<<(2*try), func() {
		defer e.storing.Add(-1)
		ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
		defer cancel()
		if _, err := e.table.store().Swap(ctx, id, "", home); err != nil && try+1 < storeTries {
			e.storeAgain(id, home, try+1)
		}
	})
}
