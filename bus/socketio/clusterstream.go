package socketio

import (
	"context"
	"fmt"
	"time"

	"github.com/limpet-go/limpet/bus"
)

// follow reads the namespace's stream from its end on until ctx ends. started is
// called when it knows the end.
func (c *Cluster) follow(ctx context.Context, s Streams, started func(), inbox chan<- *message) {
	stream := s.stream(c.nsp)
	last, err := c.link.newest(ctx, stream)
	for pause(ctx, err) && err != nil {
		last, err = c.link.newest(ctx, stream)
	}
	started()
	for pause(ctx, err) {
		last, err = c.next(ctx, s, stream, last, err, inbox)
	}
}

// pause waits a moment after an error, and tells whether to go on.
func pause(ctx context.Context, err error) bool {
	if err != nil {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// next delivers the entries behind the last one and returns the last of them.
// broken is why the call before failed.
func (c *Cluster) next(ctx context.Context, s Streams, stream, last string, broken error, inbox chan<- *message) (string, error) {
	entries, err := c.link.read(ctx, stream, last)
	if err != nil {
		return last, err
	}
	// After a while in which entries may have been trimmed, what follows the last
	// one is known to be complete only if that is still there.
	if (broken != nil || len(entries) >= readCount) && last != "0-0" {
		kept, err := c.link.keeps(ctx, stream, last)
		if err != nil {
			return last, err
		}
		if !kept {
			if broken == nil {
				broken = fmt.Errorf("the stream %q was trimmed", stream)
			}
			c.gap(&bus.Gap{Lost: -1, Topics: []string{stream}, Err: broken})
		}
	}
	for _, e := range entries {
		m, err := s.decodeEntry(e.Values)
		c.deliver(ctx, m, err, inbox)
		last = e.ID
	}
	return last, nil
}
