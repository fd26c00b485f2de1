package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/limpet-go/limpet/bus"
)

// Core is a [bus.Bus] over the publish and subscribe of NATS.
//
// # What it promises
//
// A message arrives at most once. The messages that one goroutine publishes on a topic
// arrive in their order. If Publish returns no error, the server that the connection leads to
// has had the message. NATS keeps no history: only those who are subscribed at that moment
// get it.
//
// When the connection has broken and was made again, each subscription gets a [bus.Gap] with
// a Lost of -1, behind which it gets all messages again. How soon a dead connection is noticed
// is what PingInterval and MaxPingsOutstanding of the connection say.
//
// A subscriber that is too slow doesn't delay the others: it loses messages or is closed, as
// CloseSlow says.
//
// # Several servers
//
// In a cluster of NATS servers, Subscribe returns when the subscriber's own server knows of the
// subscription. The others learn of it within moments, and what is published on them before
// that doesn't arrive. When the route between two of them breaks, nobody is told, and what is
// lost there is lost in silence. [JetStream] has neither limit.
//
// # When NATS is gone
//
// Publish, Subscribe and Add return an error within Timeout. While the connection is being made
// again, Publish waits for it; the message may be sent even if Publish returns an error
// meanwhile. When the connection is closed, as NATS' client does after MaxReconnects
// attempts, all subscriptions are closed, and the error of Next says so.
//
// A topic that the permissions of the connection don't allow is an error of Publish, Subscribe
// and Add, and isn't tried again.
//
// A Core has no goroutine of its own while it has no subscription, and one for each topic
// otherwise. It must not be copied, and its fields must not be changed, once it is used.
type Core struct {
	// Conn is the connection, which may be used for other purposes, too. It is the
	// caller's to close, after the subscriptions.
	Conn *nats.Conn
	// Prefix is put before each topic to make its subject: "shop." for example. "" means
	// none.
	Prefix string
	// Queue is the number of messages that may wait in each subscription. 0 means 1024.
	Queue int
	// CloseSlow closes a subscription whose queue is full when another message comes. By
	// default it loses the oldest message in its queue, as [bus.Memory] says.
	CloseSlow bool
	// Timeout is how long each Publish, Subscribe and Add may take. 0 means three seconds.
	Timeout time.Duration

	once    sync.Once
	invalid error
	local   bus.Memory // the queues of the subscriptions
	published

	settling sync.Mutex    // held while somebody settles
	settled  atomic.Uint64 // the number of reconnects of Conn up to which all Gaps are in the queues

	mu     sync.Mutex // held for moments, or while Conn dials, which locks its methods
	topics map[string]*coreTopic
	subs   map[*coreSubscription]struct{} // those that are open
	stop   context.CancelFunc             // of watch; nil while there is no subscription
	begin  uint64                         // the number of reconnects of Conn before the first subscription
	kick   chan struct{}                  // wakes watch
}

// A coreTopic is a topic that is subscribed to. It is under Core.mu.
type coreTopic struct {
	nats   *nats.Subscription
	cancel context.CancelFunc // ends a receive that waits
	subs   int                // number of subscriptions
	live   bool               // the server has confirmed it on this connection
	owed   bool               // its subscriptions are due a Gap once it is live
}

// Publish sends data on topic, and waits until the server has it.
func (c *Core) Publish(ctx context.Context, topic string, data []byte) error {
	began := time.Now()
	err := c.publish(ctx, topic, data)
	c.published.note(began, err)
	if err != nil {
		return fmt.Errorf("bus: NATS: publish on %q: %w", topic, err)
	}
	return nil
}

func (c *Core) publish(ctx context.Context, topic string, data []byte) error {
	if err := c.ready(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	name := subject(c.Prefix, topic)
	return c.confirmed(ctx, name, func() error { return c.Conn.Publish(name, data) })
}

// confirmed calls send, and waits until the server has dealt with what that has sent. A
// server says nothing of what it accepts, but it says what it refuses, before it answers the
// PING of a flush.
func (c *Core) confirmed(ctx context.Context, name string, send func() error) error {
	before := c.Conn.LastError()
	if err := send(); err != nil {
		return err
	}
	if err := c.Conn.FlushWithContext(ctx); err != nil {
		if errors.Is(err, nats.ErrConnectionClosed) && !c.Conn.IsClosed() {
			return errors.New("the connection to NATS broke")
		}
		return err
	}
	if err := c.Conn.LastError(); err != before && errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+name+`"`) {
		return err
	}
	return nil
}

// Subscribe returns when the server has confirmed the subscription to all topics.
func (c *Core) Subscribe(ctx context.Context, topics ...string) (bus.Subscription, error) {
	if err := c.ready(ctx); err != nil {
		return nil, fmt.Errorf("bus: NATS: subscribe: %w", err)
	}
	s, err := c.join(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Add(ctx, topics...); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Validate returns an error if Conn is missing, and if Queue or Timeout is negative. Publish
// and Subscribe return it, too.
func (c *Core) Validate() error {
	if err := check(c.Conn, c.Queue, c.Timeout); err != nil {
		return fmt.Errorf("bus: NATS: %w", err)
	}
	return nil
}

func check(conn *nats.Conn, queue int, timeout time.Duration) error {
	switch {
	case conn == nil:
		return errors.New("there is no Conn; nats.Connect makes one")
	case queue < 0 || timeout < 0:
		return fmt.Errorf("a Queue of %d or a Timeout of %v is negative; 0 is the default", queue, timeout)
	}
	return nil
}

// Stats returns the figures of this bus. It may be called concurrently, and asks NATS nothing.
func (c *Core) Stats() bus.Stats {
	s := c.local.Stats()
	c.published.into(&s)
	if c.Conn == nil {
		return s
	}
	reconnects, connected := c.Conn.Stats().Reconnects, c.Conn.IsConnected()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Topics = len(c.topics)
	for _, t := range c.topics {
		if !t.live || !connected {
			s.Away++
		}
	}
	if c.kick != nil {
		s.Disconnects = int64(reconnects - c.begin)
	}
	return s
}

// ready returns the error of a call that can't be made at all.
func (c *Core) ready(ctx context.Context) error {
	c.once.Do(func() {
		c.invalid = check(c.Conn, c.Queue, c.Timeout)
		c.local.Queue, c.local.CloseSlow = c.Queue, c.CloseSlow
	})
	return cmp.Or(c.invalid, ctx.Err())
}

func (c *Core) timeout() time.Duration { return cmp.Or(c.Timeout, 3*time.Second) }
