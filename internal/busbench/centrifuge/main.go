//go:build linux

// Centrifuge is a publisher, subscriber or hub of centrifuge for internal/busbench.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/centrifugal/centrifuge"

	"github.com/limpet-go/limpet/internal/busbench/role"
)

func main() {
	if err := role.Main(os.Args[1:], peer); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// peer returns a node: members has no Redis, history keeps messages as other peers over
// streams do, and redis doesn't.
func peer(_ context.Context, name, addr string) (*role.Peer, error) {
	node, err := centrifuge.New(centrifuge.Config{ClientQueueMaxSize: 256 << 20})
	if err != nil {
		return nil, err
	}
	if name != "members" {
		shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: addr})
		if err != nil {
			return nil, err
		}
		broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: []*centrifuge.RedisShard{shard}})
		if err != nil {
			return nil, err
		}
		node.SetBroker(broker)
	}
	var opts []centrifuge.PublishOption
	var subscribed centrifuge.SubscribeOptions
	if name == "history" {
		opts = append(opts, centrifuge.WithHistory(100_000, time.Hour))
		subscribed.EnableRecovery = true
	}
	topic := role.Room // of the next client
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{UserID: "42"},
			Subscriptions: map[string]centrifuge.SubscribeOptions{topic: subscribed},
		}, nil
	})
	if err := node.Run(); err != nil {
		return nil, err
	}
	return &role.Peer{
		Publish: func(_ context.Context, topic string, data []byte) error {
			_, err := node.Publish(topic, data, opts...)
			return err
		},
		Subscribe: func(ctx context.Context, to string, got func([]byte)) error {
			topic = to
			client, _, err := centrifuge.NewClient(ctx, node, listener(got))
			if err == nil {
				client.Connect(centrifuge.ConnectRequest{})
			}
			return err
		},
		Members: centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{}),
	}, nil
}

// A listener is the connection of a client in this process.
type listener func(message []byte)

func (listener) Name() string                                { return "listener" }
func (listener) AcceptProtocol() string                      { return "" }
func (listener) Protocol() centrifuge.ProtocolType           { return centrifuge.ProtocolTypeJSON }
func (listener) ProtocolVersion() centrifuge.ProtocolVersion { return centrifuge.ProtocolVersion2 }
func (listener) Unidirectional() bool                        { return true }
func (listener) Emulation() bool                             { return false }
func (listener) DisabledPushFlags() uint64                   { return 0 }
func (listener) Close(centrifuge.Disconnect) error           { return nil }

func (listener) PingPongConfig() centrifuge.PingPongConfig {
	return centrifuge.PingPongConfig{PingInterval: -1, PongTimeout: -1}
}

func (l listener) Write(message []byte) error {
	l(message)
	return nil
}

func (l listener) WriteMany(messages ...[]byte) error {
	for _, m := range messages {
		l(m)
	}
	return nil
}
