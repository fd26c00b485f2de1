package socketio

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

// An Adapter is a generation of Socket.IO's Redis adapters, with the options
// that its nodes are configured with: [Legacy], [Current], [Sharded] or
// [Streams]. Nodes and Go processes understand each other only when they agree
// on all of it.
type Adapter interface {
	// check says what is wrong with the options.
	check() error
	// encode says what to send for a message. An error wraps
	// errors.ErrUnsupported when the generation has no such message.
	encode(m *message) ([]frame, error)
	// decode reads what came on a channel that a member is subscribed to for a
	// namespace.
	decode(nsp, channel string, data []byte) (*message, error)
	// channels returns what a member subscribes to for a namespace: the channels
	// to all members, the first one being that whose subscribers are counted as
	// members, and those of the answers to its requests.
	channels(nsp, uid string) (all, answers []string)
	// roomChannel returns the channel that a member with local sockets in a
	// room subscribes to beside, "" if there is none.
	roomChannel(nsp, room string) string
	// sharded tells whether the channels are those of sharded pub/sub.
	sharded() bool
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
