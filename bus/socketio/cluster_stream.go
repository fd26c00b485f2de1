package socketio

import (
	"context"
	"fmt"
	"time"

	"github.com/limpet-go/limpet/bus"
)

// follow reads the namespace's stream from its end on until ctx ends. started is
// called when it knows the end.
func (c *Cluster) follow(ctx context.Context, s *stream, started func(), inbox chan<- *message) {
	var last string
	var broken error // why the call before failed
	for ctx.Err() == nil {
		var err error
		if last != "" {
			last, err = c.next(ctx, s, last, broken, inbox)
		} else if last, err = c.link.newest(ctx, s.key); err == nil {
			started()
		}
		if err != nil && ctx.Err() == nil {
			if broken == nil {
				c.notReady.Store(&err)
				c.opts.Logger.Warn("the Socket.IO cluster's stream can't be read; trying again", "stream", s.key, "err", err)
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		broken = err
	}
}

// next delivers the entries behind the last one and returns the last of them.
func (c *Cluster) next(ctx context.Context, s *stream, last string, broken error, inbox chan<- *message) (string, error) {
	entries, err := c.link.read(ctx, s.key, last)
	if err != nil {
		return last, err
	}
	// If entries may have been trimmed before they were read, because that took a
	// while, what follows the last one is known to be complete only if that is
	// still there. A stream that is trimmed has MaxLen entries left.
	behind := int64(len(entries)) >= min(readCount, s.maxLen)
	if (broken != nil || behind) && last != "0-0" {
		kept, err := c.link.keeps(ctx, s.key, last)
		if err != nil {
			return last, err
		}
		if !kept {
			if broken == nil {
				broken = fmt.Errorf("the stream %q was trimmed", s.key)
			}
			c.gap(&bus.Gap{Lost: -1, Topics: []string{s.key}, Err: broken})
		}
	}
	for _, e := range entries {
		last = e.ID
		if f := fields(e.Values); f.text("nsp") != c.nsp || f.text("uid") == c.uid {
			continue // of another namespace or its own, which aren't worth decoding
		}
		m, err := s.decode(e.Values)
		c.deliver(ctx, m, err, inbox)
	}
	return last, nil
}
