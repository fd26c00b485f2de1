package socketio

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// An Emitter sends to the clients of a cluster, as @socket.io/redis-emitter and
// socket.io-emitter do. It is its own [Target] for everybody in the namespace /,
// needs no connection to a node, and may be used by several goroutines.
type Emitter struct {
	Target
	link    link
	adapter Adapter
}

// NewEmitter returns an emitter for the nodes that share a Redis and speak what
// adapter says; nil means PubSub{}. The client needs ContextTimeoutEnabled, as
// that of bus.NewRedisClient has; it is the caller's to close.
func NewEmitter(client redis.UniversalClient, adapter Adapter) (*Emitter, error) {
	link, err := newRedisLink(client)
	if err != nil {
		return nil, err
	}
	return newEmitter(link, adapter)
}

func newEmitter(link link, adapter Adapter) (*Emitter, error) {
	if adapter == nil {
		adapter = PubSub{}
	}
	if err := adapter.check(); err != nil {
		return nil, err
	}
	e := &Emitter{link: link, adapter: adapter}
	e.Target = Target{via: e, nsp: "/"}
	return e, nil
}

// emitterUID is the sender whom no node counts.
const emitterUID = "emitter"

func (e *Emitter) send(ctx context.Context, m *message) error {
	m.uid = emitterUID
	return publish(ctx, e.link, e.adapter, m)
}

func (e *Emitter) redis() (Adapter, link) { return e.adapter, e.link }
