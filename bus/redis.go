package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
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
// A subscriber that is too slow loses what Overflow says, and doesn't delay the
// others.
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
	// Client reaches a single Redis, a Sentinel group or a Cluster. It needs
	// ContextTimeoutEnabled, or go-redis ignores Timeout once a command is sent.
	// A refused connection is noticed at once only with DialerRetries of 1. The
	// client is the caller's to close, after the subscriptions. A Ring won't do.
	Client redis.UniversalClient
	// Prefix goes before each topic. "" means none.
	Prefix string
	// Sharded means sharded channels (SPUBLISH, SSUBSCRIBE), of Redis 7. All
	// who use a topic must agree on it.
	Sharded bool
	// Queue is the number of messages that may wait in each subscription. 0
	// means 1024.
	Queue int
	// Overflow is what happens to a subscription when one more comes.
	Overflow Overflow
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
	cmd := onceCmd{redis.NewIntCmd(ctx, name, r.Prefix+topic, data)}
	// In a Cluster a channel has no node of its own for PUBLISH. It gets one, or
	// messages would arrive in another order.
	cmd.SetFirstKeyPos(1)
	err := r.Client.Process(ctx, cmd)
	if err != nil {
		reload(r.Client)
	}
	return err
}

// onceCmd is a command that go-redis doesn't send again when it doesn't know
// whether Redis has it.
type onceCmd struct{ *redis.IntCmd }

// NoRetry tells go-redis so.
func (onceCmd) NoRetry() bool { return true }

// reload has a client of a Cluster ask which node has which slots: without that
// it may learn of a failover a minute later.
func reload(client any) {
	if c, ok := client.(interface{ ReloadState(context.Context) }); ok {
		c.ReloadState(context.Background())
	}
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

// ready returns what keeps a call from being made at all.
func (r *Redis) ready(ctx context.Context) error {
	r.once.Do(func() { r.invalid = checkClient(r.Client) })
	if r.invalid != nil {
		return r.invalid
	}
	return ctx.Err()
}

func (r *Redis) timeout() time.Duration { return cmp.Or(r.Timeout, time.Second) }

// checkClient refuses a client that a bus can't be built on.
func checkClient(client redis.UniversalClient) error {
	heeds := true // if it is somebody's own
	switch c := client.(type) {
	case nil:
		return errors.New("no Client")
	case *redis.Ring:
		return errors.New("a Ring is several Redis, which know nothing of each other")
	case *redis.Client:
		heeds = c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		heeds = c.Options().ContextTimeoutEnabled
	}
	if !heeds {
		return errors.New("the Client's options need ContextTimeoutEnabled, or a Redis that hangs holds up publishers")
	}
	return nil
}
