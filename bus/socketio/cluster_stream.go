package socketio

import (
	"context"
	"fmt"
	"time"

	"github.com/limpet-go/limpet/bus"
)

// follow reads the namespace's stream until ctx ends, beginning with what is added
// after follow has found its end. It calls started then.
//
// Its place in the stream is the ID of the last entry that it has read. Only this
// goroutine knows it, so no lock is held.
//
//	place     event                      next place    what follows
//	unknown   the newest entry is read   that entry    started
//	unknown   an error                   unknown       again after 100 ms
//	known     entries are read           the last one  the entries are delivered
//	known     none within readBlock      the same      the next read
//	known     an error                   the same      again after 100 ms, with broken set
//
// Redis trims the stream, so the entries behind a place may be gone when they are
// read; next finds out.
func (c *Cluster) follow(ctx context.Context, s *stream, started func(), inbox chan<- *message) {
	var last string
	var broken error // the error of the call before
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

// next reads the entries behind the last one, delivers them, and returns the ID of
// the last of them. broken is the error of the call before.
//
// The entry that was last read tells whether entries behind it were trimmed: Redis
// trims the oldest first, so as long as that entry is there, all behind it are
// there, too. It costs a command to look for the entry, so next looks only if
// trimming is possible at all: after an error, which may have taken long, and if
// there are so many entries that reading lags behind. A stream that is trimmed has
// MaxLen entries left, so fewer than that (or than readCount) don't lag.
func (c *Cluster) next(ctx context.Context, s *stream, last string, broken error, inbox chan<- *message) (string, error) {
	entries, err := c.link.read(ctx, s.key, last)
	if err != nil {
		return last, err
	}
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
			continue // for another namespace or its own: not worth decoding
		}
		m, err := s.decode(e.Values)
		c.deliver(ctx, m, err, inbox)
	}
	return last, nil
}
