package socketio

import (
	"context"
	"fmt"

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

// command returns the command for the frame. In a Redis Cluster, PUBLISH may go to any node.
// The channel is made its key, so that all messages of a channel go through one node and
// stay in order.
func (f *frame) command() *redisclient.Message {
	switch {
	case f.entry != nil:
		args := []any{"xadd", f.channel, "maxlen", "~", f.maxLen, "*"}
		last := len(f.entry) - 1
		for _, s := range f.entry[:last] {
			args = append(args, s)
		}
		return &redisclient.Message{Args: args, Key: 1, Data: []byte(f.entry[last])}
	case f.sharded:
		return &redisclient.Message{Args: []any{"spublish", f.channel}, Key: 1, Data: f.data}
	default:
		return &redisclient.Message{Args: []any{"publish", f.channel}, Key: 1, Data: f.data}
	}
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
