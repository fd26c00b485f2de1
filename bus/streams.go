package bus

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// Streams is a [Bus] over Redis Streams, of Redis 7: one stream for each topic,
// which keeps a bounded history.
type Streams struct {
	// Client is as for [Redis].
	Client redis.UniversalClient
	// Prefix goes before each topic. "" means "limpet:bus:".
	Prefix string
	// MaxLen is the number of messages that each topic keeps at least. 0 means
	// 10,000. It must be the same for all who publish on a topic.
	MaxLen int64
	// Queue is the number of messages that may wait in each subscription. 0
	// means 1024. A subscription whose queue is full reads on from the history
	// once there is room.
	Queue int
	// Timeout bounds each Publish, Subscribe and Add. 0 means one second.
	Timeout time.Duration
}

// Publish implements [Bus].
func (s *Streams) Publish(ctx context.Context, topic string, data []byte) error {
	return errors.ErrUnsupported
}

// Subscribe implements [Bus].
func (s *Streams) Subscribe(ctx context.Context, topics ...string) (Subscription, error) {
	return nil, errors.ErrUnsupported
}

// SubscribeFrom subscribes to the topics that are after's keys, each behind the
// message whose ID is given: a process that has started again passes the IDs of
// the last messages it saw. "" means behind the newest message, "0" before the
// oldest one.
func (s *Streams) SubscribeFrom(ctx context.Context, after map[string]string) (Subscription, error) {
	return nil, errors.ErrUnsupported
}
