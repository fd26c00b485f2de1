package bus

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

// Redis is a [Bus] over the publish and subscribe of Redis.
//
// The name of a channel is Prefix followed by the topic, and a message is sent as it
// is, so any program that speaks to Redis can take part.
//
// # What it promises
//
// A message arrives at most once. The messages that one goroutine publishes on a topic
// arrive in their order. If Publish returns no error, Redis has had the message. Redis
// keeps no history: only those who are subscribed at that moment get it. A message may
// have 8 MiB: Redis cuts off subscribers for whom more than 32 MiB are waiting, unless its
// client-output-buffer-limit is another one, and with them all topics of their processes.
//
// All subscriptions of a Redis value share one connection, on which each topic is
// subscribed to once. When it breaks, another one is made at once and subscribes to all
// topics again. Each subscription that has some of these topics then gets a [Gap] with
// them, or several if messages of some topics come before the others are subscribed to.
// Its Lost is -1: the messages that were published in between are lost, and nobody knows
// how many they were.
//
// When nothing comes on the connection Redis is sent a PING, after 0.3 s at most. If it
// hasn't answered that within a second, another connection is made, and replaces the old
// one once Redis has answered on it. So a dead connection is noticed within 1.4 s. While
// Redis hangs it answers on neither of them: the old one stays, and what is published
// meanwhile is late but not lost.
//
// A subscriber that is too slow doesn't delay the others: it loses messages or is
// closed, as CloseSlow says.
//
// # Publishing
//
// A message is sent at once if no other one is under way. Those that are published
// meanwhile are sent together when that one is answered, by a pipeline of go-redis: with
// many publishers that takes a fraction of the processor's time, here and in Redis. So a
// message may wait for as long as Redis takes for another one. In a Cluster it waits only
// for those to the same node.
//
// # Cluster
//
// Without Sharded a message passes through all nodes of a Cluster. Nobody is told when
// the connection between two of them breaks, and what is lost there is lost in silence.
// With Sharded a topic lives on one node, and publishers and subscribers are connected
// to that one. There is a connection to each primary that has some of the topics. When
// the slot of a topic moves to another node, the subscription follows it, and a Gap
// says that messages may be missing.
//
// # When Redis is gone
//
// Publish, Subscribe and Add return an error within Timeout. While Redis can't be
// connected to, Publish waits for it: the default of Timeout is enough for a restart. It
// sends a message only once, and returns an error if no answer comes within a third of
// Timeout. Then the message may have been sent all the same, and so it may if ctx ends
// meanwhile. It is the only one that may arrive behind later ones, which are sent on other
// connections. Subscriptions go on by themselves when Redis is back.
//
// A publisher that has waited in vain takes the idle connections of the Client for dead
// unless they answer a PING within half a second: a network that has dropped them all
// costs it one time limit, and not one for each connection.
//
// A Redis has no goroutine and no connection of its own while it has no subscription, but
// for those PINGs and while messages wait to be sent. It must not be copied, and its fields
// must not be changed, once it is used.
type Redis struct {
	// Client reaches a single Redis, a Sentinel group or a Cluster; [NewRedisClient]
	// makes one for a single Redis. It must have ContextTimeoutEnabled in its
	// options, or go-redis would ignore Timeout once a command is sent, and it
	// should have a DialerRetries of 1, or a refused connection takes half a second
	// to be noticed. A Ring won't do. The client is the caller's to close, after the
	// subscriptions.
	Client redis.UniversalClient
	// Prefix is put before each topic to make the name of its channel. "" means none.
	Prefix string
	// Sharded uses the sharded channels of Redis 7 (SPUBLISH, SSUBSCRIBE). All who
	// use a topic must agree on it.
	Sharded bool
	// Queue is the number of messages that may wait in each subscription. 0
	// means 1024. More than these may wait only up to 32 MiB.
	Queue int
	// CloseSlow says what happens to a subscription whose queue is full when
	// another message comes. By default it loses the oldest message in its queue,
	// and Next returns a [Gap] with the number of lost messages in their place.
	// With CloseSlow the subscription is closed: Next still returns what is in the
	// queue, and then an error that wraps [ErrClosed] and says why.
	CloseSlow bool
	// Timeout is how long each Publish, Subscribe and Add may take. 0 means three
	// seconds. Publish waits for an answer for a third of it.
	Timeout time.Duration

	once      sync.Once
	invalid   error
	counts    counts
	publisher redisclient.Publisher

	mu   sync.Mutex
	feed *feed // nil while there is no subscription
}

// maxMessage is the size of a message at most. Redis' own limit is 32 MiB for all that
// waits for a subscriber, in the class pubsub of client-output-buffer-limit.
const maxMessage = 8 << 20

// Publish sends data on topic, and does so only once. It returns an error for more than
// 8 MiB.
func (r *Redis) Publish(ctx context.Context, topic string, data []byte) error {
	defer r.counts.publishTimes.since(time.Now())
	err := r.publish(ctx, topic, data)
	r.counts.publish(err)
	if err != nil {
		return fmt.Errorf("bus: Redis: publish on %q: %w", topic, err)
	}
	return nil
}

func (r *Redis) publish(ctx context.Context, topic string, data []byte) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	if len(data) > maxMessage {
		return fmt.Errorf("the message has %d bytes, and may have %d: Redis would cut off the subscribers", len(data), maxMessage)
	}
	name := "publish"
	if r.Sharded {
		name = "spublish"
	}
	// In a Cluster PUBLISH may be sent to any node, and messages that were sent to
	// different ones could overtake each other. With the channel as its key all
	// messages of a channel are sent to the same node.
	_, err := r.publisher.Do(ctx, r.Client, r.timeout(), &redisclient.Message{Args: []any{name, r.Prefix + topic}, Key: 1, Data: data})
	return err
}

// Subscribe returns when Redis has confirmed the subscription to all topics.
func (r *Redis) Subscribe(ctx context.Context, topics ...string) (Subscription, error) {
	if err := r.ready(ctx); err != nil {
		return nil, fmt.Errorf("bus: Redis: subscribe: %w", err)
	}
	s := r.join()
	if err := s.Add(ctx, topics...); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Validate returns an error if the Client can't be used, because it is missing, is
// a Ring, or lacks ContextTimeoutEnabled, and if Queue or Timeout is negative. It
// asks Redis nothing. A hub, a gateway and package socketio call it when they are
// made; Publish and Subscribe return its error, too.
func (r *Redis) Validate() error {
	if err := r.check(); err != nil {
		return fmt.Errorf("bus: Redis: %w", err)
	}
	return nil
}

func (r *Redis) check() error {
	if r.Queue < 0 || r.Timeout < 0 {
		return fmt.Errorf("a Queue of %d or a Timeout of %v is negative; 0 is the default", r.Queue, r.Timeout)
	}
	return redisclient.CheckPubSub(r.Client)
}

// ready returns the error of a call that can't be made at all.
func (r *Redis) ready(ctx context.Context) error {
	r.once.Do(func() { r.invalid = r.check() })
	if r.invalid != nil {
		return r.invalid
	}
	return ctx.Err()
}

func (r *Redis) timeout() time.Duration { return cmp.Or(r.Timeout, defaultTimeout) }
