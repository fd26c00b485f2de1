package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

// Streams is a [Bus] over Redis Streams, of Redis 7 or later: one stream for each
// topic, which keeps a bounded history.
//
// # What it promises
//
// A message arrives exactly once, in the one order that its topic has for all,
// as long as it is in the history when it is read. A subscription keeps its place
// in each topic: it goes on there when the connection was broken, when its
// queue was full, and with [Streams.SubscribeFrom] in a process that was started
// again. It gets a [Gap] when messages behind its place are gone: with their
// number when the history was trimmed, with a Lost of -1 when Redis has lost
// data and nobody can tell.
//
// A Publish whose connection breaks is repeated until Timeout, and subscribers
// drop the copies: each message names its publisher and has a number, and the
// lowest of the numbers that its publisher still had in hand. So a copy is told
// apart however late it comes, and the message of a Publish that has returned an
// error arrives in its place or not at all. The one exception is a copy more than
// 128 messages behind its original, when the process of the subscriber was
// started again in between.
//
// A message that takes more than a second to read is never read, nor are those
// behind it: on a slow network, messages have to be small.
//
// What Publish has returned no error for is in the memory of the primary. How
// long it is lost with that depends on the settings of Redis: with appendonly and
// appendfsync always it survives a crash, with everysec the last second may be
// lost, without a file all is. A failover loses what the replica didn't have
// yet. A subscription whose last message is lost gets a Gap. A Redis that is
// shut down properly loses nothing with appendonly, whatever appendfsync is.
//
// # How it works
//
// Publish is one script, which adds to the stream (with the fields m and d) and
// then rings on the sharded channel of the same name. A process has one
// subscribed connection for all of its subscriptions (in a Cluster one to each
// primary that has a topic of theirs, whatever the slots), and reads on when it
// rings: as many topics as have rung and as many messages as are there by one
// round trip. So nothing is read by a blocked connection that would have to be
// woken for a new topic, and nothing is lost with a ring. Who adds to a stream
// by other means must ring, too.
//
// It has no goroutine while there is no subscription. Fields must not be
// changed once it is used, and a Streams must not be copied.
type Streams struct {
	// Client is as for [Redis]. One that reads from replicas won't do.
	Client redis.UniversalClient
	// Prefix goes before each topic. "" means "limpet:bus:".
	Prefix string
	// MaxLen is the number of messages that each topic keeps at least (and a
	// hundred or so more). 0 means 10,000. It must be the same for all who
	// publish on a topic.
	MaxLen int64
	// Idle is how long a topic stays in Redis when nothing is published on it.
	// A subscriber that was there before gets a Gap with the next message: it
	// can't know that nothing else was lost. 0 means for ever.
	Idle time.Duration
	// Queue is the number of messages that may wait in each subscription. 0
	// means 1024. A subscription whose queue is full reads on from the history
	// once there is room: it delays nobody, and loses only what is trimmed
	// before it is read.
	Queue int
	// Timeout bounds each Publish, Subscribe and Add. 0 means one second. With
	// more than a restart of Redis takes, publishers don't notice one.
	Timeout time.Duration

	once    sync.Once
	invalid error
	ledger  ledger
	bell    Redis

	mu     sync.Mutex
	reader *reader // nil while there is no subscription
}

// addAndRing adds a message and rings.
var addAndRing = redis.NewScript(`
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'm', ARGV[2], 'd', ARGV[3])
if ARGV[4] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
redis.call('SPUBLISH', KEYS[1], id)
return id`)

// Publish adds data to the history of topic.
func (s *Streams) Publish(ctx context.Context, topic string, data []byte) error {
	if err := s.publish(ctx, topic, data); err != nil {
		return fmt.Errorf("bus: Streams: publish on %q: %w", topic, err)
	}
	return nil
}

