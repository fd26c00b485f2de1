package bus

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

// An order is what a command that was sent says of one topic. Redis answers the orders of
// all commands one by one, and in their order. If it refuses a command it gives one error
// for all orders of it.
type order struct {
	*redisTopic
	at        int  // the topic's stay when the command was sent
	subscribe bool // otherwise it unsubscribes
	last      bool // it is the last one of those that were sent together
	shared    bool // the command has several orders
	more      int  // number of orders that follow it in the same command
}

// maxOrders is the number of topics in one command. Redis does nothing else meanwhile.
const maxOrders = 1000

// take returns the orders of the commands to send for what is in work. They are put into
// l.orders before they are sent, since the answer may be read before the call that sends has
// returned.
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
	l.join(l.orders[first:])
	return append([]order(nil), l.orders[first:]...)
}

// join makes one command of orders that follow each other, where that can be. The sharded
// channels of one command would have to be in one slot. feed.mu is held.
func (l *redisLink) join(orders []order) {
	if l.feed.bus.Sharded {
		return
	}
	for i := len(orders) - 2; i >= 0; i-- {
		o, next := &orders[i], &orders[i+1]
		if o.subscribe == next.subscribe && !o.alone && !next.alone && next.more+2 <= maxOrders {
			o.more = next.more + 1
			o.shared, next.shared = true, true
		}
	}
}

// tidy forgets t if nobody wants it, and Redis has nothing left to answer. feed.mu is
// held.
func (l *redisLink) tidy(t *redisTopic) {
	if len(t.subs) == 0 && !t.sent && t.pending == 0 {
		l.feed.unhouse(t, 0)
	}
}

// send sends one command, with its orders.
func (l *redisLink) send(ctx context.Context, pubsub *redis.PubSub, orders []order) error {
	ctx, cancel := context.WithTimeout(ctx, deadAfter)
	defer cancel()
	channels := make([]string, len(orders))
	for i, o := range orders {
		channels[i] = o.channel
	}
	switch subscribe, sharded := orders[0].subscribe, l.feed.bus.Sharded; {
	case subscribe && sharded:
		return pubsub.SSubscribe(ctx, channels...)
	case subscribe:
		return pubsub.Subscribe(ctx, channels...)
	case sharded:
		return pubsub.SUnsubscribe(ctx, channels...)
	default:
		return pubsub.Unsubscribe(ctx, channels...)
	}
}

// confirmed deals with a confirmation, which is the answer to the oldest order or, if
// nobody has asked for it, says that a slot has moved to another node.
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
		f.unhouse(t, retryPause) // the other nodes have to learn of it
		redisclient.Reload(f.bus.Client)
	}
	return nil
}

// refused takes an error for the answer to the oldest command. It returns the error if
// there is no order that it may be the answer to.
func (l *redisLink) refused(err error) error {
	f := l.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(l.orders) == 0 || !l.orders[0].subscribe {
		return err
	}
	for n := 1 + l.orders[0].more; n > 0; n-- {
		l.answer(err)
	}
	redisclient.Reload(f.bus.Client)
	return nil
}

// answer deals with the answer to the oldest order, which is err, or nil if Redis has
// done what it says. The Gaps of topics that were ordered together are sent together.
// feed.mu is held.
func (l *redisLink) answer(err error) {
	f, o := l.feed, l.orders[0]
	l.orders = l.orders[1:]
	if t := o.redisTopic; t.link == l && t.stay == o.at {
		t.pending--
		switch {
		case err != nil:
			t.err = err
			if o.shared { // the error may be due to another topic
				t.alone = true
				f.unhouse(t, 0)
			} else {
				f.unhouse(t, retryPause)
			}
		case o.subscribe && t.sent && t.pending == 0:
			t.live, t.alone = true, false
			f.live++
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
