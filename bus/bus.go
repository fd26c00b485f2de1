package bus

import (
	"context"
	"errors"
)

// A Message is one message of a topic.
type Message struct {
	Topic string
	// ID identifies the message within its topic, and is what a subscription to the
	// messages behind it begins with ([Streams.SubscribeFrom]). It is empty on a bus
	// that is no [History].
	ID string
	// Data must not be changed: other subscribers may have the same bytes.
	Data []byte
}

// A Bus carries messages to all who are subscribed to their topic, in this process and
// in others. The messages that one goroutine publishes on one topic, each after the
// call before has returned without an error, never arrive in another order. What else is
// promised about order and loss, and about a message whose Publish has returned an error,
// is said at each implementation.
//
// All methods may be called concurrently.
type Bus interface {
	// Publish sends data to a topic, and doesn't keep data. It returns an error if
	// the bus hasn't taken the message before ctx ends, or within a time limit of
	// the bus. The message may have been sent all the same.
	Publish(ctx context.Context, topic string, data []byte) error
	// Subscribe returns when all messages that are published on the topics from
	// then on will arrive. A message that was published just before may arrive,
	// too. Without topics it returns a subscription to add some to.
	Subscribe(ctx context.Context, topics ...string) (Subscription, error)
}

// A Subscription is one subscriber's queue of messages.
//
// All methods may be called concurrently, Next by one goroutine at a time.
type Subscription interface {
	// Next waits for the next message. An error that is a *[Gap] says that messages
	// are missing here, or may be, and the subscription goes on. Any other error
	// wraps [ErrClosed] or is that of ctx.
	Next(ctx context.Context) (Message, error)
	// Add subscribes to further topics and returns when their messages will arrive.
	// An error says that this isn't certain yet: the bus goes on trying, and Next
	// returns a Gap with these topics once it has succeeded. Topics that are
	// subscribed to already stay as they are.
	Add(ctx context.Context, topics ...string) error
	// Remove ends the subscription to topics. Next still returns their messages
	// that are in the queue already.
	Remove(ctx context.Context, topics ...string) error
	// Close ends the subscription: Next returns ErrClosed from then on. It doesn't
	// wait for anything, and returns no error.
	Close() error
}

// ErrClosed is returned by the methods of a subscription once it is closed.
var ErrClosed = errors.New("bus: subscription closed")
