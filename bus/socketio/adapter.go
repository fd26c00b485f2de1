package socketio

import (
	"errors"
	"fmt"
)

// An Adapter is a generation of Socket.IO's Redis adapters, with the options
// that its nodes are configured with: [Legacy], [PubSub], [Sharded] or
// [Streams]. Nodes and Go processes understand each other only when they agree
// on all of it.
type Adapter interface {
	// check reports options that contradict each other or mean nothing.
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

	// channels returns what a member subscribes to for a namespace: the channels
	// to all members, the first one being that whose subscribers are counted as
	// members, and those of the answers to its requests.
	channels(nsp, uid string) (all, answers []string)
	// roomChannel returns the channel that a member with local sockets in a
	// room subscribes to beside, "" if there is none.
	roomChannel(nsp, room string) string
	// sharded tells whether the channels are those of sharded pub/sub.
	sharded() bool
	// stream returns the Redis stream that carries a namespace's messages, nil if
	// pub/sub carries all of them.
	stream(nsp string) *stream
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

// prefixed returns a configured prefix, or the one that all packages have by
// default.
func prefixed(prefix string) string {
	if prefix == "" {
		return "socket.io"
	}
	return prefix
}

// unsupported is the error for what a generation doesn't have.
func unsupported(generation, what string) error {
	return fmt.Errorf("%s can't %s: %w", generation, what, errors.ErrUnsupported)
}
