package nats

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/limpet-go/limpet/bus"
)

// errBroke is the reason of the Gaps after the connection was made again.
var errBroke = errors.New("the connection to NATS broke")

// retryPause is the time between attempts while NATS doesn't answer.
const retryPause = 100 * time.Millisecond

// watch settles whenever the connection was made again, and when it is kicked. It ends with
// ctx.
func (c *Core) watch(ctx context.Context, status chan nats.Status) {
	defer c.Conn.RemoveStatusListener(status)
	for {
		if c.Conn.IsClosed() {
			c.close()
			return
		}
		if c.settle(ctx) != nil && c.Conn.IsConnected() && !rest(ctx) {
			return
		}
		if c.unsettled() && c.Conn.IsConnected() {
			continue
		}
		select {
		case <-status:
		case <-c.kick:
		case <-ctx.Done():
			return
		}
	}
}

// rest waits for retryPause. It returns false if ctx ends before.
func rest(ctx context.Context) bool {
	select {
	case <-time.After(retryPause):
		return true
	case <-ctx.Done():
		return false
	}
}

// unsettled reports whether a topic isn't live, or the connection was made again since.
func (c *Core) unsettled() bool {
	if c.Conn.Stats().Reconnects != c.settled.Load() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.topics {
		if !t.live {
			return true
		}
	}
	return false
}

// settle waits until the server has confirmed all topics, and then puts the Gaps that are due
// into the queues. A Gap is due for all topics when the connection was made again: NATS'
// client subscribes to them on the new one by itself.
func (c *Core) settle(ctx context.Context) error {
	c.settling.Lock()
	defer c.settling.Unlock()
	if !c.unsettled() {
		return nil // somebody else has settled meanwhile
	}
	reconnects := c.Conn.Stats().Reconnects
	c.mu.Lock()
	var topics []*coreTopic
	for _, t := range c.topics {
		if reconnects != c.settled.Load() {
			t.owed = t.owed || t.live
			t.live = false
		}
		topics = append(topics, t)
	}
	c.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	if err := c.Conn.FlushWithContext(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Conn.Stats().Reconnects != reconnects {
		return errBroke
	}
	for _, t := range topics {
		t.live = true
	}
	var owed []string
	for name, t := range c.topics {
		if t.live && t.owed {
			owed = append(owed, name)
			t.owed = false
		}
	}
	if len(owed) > 0 {
		c.local.Gap(&bus.Gap{Lost: -1, Topics: owed, Err: errBroke})
	}
	c.settled.Store(reconnects)
	return nil
}

// receive puts a message of a topic into the queues, behind the Gap that is due if the
// connection was made again. NATS' client calls it, for one message of a topic at a time.
func (c *Core) receive(ctx context.Context, topic string, data []byte) {
	for c.Conn.Stats().Reconnects != c.settled.Load() {
		if c.settle(ctx) != nil && !rest(ctx) {
			return
		}
	}
	_ = c.local.Publish(context.Background(), topic, data) // its only error is that of its context
}

// close closes all subscriptions, because the connection is closed.
func (c *Core) close() {
	c.mu.Lock()
	open := slices.Collect(maps.Keys(c.subs))
	c.mu.Unlock()
	for _, s := range open {
		s.end(nats.ErrConnectionClosed)
	}
}
