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
// A topic, with Prefix before it, is the name of a channel, and a message is
// sent as it is: whatever speaks to Redis can take part.
//
// # What it promises
//
// A message arrives at most once. Those that one goroutine publishes on a topic
// arrive in their order. That Publish returns no error means that Redis had the
// message, which has no history: who isn't subscribed doesn't get it.
//
// All subscriptions of a Redis value share one connection, and one SUBSCRIBE a
// topic. When it breaks, or doesn't answer for a second, it is made anew with all
// topics, and each subscription that was on one of them gets one [Gap] with those
// topics, whose Lost is -1: what was published in between is lost, and how much
// that is nobody knows. A connection on which nothing comes is asked for a word every 0.3 s
// at most, so one that is dead is found within 1.3 s.
//
// A subscriber that is too slow doesn't delay the others: it loses messages or is
// closed, as CloseSlow says.
//
// # Cluster
//
// Without Sharded a message goes through all nodes of a Cluster, and nobody is
// told when the connection between two of them breaks: what is lost there is
// lost in silence. With Sharded, a topic lives on one node, which the publisher
// and the subscriber are both connected to: the Redis has a connection to each
// primary that has one of its topics, follows them when their slots move, and
// says by a Gap what it may have missed then.
//
// # When Redis is gone
//
// Publish, Subscribe and Add return an error within Timeout. Publish sends a
// message once, so after an error it may have been sent or not. Subscriptions
// go on by themselves.
//
// It has no goroutine and no connection while there is no subscription. Fields
// must not be changed once it is used, and a Redis must not be copied.
type Redis struct {
	// Client reaches a single Redis, a Sentinel group or a Cluster; [NewRedisClient]
	// makes one for a single Redis. It must have ContextTimeoutEnabled in its
	// options, or go-redis would ignore Timeout once a command is sent, and it
	// should have a DialerRetries of 1, or a refused connection takes half a second
	// to be noticed. A Ring won't do. The client is the caller's to close, after the
	// subscriptions.
	Client redis.UniversalClient
	// Prefix goes before each topic. "" means none.
	Prefix string
	// Sharded means sharded channels (SPUBLISH, SSUBSCRIBE), of Redis 7. All
	// who use a topic must agree on it.
	Sharded bool
	// Queue is the number of messages that may wait in each subscription. 0
	// means 1024.
	Queue int
	// CloseSlow says what happens to a subscription whose queue is full when
	// another message comes. By default it loses the oldest message in its queue,
	// and Next returns a [Gap] with the number of lost messages in their place.
	// With CloseSlow the subscription is closed: Next still returns what is in the
	// queue, and then an error that wraps [ErrClosed] and says why.
	CloseSlow bool
	// Timeout bounds each Publish, Subscribe and Add. 0 means one second.
	Timeout time.Duration

	once    sync.Once
	invalid error

	mu   sync.Mutex
	feed *feed // nil while there is no subscription
}

// Publish sends data on topic, once.
func (r *Redis) Publish(ctx context.Context, topic string, data []byte) error {
	if err := r.publish(ctx, topic, data); err != nil {
		return fmt.Errorf("bus: Redis: publish on %q: %w", topic, err)
	}
	return nil
}

func (r *Redis) publish(ctx context.Context, topic string, data []byte) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout())
	defer cancel()
	name := "publish"
	if r.Sharded {
		name = "spublish"
	}
	cmd := redisclient.Once{Cmd: redis.NewCmd(ctx, name, r.Prefix+topic, data)}
	// In a Cluster a channel has no node of its own for PUBLISH. It gets one, or
	// messages would arrive in another order.
	cmd.SetFirstKeyPos(1)
	err := r.Client.Process(ctx, cmd)
	if err != nil {
		redisclient.Reload(r.Client)
	}
	return err
}

// Subscribe returns once Redis has confirmed all topics, or an error.
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

// ready returns what keeps a call from being made at all.
func (r *Redis) ready(ctx context.Context) error {
	r.once.Do(func() { r.invalid = r.check() })
	if r.invalid != nil {
		return r.invalid
	}
	return ctx.Err()
}

func (r *Redis) timeout() time.Duration { return cmp.Or(r.Timeout, time.Second) }
