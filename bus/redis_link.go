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

// A redisLink is the connection to one node on which topics are subscribed. It
// is made anew as long as it has topics.
type redisLink struct {
	feed *feed
	node *redis.Client // nil: the bus' Client
	wake chan struct{} // there is something to do

	// Under feed.mu.
	topics map[string]*redisTopic // by channel
	work   []*redisTopic          // to subscribe or unsubscribe
	orders []order                // what Redis hasn't answered, in order
	back   []*redisTopic          // live again, their Gaps are due
}

// An order is a command that was sent. Redis answers in order.
type order struct {
	*redisTopic
	at        int // the topic's stay
	subscribe bool
	last      bool // of those that were sent together
}

// probe is the time without a word from Redis after which it is asked for one, and
// is two times that at most.
const probe = 150 * time.Millisecond

var errReplaced = errors.New("go-redis has replaced the connection")

// todo has t subscribed or unsubscribed, as it is wanted then. feed.mu is held.
func (l *redisLink) todo(t *redisTopic) {
	l.work = append(l.work, t)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run serves one connection after the other.
func (l *redisLink) run() {
	f := l.feed
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		began := time.Now()
		err := l.serve()
		if f.ctx.Err() != nil {
			return
		}
		l.broken(fmt.Errorf("the connection to Redis broke: %w", err))
		if time.Since(began) > time.Second {
			pause = minPause
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-f.ctx.Done():
			return
		}
		f.mu.Lock()
		if len(l.topics) == 0 {
			delete(f.links, l.node)
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
	}
}

// broken gives the topics up, most likely to get them back at once.
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

// serve connects, and returns when that connection is broken.
func (l *redisLink) serve() error {
	ctx, fail := context.WithCancelCause(l.feed.ctx)
	defer fail(nil)
	pubsub := l.pubsub(ctx)
	defer context.AfterFunc(ctx, func() { pubsub.Close() })()
	defer pubsub.Close()

	connect, cancel := context.WithTimeout(ctx, deadAfter)
	err := pubsub.Ping(connect)
	cancel()
	if err != nil {
		return err
	}

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
	return context.Cause(ctx)
}

// pubsub returns a PubSub that isn't connected. There is one for each
// connection: go-redis would connect it anew and say nothing, and it would
// subscribe to all sharded channels by one command, which Redis refuses unless
// they are in one slot.
func (l *redisLink) pubsub(ctx context.Context) *redis.PubSub {
	if l.node != nil {
		return l.node.SSubscribe(ctx)
	}
	return l.feed.bus.Client.Subscribe(ctx)
}

// read takes what Redis sends until the connection breaks.
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

// write sends what there is to do, and probes the connection.
func (l *redisLink) write(ctx context.Context, pubsub *redis.PubSub, heard *atomic.Int64, fail context.CancelCauseFunc) error {
	tick := time.NewTicker(probe)
	defer tick.Stop()
	var known int64
	var alarm *time.Timer // set while an answer to a PING is awaited
	defer func() {
		if alarm != nil {
			alarm.Stop()
		}
	}()
	for {
		select {
		case <-l.wake:
			for _, o := range l.take() {
				if err := l.send(ctx, pubsub, o); err != nil {
					return err
				}
			}
		case <-tick.C:
			if n := heard.Load(); n != known {
				known = n
				if alarm != nil {
					alarm.Stop()
					alarm = nil
				}
			} else if alarm == nil {
				alarm = time.AfterFunc(deadAfter, func() {
					if heard.Load() == n {
						fail(fmt.Errorf("Redis hasn't answered for %v", deadAfter))
					}
				})
				if err := pubsub.Ping(ctx); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// take returns the commands to send. They are on record before they are sent:
// the answer may be read at once.
func (l *redisLink) take() []order {
	f := l.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	first := len(l.orders)
	for _, t := range l.work {
		if t.link != l {
			continue
		}
		wanted := len(t.subs) > 0
		if wanted != t.sent {
			l.feed.quiet(t)
			t.sent = wanted
			t.pending++
			l.orders = append(l.orders, order{redisTopic: t, at: t.stay, subscribe: wanted})
		}
		l.tidy(t)
	}
	l.work = nil
	if first < len(l.orders) {
		l.orders[len(l.orders)-1].last = true
	}
	return append([]order(nil), l.orders[first:]...)
}

// tidy forgets t if nobody wants it any more. feed.mu is held.
func (l *redisLink) tidy(t *redisTopic) {
	if len(t.subs) == 0 && !t.sent && t.pending == 0 {
		l.feed.unhouse(t, 0)
	}
}

func (l *redisLink) send(ctx context.Context, pubsub *redis.PubSub, o order) error {
	ctx, cancel := context.WithTimeout(ctx, deadAfter)
	defer cancel()
	switch sharded := l.feed.bus.Sharded; {
	case o.subscribe && sharded:
		return pubsub.SSubscribe(ctx, o.channel)
	case o.subscribe:
		return pubsub.Subscribe(ctx, o.channel)
	case sharded:
		return pubsub.SUnsubscribe(ctx, o.channel)
	default:
		return pubsub.Unsubscribe(ctx, o.channel)
	}
}

// confirmed takes the answer to an order, or the news that a slot has moved.
func (l *redisLink) confirmed(m *redis.Subscription) error {
	f := l.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	subscribe := m.Kind == "subscribe" || m.Kind == "ssubscribe"
	if len(l.orders) > 0 && l.orders[0].channel == m.Channel && l.orders[0].subscribe == subscribe {
		l.answer(nil)
		return nil
	}
	if subscribe {
		return errReplaced
	}
	if t := l.topics[m.Channel]; t != nil && t.sent {
		t.err = errors.New("the channel has moved to another node")
		f.unhouse(t, retryPause) // the others have to learn of it
		redisclient.Reload(f.bus.Client)
	}
	return nil
}

// refused takes an error as the answer to an order. It returns the error if it
// isn't one.
func (l *redisLink) refused(err error) error {
	f := l.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(l.orders) == 0 || !l.orders[0].subscribe {
		return err
	}
	l.answer(err)
	return nil
}

// answer takes the answer to the first order. feed.mu is held.
func (l *redisLink) answer(err error) {
	f, o := l.feed, l.orders[0]
	l.orders = l.orders[1:]
	if t := o.redisTopic; t.link == l && t.stay == o.at {
		t.pending--
		switch {
		case err != nil:
			t.err = err
			f.unhouse(t, retryPause)
			redisclient.Reload(f.bus.Client)
		case o.subscribe && t.sent && t.pending == 0:
			t.live = true
			close(t.changed)
			l.back = append(l.back, t)
		default:
			l.tidy(t)
		}
	}
	if o.last {
		f.gaps(l.back)
		l.back = nil
	}
}
