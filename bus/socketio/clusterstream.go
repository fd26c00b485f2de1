package socketio

import (
	"context"
	"fmt"
	"time"

	"github.com/limpet-go/limpet/bus"
)

// follow reads a stream from its end on until ctx ends.
func (c *Cluster) follow(ctx context.Context, s Streams, stream string, inbox chan<- *message) {
	var last string
	var broken error
	for ctx.Err() == nil {
		var err error
		if last == "" {
			if last, err = c.link.newest(ctx, stream); err == nil {
				c.found()
			} else {
				last = ""
			}
		} else {
			last, err = c.next(ctx, s, stream, last, broken, inbox)
		}
		if broken = err; err != nil {
			select { // Redis is away
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
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
			c.gap(&bus.Gap{Lost: -1, Err: broken})
		}
	}
	for _, e := range entries {
		m, err := s.decodeEntry(e.Values)
		c.deliver(ctx, m, err, inbox)
		last = e.ID
	}
	return last, nil
}
