package bus

import (
	"context"
	"errors"
)

// Message is one message of a topic.
type Message struct {
	Topic string
	// ID tells a message from any other of its topic and where to resume behind
	// it. Only a bus with a history has IDs.
	ID string
	// Data may be shared with other subscribers: it must not be changed.
	Data []byte
}

// A Bus carries messages to everyone who is subscribed to their topic, in this
// process and in others. What is promised about order and loss is said by each
// type; the messages that one goroutine publishes on one topic, each after the
// last call has returned, never arrive in another order.
//
// All methods may be called concurrently.
type Bus interface {
	// Publish sends data to topic. It returns an error when the bus doesn't take
	// it before ctx ends or within a limit of the bus's own, whatever is sooner;
	// the message may then have been sent or not. data isn't kept.
	Publish(ctx context.Context, topic string, data []byte) error
	// Subscribe returns when messages published on topics from now on will
	// arrive; one that was just published may arrive, too. Topics may be none,
	// to be added later.
	Subscribe(ctx context.Context, topics ...string) (Subscription, error)
}

// A Subscription is one subscriber's queue of messages.
//
// All methods may be called concurrently, Next by one goroutine at a time.
type Subscription interface {
	// Next waits for the next message. A *[Gap] says that messages which were
	// published before now are missing, or may be; the subscription goes on. Any
	// other error wraps [ErrClosed] or is that of ctx.
	Next(ctx context.Context) (Message, error)
	// Add subscribes to further topics; it returns when their messages will
	// arrive. An error says that this isn't sure yet: the topics stay wanted,
	// and a Gap tells when they are there. Topics that it has already are left
	// as they are.
	Add(ctx context.Context, topics ...string) error
	// Remove ends the subscription to topics. Messages that are in the queue
	// already are still delivered.
	Remove(ctx context.Context, topics ...string) error
	// Close ends the subscription: Next returns ErrClosed. It doesn't wait for
	// Redis and returns no error.
	Close() error
}

// ErrClosed is what Next returns once its subscription is closed.
var ErrClosed = errors.New("bus: subscription closed")
