package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

// Streams is a [Bus] over the streams of Redis 7 or later. Each topic is one stream,
// which keeps a bounded history.
//
// # What it promises
//
// A message that is in the history when it is read arrives exactly once, and all
// subscriptions get the messages of a topic in the same order. A subscription keeps its
// place in each topic. It reads on from there after the connection was broken, after
// its queue was full, and, by [Streams.SubscribeFrom], in a process that was started
// again. It gets a [Gap] when messages behind its place are gone: with their number if
// the history was trimmed, with a Lost of -1 if Redis has lost data and nobody can tell
// how much.
//
// A Publish whose connection breaks is repeated until Timeout, and subscribers drop the
// copies. For that each message has the name of its publisher, a number, and the lowest
// number that the publisher wasn't done with at that time. So a copy is recognized
// however late it comes, and the message of a Publish that has returned an error arrives
// in its place or not at all. There is one exception: a copy more than 128 messages
// behind its original arrives if the process of the subscriber was started again in
// between.
//
// A message that takes more than a second to read is never read, and neither are those
// behind it. On a slow network messages have to be small.
//
// # What Redis may lose
//
// When Publish returns no error the message is in the memory of the primary. Whether it
// survives a crash depends on the settings of Redis: with appendonly and an appendfsync
// of always it does, with everysec the messages of the last second may be lost, and
// without appendonly all are. A failover loses the messages that the replica didn't have
// yet. A Redis that is shut down properly loses nothing with appendonly, whatever
// appendfsync is. A subscription that has got a message that is lost gets a Gap.
//
// # How it works
//
// Publish runs one script. It adds an entry to the stream, with the fields m (who has
// published it) and d (the data), and then rings: it publishes on the sharded channel with
// the name of the stream. A ring has the ID of the entry and, up to 16 KiB, the message,
// with the ID of the entry before it. A process is subscribed to the channels of all of its
// topics on one connection, or, in a Cluster, on one to each primary that has some of them.
// As long as the entries that ring follow each other it reads nothing. Else it reads all the
// streams that have rung, and all that is new in them, by one round trip. So no connection
// is blocked in a read, which would have to be interrupted to add a topic; and a ring that
// gets lost loses no message. A program that adds to a stream by other means must ring, too;
// the ID will do.
//
// Messages that are published at the same time are sent together, as those of [Redis] are.
//
// When Redis hasn't answered in time, the idle connections of the Client are taken for
// dead unless they answer a PING within half a second: a network that has dropped them all
// costs publishers and subscribers one time limit, and not one for each connection.
//
// A Streams has no goroutine while it has no subscription, but for those PINGs and while
// messages wait to be sent. It must not be copied, and its fields must not be changed, once
// it is used.
type Streams struct {
	// Client is what [Redis] needs. One that reads from replicas won't do.
	Client redis.UniversalClient
	// Prefix is put before each topic to make the key of its stream. "" means
	// "limpet:bus:".
	Prefix string
	// MaxLen is the number of messages that each topic keeps at least; Redis keeps a
	// hundred or so more. 0 means 10,000. It must be the same for all who publish on
	// a topic.
	MaxLen int64
	// MaxBytes bounds the memory that the history of each topic takes in Redis. The oldest
	// messages are trimmed, MaxLen or not, but never the newest one. Redis looks at the
	// size now and then, about 64 times while so many bytes are published: a topic rarely
	// has more than an eighth above MaxBytes. 0 means no bound. Below 64 KiB the bound is
	// a rough one.
	MaxBytes int64
	// Idle is how long a topic stays in Redis after the last message was published
	// on it; 0 means for ever. A subscription that was there before gets a Gap with
	// the next message: it can't know that nothing else was lost.
	Idle time.Duration
	// Queue is the number of messages that may wait in each subscription. 0 means
	// 1024. More than these may wait only up to 32 MiB. A subscription whose queue is
	// full reads on from the history once there is room. It delays nobody, and loses
	// only what is trimmed before it is read.
	Queue int
	// Timeout is how long each Publish, Subscribe and Add may take. 0 means three
	// seconds. If it is longer than a restart of Redis takes, publishers don't notice
	// a restart. Publish waits for an answer for a third of it before it sends the
	// message again.
	Timeout time.Duration

	once      sync.Once
	invalid   error
	counts    counts
	ledger    ledger
	publisher redisclient.Publisher
	bell      Redis // subscribes to the channels that ring

	mu     sync.Mutex
	reader *reader // nil while there is no subscription
}

