package socketio

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/redisclient"
)

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

// encode says what to send for a message.
func encode(a Adapter, m *message) ([]frame, error) {
	frames, err := a.encode(m)
	if err != nil {
		return nil, fmt.Errorf("socketio: %s: %w", m.kind, err)
	}
	return frames, nil
}

// sendFrames sends what a message has become.
func sendFrames(ctx context.Context, l link, m *message, frames []frame) error {
	for i := range frames {
		if err := l.send(ctx, &frames[i]); err != nil {
			return fmt.Errorf("socketio: %s: %w", m.kind, err)
		}
	}
	return nil
}

func publish(ctx context.Context, l link, a Adapter, m *message) error {
	frames, err := encode(a, m)
	if err != nil {
		return err
	}
	return sendFrames(ctx, l, m, frames)
}
