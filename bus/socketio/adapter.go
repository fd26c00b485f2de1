package socketio

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
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

// frame is one command to Redis: PUBLISH, SPUBLISH or XADD.
type frame struct {
	channel string
	data    []byte
	sharded bool

	// An entry of a stream, whose key is channel: pairs of field and value.
	entry  []string
	maxLen int64
}

// send sends the frame once: whether Redis has it isn't known after an error.
func (f *frame) send(ctx context.Context, client redis.UniversalClient) error {
	var args []any
	switch {
	case f.entry != nil:
		args = []any{"xadd", f.channel, "maxlen", "~", f.maxLen, "*"}
		for _, s := range f.entry {
			args = append(args, s)
		}
	case f.sharded:
		args = []any{"spublish", f.channel, f.data}
	default:
		args = []any{"publish", f.channel, f.data}
	}
	cmd := redisclient.Once{Cmd: redis.NewCmd(ctx, args...)} // or clients would get an event twice
	// In a Cluster PUBLISH has no node of its own. It gets one, or the messages of
	// a channel would arrive in another order.
	cmd.SetFirstKeyPos(1)
	if err := client.Process(ctx, cmd); err != nil {
		return fmt.Errorf("send to %q: %w", f.channel, err)
	}
	return nil
}

// prefixed returns a configured prefix, or the one that all packages have by
// default.
func prefixed(prefix string) string {
	if prefix == "" {
		return "socket.io"
	}
	return prefix
}
