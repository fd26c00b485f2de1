package bus

import "context"

// A History is a [Bus] that keeps the newest messages of each topic: [Streams] is one, and
// [Memory] with its field History set.
//
// Each message has an ID, which its subscribers get as [Message].ID. An ID is two decimal
// numbers of 64 bits with a hyphen between them, and the messages of a topic arrive in the
// order of these numbers, first and second. A topic whose messages were lost, because the
// process or Redis was started again, doesn't use the IDs of those again.
//
// All methods may be called concurrently.
type History interface {
	Bus
	// Append publishes a message as Publish does, and returns its ID.
	Append(ctx context.Context, topic string, data []byte) (id string, err error)
	// Last returns the newest messages of a topic, n at most, the oldest of them first.
	Last(ctx context.Context, topic string, n int) ([]Message, error)
	// After returns the messages behind the one with an ID, n at most, the oldest first.
	// None says that it is the newest one. A *[Gap] says that messages behind it aren't
	// kept any more, or that this can't be ruled out since the ID isn't one of a message
	// that is kept. The ID 0 stands for a message before all others. What is no ID is
	// an error of another type.
	After(ctx context.Context, topic, id string, n int) ([]Message, error)
}
