package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/limpet-go/limpet/bus"
)

// JetStream is a [bus.Bus] over a stream of NATS, which keeps a bounded history of each topic.
//
// # What it promises
//
// A message that is in the history when it is read arrives exactly once, and all
// subscriptions get the messages of a topic in the same order. A subscription keeps its place
// in each topic. It reads on from there after the connection was broken, after its queue was
// full, and, by [JetStream.SubscribeFrom], in a process that was started again. It gets a
// [bus.Gap] with a Lost of -1 where messages may have gone from the history before it has
// read them: when the last one that it has got is gone, too.
//
// If Publish returns no error, the stream has the message, on as many servers as it has
// replicas. A Publish that gets no answer is repeated until Timeout with the same Nats-Msg-Id,
// and the stream drops the copies, within the time Duplicates of its configuration. A message
// whose Publish has returned an error may arrive behind later ones, or not at all.
//
// A stream that is deleted and made again, or that has lost its end because all servers with
// a replica of it failed at once, counts its messages anew. Subscriptions notice that when
// their consumer or the connection has to be made again: they get a Gap, and go on behind the
// newest message.
//
// # Cost
//
// Each topic of each subscription is a consumer of its own at the server, and subscribing to
// it takes two calls. That suits some thousands of them in all: a hub with many rooms is
// better off with [Core].
//
// While NATS is away, Publish, Subscribe and Add wait for it, and return an error within
// Timeout. When the connection is closed, all subscriptions are closed, and the error of Next
// says so.
//
// A JetStream has no goroutine of its own while it has no subscription. It must not be copied, and its
// fields must not be changed, once it is used.
type JetStream struct {
	// Conn is the connection, which may be used for other purposes, too. It is the
	// caller's to close, after the subscriptions.
	Conn *nats.Conn
	// Stream is the name of the stream; "" means LIMPET. If there is none with this name, it
	// is made: with one replica, on disk, and with MaxLen. Make it before to have another
	// one; its subjects must be the Prefix followed by >.
	Stream string
	// Prefix is put before each topic to make its subject, and ends with a dot. "" means
	// "limpet.".
	Prefix string
	// MaxLen is the number of messages that each topic keeps in a stream that is made. 0
	// means 10,000.
	MaxLen int64
	// Queue is the number of messages that may wait in each subscription. 0 means 1024. A
	// subscription whose queue is full reads on from the history once there is room. It
	// delays nobody.
	Queue int
	// Timeout is how long each Publish, Subscribe and Add may take. 0 means three seconds.
	// Publish waits for an answer for a third of it before it sends the message again.
	Timeout time.Duration

	once    sync.Once
	invalid error
	api     jetstream.JetStream
	published
	publisher       string // random, begins the ID of each message
	number          atomic.Uint64
	delivered, gaps atomic.Int64

	mu     sync.Mutex
	stream jetstream.Stream              // nil until it was found or made
	subs   map[*jetSubscription]struct{} // those that are open
	stop   context.CancelFunc            // of watch
	begun  bool                          // there was a subscription
	begin  uint64                        // the number of reconnects of Conn before the first one
}

// Publish adds data to the history of topic.
func (j *JetStream) Publish(ctx context.Context, topic string, data []byte) error {
	began := time.Now()
	err := j.publish(ctx, topic, data)
	j.published.note(began, err)
	if err != nil {
		return fmt.Errorf("bus: JetStream: publish on %q: %w", topic, err)
	}
	return nil
}

func (j *JetStream) publish(ctx context.Context, topic string, data []byte) error {
	if err := j.ready(ctx); err != nil {
		return err
	}
	id := j.publisher + strconv.FormatUint(j.number.Add(1), 36)
	return j.try(ctx, func(ctx context.Context) error {
		if _, err := j.open(ctx); err != nil {
			return err
		}
		_, err := j.api.Publish(ctx, subject(j.prefix(), topic), data, jetstream.WithMsgID(id))
		return err
	})
}

// try calls do until it returns no error, one that waiting doesn't change, or until Timeout.
// Each call has a third of that.
func (j *JetStream) try(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, j.timeout())
	defer cancel()
	for {
		attempt, done := context.WithTimeout(ctx, j.timeout()/3)
		err := do(attempt)
		done()
		var refusal *jetstream.APIError
		final := errors.As(err, &refusal) && refusal.Code < 500 || j.Conn.IsClosed() ||
			errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrPermissionViolation)
		if err == nil || final || !rest(ctx) {
			return err
		}
	}
}