func (s *Streams) publish(ctx context.Context, topic string, data []byte) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	mark, done := s.ledger.open()
	defer done()
	for {
		// A connection that is dead without a word must not use up all the time.
		attempt, cancel := context.WithTimeout(ctx, s.timeout()/3)
		err := addAndRing.Run(attempt, s.Client, []string{s.key(topic)},
			cmp.Or(s.MaxLen, 10_000), mark.String(), data, max(0, s.Idle.Milliseconds())).Err()
		cancel()
		if err == nil {
			return nil
		}
		redisclient.Reload(s.Client)
		if !passes(err) {
			return err
		}
		select {
		case <-time.After(retryPause / 4):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// passes tells whether an error may be gone at the next attempt.
func passes(err error) bool {
	var answer redis.Error
	return !errors.As(err, &answer) || redis.IsLoadingError(err) || redis.IsReadOnlyError(err) ||
		redis.IsMasterDownError(err) || redis.IsClusterDownError(err) || redis.IsTryAgainError(err)
}

// Subscribe subscribes behind the newest message of each topic.
func (s *Streams) Subscribe(ctx context.Context, topics ...string) (Subscription, error) {
	after := make(map[string]string, len(topics))
	for _, topic := range topics {
		after[topic] = ""
	}
	return s.SubscribeFrom(ctx, after)
}

// SubscribeFrom subscribes to the topics that are after's keys, each behind the
// message whose ID is given: a process that has started again passes the IDs of
// the last messages it has dealt with. "" means behind the newest message, "0"
// before the oldest one.
func (s *Streams) SubscribeFrom(ctx context.Context, after map[string]string) (Subscription, error) {
	if err := s.ready(ctx); err != nil {
		return nil, fmt.Errorf("bus: Streams: subscribe: %w", err)
	}
	ids := make(map[string]*streamID, len(after))
	for topic, text := range after {
		ids[topic] = nil
		if text != "" {
			id, err := parseStreamID(text)
			if err != nil {
				return nil, fmt.Errorf("bus: Streams: subscribe to %q: %w", topic, err)
			}
			ids[topic] = &id
		}
	}
	sub, err := s.join()
	if err != nil {
		return nil, err
	}
	if err := sub.add(ctx, ids); err != nil {
		sub.Close()
		return nil, err
	}
	return sub, nil
}

// Validate returns an error if the Client can't be used: for the reasons of
// [Redis.Validate], or because it reads from replicas. It refuses negative options,
// too.
func (s *Streams) Validate() error {
	if err := s.check(); err != nil {
		return fmt.Errorf("bus: Streams: %w", err)
	}
	return nil
}

func (s *Streams) check() error {
	if s.MaxLen < 0 || s.Idle < 0 || s.Queue < 0 || s.Timeout < 0 {
		return fmt.Errorf("a MaxLen of %d, an Idle of %v, a Queue of %d or a Timeout of %v is negative; 0 is the default",
			s.MaxLen, s.Idle, s.Queue, s.Timeout)
	}
	if err := redisclient.CheckPubSub(s.Client); err != nil {
		return err
	}
	if c, ok := s.Client.(*redis.ClusterClient); ok && c.Options().ReadOnly {
		return errors.New("the Client reads from replicas, which may lack what was added just now: " +
			"set ReadOnly, RouteByLatency and RouteRandomly to false in its options")
	}
	return nil
}

// ready returns what keeps a call from being made at all.
func (s *Streams) ready(ctx context.Context) error {
	s.once.Do(func() {
		s.invalid = s.check()
		s.bell = Redis{Client: s.Client, Sharded: true, Queue: 1 << 14, Timeout: s.Timeout}
	})
	if s.invalid != nil {
		return s.invalid
	}
	return ctx.Err()
}

func (s *Streams) timeout() time.Duration { return cmp.Or(s.Timeout, time.Second) }

func (s *Streams) key(topic string) string { return cmp.Or(s.Prefix, "limpet:bus:") + topic }
