package bus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

// A redisLink is the connection to one node, on which topics are subscribed to. When it
// breaks, another one is made as long as the link has topics.
//
// Its goroutines share the work. run makes the connections, one after the other, and is
// the reader of the current one. The writer sends what is in work, and PINGs. Topics
// get into work by todo, with feed.mu held, from any goroutine. The states of a topic
// are described at [redisTopic].
type redisLink struct {
	feed *feed
	node *redis.Client // of a Cluster; nil means the bus' Client
	wake chan struct{} // has a value when there is work

	// These are under feed.mu.
	next   *redis.PubSub          // a connection that is answered already, or nil
	topics map[string]*redisTopic // by channel
	work   []*redisTopic          // the topics to subscribe to or to unsubscribe from
	orders []order                // the commands that Redis hasn't answered, the oldest first
	back   []*redisTopic          // topics that are live again, whose Gaps are due
}

// probe is how often the writer looks whether Redis has sent anything. If nothing came
// between two looks it sends a PING, so that one is sent 150 to 300 ms after Redis has
// last sent something.
const probe = 150 * time.Millisecond

var errReplaced = errors.New("go-redis has replaced the connection")

// todo makes the writer look whether t is to be subscribed to or unsubscribed from.
// feed.mu is held.
func (l *redisLink) todo(t *redisTopic) {
	l.work = append(l.work, t)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run makes and serves one connection after the other.
func (l *redisLink) run() {
	f := l.feed
	defer func() {
		if next := l.takeNext(); next != nil {
			next.Close()
		}
	}()
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		began := time.Now()
		err := l.serve()
		if f.ctx.Err() != nil {
			return
		}
		l.broken(fmt.Errorf("the connection to Redis broke: %w", err))
		if time.Since(began) > steady {
			pause = minPause / 2 // and another connection is made at once
		} else if !l.rest(pause) {
			return
		}
		f.mu.Lock()
		if len(l.topics) == 0 && l.next == nil { // house may not have brought them back yet
			delete(f.links, l.node)
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
	}
}

// rest waits for a random part of a pause. It returns false if the feed has ended.
func (l *redisLink) rest(pause time.Duration) bool {
	select {
	case <-time.After(pause/2 + rand.N(pause/2)):
		return true
	case <-l.feed.ctx.Done():
		return false
	}
}

// broken makes all topics of the link homeless. Unless they have moved in a Cluster, they
// come back to this link at once.
func (l *redisLink) broken(err error) {
	f := l.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range l.topics {
		t.err = err
		f.unhouse(t, 0)
	}
	l.work, l.orders, l.back = nil, nil, nil
	if f.bus.Sharded {
		redisclient.Reload(f.bus.Client)
	}
}

// serve makes a connection, and returns why it broke.
func (l *redisLink) serve() error {
	ctx, fail := context.WithCancelCause(l.feed.ctx)
	defer fail(nil)
	pubsub, err := l.takeNext(), error(nil)
	if pubsub == nil {
		if pubsub, err = l.connect(ctx); err != nil {
			return err
		}
	}
	defer context.AfterFunc(ctx, func() { pubsub.Close() })()
	defer pubsub.Close()

	var heard atomic.Int64
	written := make(chan struct{})
	go func() {
		defer close(written)
		if err := l.write(ctx, pubsub, &heard, fail); err != nil {
			fail(err)
		}
	}()
	err = l.read(ctx, pubsub, &heard)
	fail(err)
	<-written
	if l.feed.ctx.Err() == nil {
		l.feed.bus.counts.disconnects.Add(1)
	}
	return context.Cause(ctx)
}

// connect returns a PubSub that is connected, and has sent a PING.
func (l *redisLink) connect(ctx context.Context) (*redis.PubSub, error) {
	pubsub := l.pubsub(ctx)
	defer context.AfterFunc(ctx, func() { pubsub.Close() })()
	limited, cancel := context.WithTimeout(ctx, deadAfter)
	defer cancel()
	if err := pubsub.Ping(limited); err != nil {
		pubsub.Close()
		return nil, err
	}
	return pubsub, nil
}

// pubsub returns a PubSub that isn't connected yet. It is used for one connection only.
// After a break go-redis would make another one without a word, so that nobody learns of
// the gap; and it would subscribe to all sharded channels by one command, which Redis
// refuses unless they are in one slot.
func (l *redisLink) pubsub(ctx context.Context) *redis.PubSub {
	if l.node != nil {
		return l.node.SSubscribe(ctx)
	}
	return l.feed.bus.Client.Subscribe(ctx)
}

// read deals with what Redis sends until the connection breaks. It counts in heard what
// has come.
func (l *redisLink) read(ctx context.Context, pubsub *redis.PubSub, heard *atomic.Int64) error {
	for {
		received, err := pubsub.Receive(ctx)
		heard.Add(1)
		switch m := received.(type) {
		case *redis.Message:
			l.feed.deliver(l, m.Channel, m.Payload)
		case *redis.Subscription:
			err = l.confirmed(m)
		case nil:
			var refusal redis.Error
			if errors.As(err, &refusal) {
				err = l.refused(err)
			}
		}
		if err != nil {
			return err
		}
	}
}

// write sends commands for the topics that are in work. When nothing was heard for a
// while it sends a PING. If that isn't answered it makes another connection, and calls
// fail once that one is answered.
func (l *redisLink) write(ctx context.Context, pubsub *redis.PubSub, heard *atomic.Int64, fail context.CancelCauseFunc) error {
	tick := time.NewTicker(probe)
	defer tick.Stop()
	var known int64
	var trust context.CancelFunc // ends the doubt about the connection; nil if there is none
	for {
		select {
		case <-l.wake:
			for orders := l.take(); len(orders) > 0; {
				n := 1 + orders[0].more
				if err := l.send(ctx, pubsub, orders[:n]); err != nil {
					return err
				}
				orders = orders[n:]
			}
		case <-tick.C:
			if n := heard.Load(); n != known {
				known = n
				if trust != nil {
					trust()
					trust = nil
				}
			} else if trust == nil {
				trust = l.doubt(ctx, func() bool { return heard.Load() != n }, fail)
				if err := pubsub.Ping(ctx); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return nil
		}
	}
}