// open returns the stream, which it makes if there is none.
func (j *JetStream) open(ctx context.Context) (jetstream.Stream, error) {
	j.mu.Lock()
	stream := j.stream
	j.mu.Unlock()
	if stream != nil {
		return stream, nil
	}
	name := cmp.Or(j.Stream, "LIMPET")
	stream, err := j.api.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		// Several processes may do so at once: the same stream isn't made twice.
		stream, err = j.api.CreateStream(ctx, jetstream.StreamConfig{
			Name: name, Description: "a bus of Limpet", Subjects: []string{j.prefix() + ">"},
			MaxMsgsPerSubject: cmp.Or(j.MaxLen, 10_000), Duplicates: 2 * time.Minute,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stream = stream
	return stream, nil
}

// Subscribe subscribes to topics, each behind its newest message.
func (j *JetStream) Subscribe(ctx context.Context, topics ...string) (bus.Subscription, error) {
	after := make(map[string]string, len(topics))
	for _, topic := range topics {
		after[topic] = ""
	}
	return j.SubscribeFrom(ctx, after)
}

// SubscribeFrom subscribes to the topics that are the keys of after, each behind the message
// whose ID is the value. "" means behind the newest message, and "0" before the oldest one.
func (j *JetStream) SubscribeFrom(ctx context.Context, after map[string]string) (bus.Subscription, error) {
	if err := j.ready(ctx); err != nil {
		return nil, fmt.Errorf("bus: JetStream: subscribe: %w", err)
	}
	from := make(map[string]*uint64, len(after))
	for topic, id := range after {
		from[topic] = nil
		if id != "" {
			n, err := strconv.ParseUint(id, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("bus: JetStream: subscribe to %q behind %q: that isn't an ID of a message", topic, id)
			}
			from[topic] = &n
		}
	}
	s := j.join()
	if err := s.add(ctx, from); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Validate returns an error if Conn is missing, if MaxLen, Queue or Timeout is negative, and if
// the Prefix doesn't end with a dot. Publish and Subscribe return it, too.
func (j *JetStream) Validate() error {
	if err := j.check(); err != nil {
		return fmt.Errorf("bus: JetStream: %w", err)
	}
	return nil
}

func (j *JetStream) check() error {
	if j.MaxLen < 0 {
		return fmt.Errorf("a MaxLen of %d is negative; 0 is the default", j.MaxLen)
	}
	if !strings.HasSuffix(j.prefix(), ".") {
		return fmt.Errorf("the Prefix %q doesn't end with a dot, so that the stream would have no subjects", j.Prefix)
	}
	return check(j.Conn, j.Queue, j.Timeout)
}

// Stats returns the figures of this bus. It may be called concurrently, and asks NATS nothing.
// Dropped and ClosedSlow are 0, since a slow subscription reads on from the history.
func (j *JetStream) Stats() bus.Stats {
	s := bus.Stats{Delivered: j.delivered.Load(), Gaps: j.gaps.Load()}
	j.published.into(&s)
	if j.Conn == nil {
		return s
	}
	reconnects, connected := j.Conn.Stats().Reconnects, j.Conn.IsConnected()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.begun {
		s.Disconnects = int64(reconnects - j.begin)
	}
	topics := map[string]bool{} // whether it is live
	for sub := range j.subs {
		s.Subscriptions++
		s.Queued += len(sub.items)
		s.LongestQueue = max(s.LongestQueue, len(sub.items))
		for topic, live := range sub.live() {
			others, ok := topics[topic]
			topics[topic] = live && connected && (others || !ok)
		}
	}
	s.Topics = len(topics)
	for _, live := range topics {
		if !live {
			s.Away++
		}
	}
	return s
}

// ready returns the error of a call that can't be made at all.
func (j *JetStream) ready(ctx context.Context) error {
	j.once.Do(func() {
		if j.invalid = j.check(); j.invalid == nil {
			j.api, j.invalid = jetstream.New(j.Conn)
		}
		j.publisher = strconv.FormatUint(rand.Uint64(), 36) + "-"
	})
	return cmp.Or(j.invalid, ctx.Err())
}

func (j *JetStream) timeout() time.Duration { return cmp.Or(j.Timeout, 3*time.Second) }
func (j *JetStream) prefix() string         { return cmp.Or(j.Prefix, "limpet.") }
