package socketio

import (
	"errors"
	"fmt"

	"github.com/limpet-go/limpet/internal/typednil"
)

// An Adapter is the protocol of one of Socket.IO's Redis adapters, with the options
// that the nodes are configured with: [Legacy], [PubSub], [Sharded] or [Streams].
// Nodes and Go processes understand each other only if they use the same adapter
// with the same options.
//
//	adapter   package and function that the nodes use
//	Legacy    socket.io-redis 5 and 6.0, of Socket.IO 2 and 3
//	PubSub    @socket.io/redis-adapter, createAdapter
//	Sharded   @socket.io/redis-adapter, createShardedAdapter
//	Streams   @socket.io/redis-streams-adapter, createAdapter
//
// Its methods aren't exported: other packages can't implement it.
type Adapter interface {
	// check reports options that are out of range or contradict each other.
	check() error

	// encode returns the commands that send a message. The error wraps
	// errors.ErrUnsupported if the nodes have no such message.
	encode(m *message) ([]frame, error)
	// decode reads a message that was published on one of the channels of a
	// namespace.
	decode(nsp, channel string, data []byte) (*message, error)
	// requestFor returns the request that asks the nodes what m asks: m itself, or
	// a request that the nodes do have and whose answers hold what m asks for.
	requestFor(m *message) *message
	// singleSockets tells whether join, leave and disconnect name one socket by its
	// ID and don't name the sender, so that a member can't tell its own requests
	// from those of others.
	singleSockets() bool

	// channels returns the channels that a member subscribes to for a namespace: all
	// are those to all members, answers are those of the answers to its requests.
	// The subscribers of all[0] are counted as members.
	channels(nsp, uid string) (all, answers []string)
	// roomChannel returns the channel that carries what is sent to a single room, ""
	// if there is none. A member with sockets in the room subscribes to it as well.
	roomChannel(nsp, room string) string
	// sharded tells whether the channels are those of sharded pub/sub.
	sharded() bool
	// stream returns the Redis stream that carries a namespace's messages, nil if
	// pub/sub carries all of them.
	stream(nsp string) *stream
}

// checkAdapter returns adapter, or the default if it is nil. It returns an error if its
// options are wrong, or if it is a nil pointer.
func checkAdapter(adapter Adapter) (Adapter, error) {
	if adapter == nil {
		return PubSub{}, nil
	}
	if err := typednil.Check(adapter); err != nil {
		return nil, fmt.Errorf("socketio: adapter: %w", err)
	}
	return adapter, adapter.check()
}

// A stream is a Redis stream that members read.
type stream struct {
	key    string
	maxLen int64 // about how many entries Redis keeps
	// heartbeats is set if members announce themselves in the stream. There are no
	// channels then, and a member that only asks reads the stream as well.
	heartbeats bool
	// decode reads an entry, which may be for any namespace.
	decode func(entry map[string]any) (*message, error)
}

// prefixed returns a configured prefix, or the default of all packages.
func prefixed(prefix string) string {
	if prefix == "" {
		return "socket.io"
	}
	return prefix
}

// unsupported returns the error for something that the nodes of a generation can't
// do.
func unsupported(generation, what string) error {
	return fmt.Errorf("%s can't %s: %w", generation, what, errors.ErrUnsupported)
}
