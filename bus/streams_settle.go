package bus

import (
	"context"
	"fmt"
)

// settle places streams, and subscriptions in them, that have no place yet: at the end of
// the stream. It is called when their channels are subscribed to, so that what is added
// behind that end is sure to ring, or to be followed by a Gap.
func (r *reader) settle(ctx context.Context, batch []*stream) error {
	var unsettled []*stream
	r.mu.Lock()
	for _, st := range batch {
		if st.unsettled() {
			unsettled = append(unsettled, st)
		}
	}
	r.mu.Unlock()
	if len(unsettled) == 0 {
		return nil
	}
	pipe := r.bus.Client.Pipeline()
	ends := make([]position, len(unsettled))
	newest := make([][]string, len(unsettled))
	parse := make([]func() error, len(unsettled))
	for i, st := range unsettled {
		cmd := pipe.XInfoStream(ctx, st.key)
		marks := r.recallNewest(ctx, pipe, st.key) // behind XINFO, so that nothing before the end is missed
		parse[i] = func() error {
			a, err := aboutStream(cmd)
			if err == nil {
				ends[i] = a.end()
				newest[i], err = marks.StringSlice()
			}
			return err
		}
	}
	pipe.Exec(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	var failed error
	for i, st := range unsettled {
		if err := parse[i](); err != nil {
			failed = fmt.Errorf("bus: Streams: subscribe to %q: %w", st.topic, err)
			continue
		}
		st.settle(ends[i], newest[i])
		if !st.due && !st.reading {
			r.replay(st)
		}
		if st.rung.compare(st.at.id) > 0 {
			r.want(st)
		}
	}
	r.start()
	return failed
}

// unsettled reports whether the stream or one of its subscriptions has no place yet.
func (st *stream) unsettled() bool {
	if !st.placed {
		return true
	}
	for _, pl := range st.subs {
		if !pl.known {
			return true
		}
	}
	return false
}

// settle places the stream and its subscriptions at the end, if they have no place yet;
// newest is what recallNewest has found. A subscription that isn't where the stream is read up
// to reads on by itself.
func (st *stream) settle(end position, newest []string) {
	if !st.placed {
		st.placed, st.at = true, end
	}
	for s, pl := range st.subs {
		if !pl.known {
			pl.known, pl.at = true, end
			pl.recall(newest, end.id)
		}
		if pl.late || pl.at.id != st.at.id {
			s.fallBehind(pl)
		}
	}
}
