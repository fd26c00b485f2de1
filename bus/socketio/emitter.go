package socketio

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// An Emitter sends to the clients of a cluster, as @socket.io/redis-emitter and
// socket.io-emitter do. It is its own [Target] for everybody in the namespace /,
// needs no connection to a node, and may be used by several goroutines.
type Emitter struct {
	Target
	client  redis.UniversalClient
	adapter Adapter
}

// NewEmitter returns an emitter for the nodes that share a Redis and speak what
// adapter says; nil means Current{}. The client is the caller's to close.
func NewEmitter(client redis.UniversalClient, adapter Adapter) (*Emitter, error) {
	if client == nil {
		return nil, errors.New("socketio: an Emitter needs a Redis client")
	}
	if adapter == nil {
		adapter = Current{}
	}
	if err := adapter.check(); err != nil {
		return nil, err
	}
	e := &Emitter{client: client, adapter: adapter}
	e.Target = Target{via: e, nsp: "/"}
	return e, nil
}

// emitterUID is the sender whom no node counts.
const emitterUID = "emitter"

func (e *Emitter) send(ctx context.Context, m *message) error {
	m.uid = emitterUID
	return sendAll(ctx, e.client, e.adapter, m)
}

func (e *Emitter) redis() (Adapter, link) { return e.adapter, redisLink{e.client} }

// sendAll encodes a message and sends what it becomes.
func sendAll(ctx context.Context, client redis.UniversalClient, adapter Adapter, m *message) error {
	frames, err := adapter.encode(m)
	for i := 0; err == nil && i < len(frames); i++ {
		err = frames[i].send(ctx, client)
	}
	if err != nil {
		return fmt.Errorf("socketio: %s: %w", m.kind, err)
	}
	return nil
}
