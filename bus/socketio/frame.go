package socketio

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

// A frame is one command to Redis: PUBLISH, SPUBLISH or XADD.
type frame struct {
	channel string
	data    []byte
	sharded bool

	// An entry of the stream whose key is channel, as pairs of field and value. It
	// is nil for a frame that is published.
	entry  []string
	maxLen int64
}

// send sends the frame once. go-redis would try again after some errors, and clients
// would get an event twice; so after an error nobody knows whether Redis has it.
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
	cmd := redisclient.Once{Cmd: redis.NewCmd(ctx, args...)}
	// In a Redis Cluster, PUBLISH may go to any node. The channel is made its key, so
	// that all messages of a channel go through one node and stay in order.
	cmd.SetFirstKeyPos(1)
	if err := client.Process(ctx, cmd); err != nil {
		return fmt.Errorf("send to %q: %w", f.channel, err)
	}
	return nil
}

// encode returns the frames that send a message.
func encode(a Adapter, m *message) ([]frame, error) {
	frames, err := a.encode(m)
	if err != nil {
		return nil, fmt.Errorf("socketio: %s: %w", m.kind, err)
	}
	return frames, nil
}

// sendFrames sends the frames of a message, in their order.
func sendFrames(ctx context.Context, l link, m *message, frames []frame) error {
	for i := range frames {
		if err := l.send(ctx, &frames[i]); err != nil {
			return fmt.Errorf("socketio: %s: %w", m.kind, err)
		}
	}
	return nil
}

// publish encodes a message and sends it.
func publish(ctx context.Context, l link, a Adapter, m *message) error {
	frames, err := encode(a, m)
	if err != nil {
		return err
	}
	return sendFrames(ctx, l, m, frames)
}
