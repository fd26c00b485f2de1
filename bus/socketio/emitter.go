package socketio

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// An Emitter sends to the clients of a cluster without being a node, as
// @socket.io/redis-emitter and socket.io-emitter do. It is a [Target] that selects
// everybody in the namespace /. It needs no connection to a node. All methods may be
// called concurrently.
type Emitter struct {
	Target
	link    link
	adapter Adapter
	queue   *sendQueue // nil for one that waits for Redis
}

// NewEmitter returns an Emitter for the nodes that share a Redis and use an adapter.
// A nil adapter means PubSub{}. The client needs ContextTimeoutEnabled, which a
// client of [bus.NewRedisClient] has. The caller closes the client. After a message for
// which Redis hasn't answered in time, idle connections of the client are closed that
// don't answer a PING within half a second.
func NewEmitter(client redis.UniversalClient, adapter Adapter) (*Emitter, error) {
	link, err := newRedisLink(client)
	if err != nil {
		return nil, err
	}
	return newEmitter(link, adapter)
}

func newEmitter(link link, adapter Adapter) (*Emitter, error) {
	adapter, err := checkAdapter(adapter)
	if err != nil {
		return nil, err
	}
	e := &Emitter{link: link, adapter: adapter}
	e.Target = Target{via: e, nsp: "/"}
	return e, nil
}

// emitterUID is the sender of messages of an Emitter. Nodes with heartbeats don't
// count it as a member.
const emitterUID = "emitter"

// send implements sender.
func (e *Emitter) send(ctx context.Context, m *message) error {
	m.uid = emitterUID
	if e.queue == nil {
		return publish(ctx, e.link, e.adapter, m)
	}
	frames, err := encode(e.adapter, m)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	if err := e.queue.add(frames); err != nil {
		return fmt.Errorf("socketio: %s: %w", m.kind, err)
	}
	return nil
}

// redis implements sender.
func (e *Emitter) redis() (Adapter, link) { return e.adapter, e.link }
