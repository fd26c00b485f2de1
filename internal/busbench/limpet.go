//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/bus/socketio"
	"github.com/limpet-go/limpet/internal/busbench/role"
)

// history is how many messages peers with a history keep, and queue how many may wait for
// a subscriber: more than any case has, so that nothing is lost.
const (
	history = 100_000
	queue   = 1 << 16
)

// limpet returns the peer of this name in this process.
func limpet(ctx context.Context, name, addr string) (*role.Peer, error) {
	if name == "members" {
		return members(ctx)
	}
	client, err := bus.NewRedisClient("redis://" + addr)
	if err != nil {
		return nil, err
	}
	switch name {
	case "redis":
		return overBus(&bus.Redis{Client: client, Queue: queue}), nil
	case "streams":
		return overBus(&bus.Streams{Client: client, Queue: queue, MaxLen: history}), nil
	case "hub":
		return overHub(ctx, &bus.Redis{Client: client, Queue: queue})
	case "emitter":
		return overSocketIO(client)
	}
	return nil, fmt.Errorf("no peer %q", name)
}

func overBus(b bus.Bus) *role.Peer {
	return &role.Peer{Publish: b.Publish, Subscribe: func(ctx context.Context, topic string, got func([]byte)) error {
		sub, err := b.Subscribe(ctx, topic)
		if err != nil {
			return err
		}
		defer sub.Close()
		for {
			m, err := sub.Next(ctx)
			if err != nil {
				return err // a Gap, too
			}
			got(m.Data)
		}
	}}
}

// newHub returns a hub. Its members may be slow.
func newHub(b bus.Bus) (*hub.Hub, error) {
	return hub.New(b, &hub.Options{QueueBytes: 256 << 20})
}

// running returns a hub that runs.
func running(ctx context.Context, b bus.Bus) (*hub.Hub, error) {
	h, err := newHub(b)
	if err == nil {
		go h.Run(ctx)
	}
	return h, err
}

// overHub has a member in the room that is the topic.
func overHub(ctx context.Context, b bus.Bus) (*role.Peer, error) {
	h, err := running(ctx, b)
	return &role.Peer{
		Publish: func(ctx context.Context, topic string, data []byte) error {
			return h.Send(ctx, hub.Who{Rooms: []string{topic}}, hub.Text(data))
		},
		Subscribe: func(ctx context.Context, topic string, got func([]byte)) error {
			_, err := h.Connect(ctx, listener(got), hub.MemberOptions{Rooms: []string{topic}})
			return err
		},
	}, err
}

// overSocketIO is an Emitter, and a Bridge with a member, with a prefix for each topic.
func overSocketIO(client *redis.Client) (*role.Peer, error) {
	emitters := map[string]socketio.Target{}
	for _, topic := range topics {
		e, err := socketio.NewEmitter(client, socketio.PubSub{Prefix: topic})
		if err != nil {
			return nil, err
		}
		emitters[topic] = e.To(role.Room)
	}
	return &role.Peer{
		Publish: func(ctx context.Context, topic string, data []byte) error {
			return emitters[topic].Emit(ctx, "ev", string(data[1:len(data)-1]))
		},
		Subscribe: func(ctx context.Context, topic string, got func([]byte)) error {
			h, err := newHub(nil)
			if err != nil {
				return err
			}
			b, err := socketio.NewBridge(h, client, socketio.PubSub{Prefix: topic}, nil)
			if err != nil {
				return err
			}
			ended := make(chan error, 1)
			go func() { ended <- b.Run(ctx) }()
			if _, err = h.Connect(ctx, listener(got), hub.MemberOptions{Rooms: []string{role.Room}}); err != nil {
				return err
			}
			return <-ended
		},
	}, nil
}

// members is a hub of this process alone, whose WebSockets are in the room.
func members(ctx context.Context) (*role.Peer, error) {
	h, err := running(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &role.Peer{
		Publish: func(ctx context.Context, topic string, data []byte) error {
			return h.Send(ctx, hub.Who{Rooms: []string{topic}}, hub.Text(data))
		},
		Members: h.Handler(&hub.HandlerOptions{
			Member: func(*http.Request) (hub.MemberOptions, error) {
				return hub.MemberOptions{Rooms: []string{role.Room}}, nil
			},
			Opened: func(_ context.Context, m *hub.Member, _ *http.Request) { m.Send(hub.Text([]byte("welcome"))) },
		}),
	}, nil
}

// listener is the connection of a member in this process.
type listener func(message []byte)

func (l listener) Send(_ context.Context, messages []*hub.Frame) error {
	for _, f := range messages {
		l(f.Bytes())
	}
	return nil
}

func (listener) Close(context.Context, int, string) error { return nil }