// addAndRing adds a message to the stream KEYS[1] and rings: see [ring]. Its arguments are
// MaxLen, the mark, Idle in milliseconds, 0 for none, MaxBytes, 0 if it isn't looked at, the
// name of the database in a ring, and the data. The entry before may be one of megabytes, which is costly to look at. That is
// done at most once for each entry, and costs less than it took to add it.
const addAndRing = `
local data, before = ARGV[6], '0-0'
local small = #data <= 16384
if small then
	local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
	if last then before = last[1] end
end
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'm', ARGV[2], 'd', data)
if ARGV[3] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
local bytes = tonumber(ARGV[4])
if bytes > 0 then
	local n = redis.call('XLEN', KEYS[1])
	while n > 1 and redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0) > bytes do
		if redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', math.floor(n * 7 / 8)) == 0 then break end
		n = redis.call('XLEN', KEYS[1])
	end
end
if small then
	redis.call('SPUBLISH', KEYS[1], id .. ' ' .. ARGV[5] .. before .. ' ' .. ARGV[2] .. '\n' .. data)
else
	redis.call('SPUBLISH', KEYS[1], id)
end
return id`

var addAndRingHash = redis.NewScript(addAndRing).Hash()

// Publish adds data to the history of topic. [Streams.Append] returns the ID, too.
func (s *Streams) Publish(ctx context.Context, topic string, data []byte) error {
	_, err := s.Append(ctx, topic, data)
	return err
}

// publish returns the ID of the message.
func (s *Streams) publish(ctx context.Context, topic string, data []byte) (id string, err error) {
	if err := s.ready(ctx); err != nil {
		return "", err
	}
	mark, done := s.ledger.open()
	defer done()
	began := time.Now()
	m := &redisclient.Message{
		Args: []any{
			"evalsha", addAndRingHash, 1, s.key(topic),
			cmp.Or(s.MaxLen, 10_000), mark.String(), max(0, s.Idle.Milliseconds()), s.bound(len(data)), s.database(),
		},
		Key: 3, Data: data, Repeat: true,
	}
	answer, err := s.publisher.Do(ctx, s.Client, s.timeout(), m)
	if redis.HasErrorPrefix(err, "NOSCRIPT") { // Redis doesn't know the script yet, or was restarted
		m.Args[0], m.Args[1] = "eval", addAndRing
		answer, err = s.publisher.Do(ctx, s.Client, s.timeout()-time.Since(began), m)
	}
	id, _ = answer.(string)
	return id, err
}

// bound returns MaxBytes for one message in as many as make up a 64th of it, and 0 for the
// others: it costs Redis something to count the bytes of a history.
func (s *Streams) bound(size int) int64 {
	if s.MaxBytes == 0 || rand.N(s.MaxBytes/64+1) > int64(size+entrySize) {
		return 0
	}
	return s.MaxBytes
}

// entrySize is about what an entry takes beside its data.
const entrySize = 64

// Subscribe subscribes to topics, each behind its newest message.
func (s *Streams) Subscribe(ctx context.Context, topics ...string) (Subscription, error) {
	after := make(map[string]string, len(topics))
	for _, topic := range topics {
		after[topic] = ""
	}
	return s.SubscribeFrom(ctx, after)
}

// SubscribeFrom subscribes to the topics that are the keys of after, each behind the
// message whose ID is the value. "" means behind the newest message, and "0" before the
// oldest one. A process that was started again goes on with the message behind the last
// one that it has dealt with:
//
//	sub, err := streams.SubscribeFrom(ctx, map[string]string{"orders": lastID})
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
	if s.MaxLen < 0 || s.MaxBytes < 0 || s.Idle < 0 || s.Queue < 0 || s.Timeout < 0 {
		return fmt.Errorf("a MaxLen of %d, a MaxBytes of %d, an Idle of %v, a Queue of %d or a Timeout of %v is negative; 0 is the default",
			s.MaxLen, s.MaxBytes, s.Idle, s.Queue, s.Timeout)
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

// ready returns the error of a call that can't be made at all.
func (s *Streams) ready(ctx context.Context) error {
	s.once.Do(s.init)
	if s.invalid != nil {
		return s.invalid
	}
	return ctx.Err()
}

func (s *Streams) init() {
	s.invalid = s.check()
	s.bell = Redis{Client: s.Client, Sharded: true, Queue: 1 << 14, Timeout: s.Timeout}
}

func (s *Streams) timeout() time.Duration { return cmp.Or(s.Timeout, defaultTimeout) }

// key returns the key of a topic's stream, which is also the name of the channel that
// rings for it.
func (s *Streams) key(topic string) string { return cmp.Or(s.Prefix, "limpet:bus:") + topic }

// database returns what stands before the ID in the rings of the Client's database: its number
// and a colon, or nothing for 0.
func (s *Streams) database() string {
	if c, ok := s.Client.(interface{ Options() *redis.Options }); ok && c.Options().DB != 0 {
		return strconv.Itoa(c.Options().DB) + ":"
	}
	return ""
}
