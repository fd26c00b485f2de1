package socketio

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/redisclient"
)

// A link is what a Cluster and an Emitter need of Redis. Tests have one without
// Redis.
type link interface {
	send(ctx context.Context, f *frame) error
	// sendAll sends frames in their order, and calls failed with the error of each that
	// Redis may not have.
	sendAll(frames []frame, failed func(error))
	subscribe(ctx context.Context, sharded bool) (bus.Subscription, error)
	// subscribers returns the number of subscribers of a channel, in all nodes of a
	// Redis Cluster.
	subscribers(ctx context.Context, channel string, sharded bool) (int, error)

	// newest returns the ID of the newest entry of a stream, "0-0" if it is empty.
	newest(ctx context.Context, stream string) (id string, err error)
	// read returns the entries behind one. It waits up to readBlock for some; none
	// is no error.
	read(ctx context.Context, stream, after string) ([]redis.XMessage, error)
	// keeps tells whether a stream still has an entry.
	keeps(ctx context.Context, stream, id string) (bool, error)
}

// redisLink is the link to a real Redis.
type redisLink struct {
	client    redis.UniversalClient
	publisher *redisclient.Publisher
}

// newRedisLink refuses a client that can't be used, such as one that ignores the
// deadlines of contexts.
func newRedisLink(client redis.UniversalClient) (redisLink, error) {
	if err := redisclient.CheckPubSub(client); err != nil {
		return redisLink{}, fmt.Errorf("socketio: %w", err)
	}
	return redisLink{client, &redisclient.Publisher{}}, nil
}

// checked returns the error of a command that was sent at began. After an error, a client of a
// Redis Cluster learns again which node has which keys, since there may have been a failover.
// If Redis hasn't answered in time, idle connections that are dead are dropped.
func (l redisLink) checked(began time.Time, err error) error {
	if err != nil {
		l.publisher.Failed(context.Background(), l.client, began, readBlock)
	}
	return err
}

// sendLimit is how long a frame may take to be sent. Redis has a third of it to answer.
const sendLimit = 3 * time.Second

// send sends a frame once. go-redis would try again after some errors, and clients would get
// an event twice.
func (l redisLink) send(ctx context.Context, f *frame) error {
	if _, err := l.publisher.Do(ctx, l.client, sendLimit, f.command()); err != nil {
		return fmt.Errorf("send to %q: %w", f.channel, err)
	}
	return nil
}

func (l redisLink) sendAll(frames []frame, failed func(error)) {
	all := make([]*redisclient.Message, len(frames))
	for i := range frames {
		all[i] = frames[i].command()
	}
	l.publisher.DoAll(l.client, sendLimit, all, func(err error) { failed(fmt.Errorf("socketio: send: %w", err)) })
}

// waiting is how many messages may wait for a Cluster, up to 32 MiB. For a node of Socket.IO
// as many wait in Redis, by its default client-output-buffer-limit: a Cluster that is as slow
// loses no more.
const waiting = 1 << 16

func (l redisLink) subscribe(ctx context.Context, sharded bool) (bus.Subscription, error) {
	return (&bus.Redis{Client: l.client, Sharded: sharded, Queue: waiting}).Subscribe(ctx)
}

func (l redisLink) subscribers(ctx context.Context, channel string, sharded bool) (int, error) {
	began := time.Now()
	var sum atomic.Int64
	count := func(ctx context.Context, client *redis.Client) error {
		ask := client.PubSubNumSub
		if sharded {
			ask = client.PubSubShardNumSub
		}
		n, err := ask(ctx, channel).Result()
		sum.Add(n[channel])
		return err
	}
	var err error
	switch client := l.client.(type) {
	case *redis.Client:
		err = count(ctx, client)
	case interface {
		ForEachShard(context.Context, func(context.Context, *redis.Client) error) error
	}: // a Redis Cluster: subscribers may be at any node, also at a replica
		err = client.ForEachShard(ctx, count)
	default:
		err = fmt.Errorf("with a %T: %w", client, errors.ErrUnsupported)
	}
	if l.checked(began, err) != nil {
		return 0, fmt.Errorf("socketio: count the subscribers of %q: %w", channel, err)
	}
	return int(sum.Load()), nil
}

const (
	// readCount is how many entries are read at once, as the npm package does.
	readCount = 100
	// readBlock is how long Redis waits for an entry. go-redis doesn't return
	// earlier, even if ctx ends, so the end of Run may take as long.
	readBlock = 500 * time.Millisecond
)

func (l redisLink) newest(ctx context.Context, stream string) (string, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	entries, err := l.client.XRevRangeN(ctx, stream, "+", "-", 1).Result()
	if err != nil {
		return "", l.checked(began, err)
	}
	if len(entries) == 0 {
		return "0-0", nil
	}
	return entries[0].ID, nil
}

func (l redisLink) read(ctx context.Context, stream, after string) ([]redis.XMessage, error) {
	due := time.Now().Add(readBlock)
	ctx, cancel := context.WithTimeout(ctx, readBlock+time.Second)
	defer cancel()
	streams, err := l.client.XRead(ctx, &redis.XReadArgs{
		Streams: []string{stream, after}, Count: readCount, Block: readBlock,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil || len(streams) == 0 {
		return nil, l.checked(due, err)
	}
	return streams[0].Messages, nil
}

func (l redisLink) keeps(ctx context.Context, stream, id string) (bool, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	entries, err := l.client.XRangeN(ctx, stream, id, id, 1).Result()
	return len(entries) > 0, l.checked(began, err)
}
