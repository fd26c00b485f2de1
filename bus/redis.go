package bus

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// Redis is a [Bus] over Redis' publish and subscribe.
//
// A topic, with Prefix before it, is the name of a channel, and a message is
// sent as it is: whatever speaks to Redis can take part.
type Redis struct {
	// Client reaches a single Redis, a Sentinel group or a Cluster. It needs
	// ContextTimeoutEnabled, or go-redis ignores Timeout once a command is sent.
	// The client is the caller's to close, after the subscriptions.
	Client redis.UniversalClient
	// Prefix goes before each topic. "" means none.
	Prefix string
	// Sharded means sharded channels (SPUBLISH, SSUBSCRIBE), of Redis 7.
	Sharded bool
	// Queue is the number of messages that may wait in each subscription. 0
	// means 1024.
	Queue int
	// Overflow is what happens to a subscription when one more comes.
	Overflow Overflow
	// Timeout bounds each Publish, Subscribe and Add. 0 means one second.
	Timeout time.Duration
}

// Publish implements [Bus].
func (r *Redis) Publish(ctx context.Context, topic string, data []byte) error {
	return errors.ErrUnsupported
}

// Subscribe implements [Bus].
func (r *Redis) Subscribe(ctx context.Context, topics ...string) (Subscription, error) {
	return nil, errors.ErrUnsupported
}
