// The emit example sends an event to the clients of a Socket.IO cluster, from the
// command line and without being a node:
//
//	emit -redis redis://127.0.0.1:6379 -to room news '{"text":"hello"}' 42
//
// The arguments of the event are JSON: a string has quotation marks. Instead of
// sending an event it makes the sockets that -to and -except name join rooms,
// leave them or disconnect:
//
//	emit -to user:7 -join vip
//	emit -to user:7 -disconnect
//
// and it tells who they are, one JSON object a line:
//
//	emit -to user:7 -fetch
//
// -adapter says what the nodes speak: pubsub is @socket.io/redis-adapter,
// sharded the same package with createShardedAdapter, streams is
// @socket.io/redis-streams-adapter and streams-0.2 its version 0.2, legacy is
// socket.io-redis 5 of Socket.IO 2 and legacy3 is socket.io-redis 6.0 of
// Socket.IO 3.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/socketio"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	} else if err != nil {
		log.Fatal(err)
	}
}

// run does what the arguments say.
func run(ctx context.Context, out io.Writer, args []string) error {
	flags := flag.NewFlagSet("emit", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: emit [flags] EVENT [JSON…]\n       emit [flags] -join ROOM | -leave ROOM | -disconnect | -fetch")
		flags.PrintDefaults()
	}
	url := flags.String("redis", "redis://127.0.0.1:6379", "the Redis that the nodes share, as a `URL`")
	adapter := flags.String("adapter", "pubsub", "what the nodes speak: legacy, legacy3, pubsub, sharded, streams or streams-0.2")
	mode := flags.String("mode", "dynamic", "the nodes' subscriptionMode, if sharded: static, dynamic or dynamic-private")
	prefix := flags.String("prefix", "socket.io", "the nodes' key, or channelPrefix and streamName")
	nsp := flags.String("nsp", "/", "the `namespace`")
	timeout := flags.Duration("timeout", 5*time.Second, "how long Redis and the nodes may take")
	var to, except, join, leave []string
	rooms := func(names *[]string, name, usage string) {
		flags.Func(name, usage+", repeatable", func(s string) error { *names = append(*names, s); return nil })
	}
	rooms(&to, "to", "only sockets in this `room`, or of this ID")
	rooms(&except, "except", "no sockets in this `room`")
	rooms(&join, "join", "make the sockets join this `room`")
	rooms(&leave, "leave", "make the sockets leave this `room`")
	disconnect := flags.Bool("disconnect", false, "disconnect the sockets from the namespace")
	fetch := flags.Bool("fetch", false, "list the sockets")
	if err := flags.Parse(args); err != nil {
		return err
	}

	speaks, err := adapterOf(*adapter, *mode, *prefix)
	if err != nil {
		return err
	}
	client, err := bus.NewRedisClient(*url)
	if err != nil {
		return fmt.Errorf("-redis: %w", err)
	}
	defer client.Close()
	emitter, err := socketio.NewEmitter(client, speaks)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()

	target := emitter.Of(*nsp).To(to...).Except(except...)
	event := flags.Args()
	if len(event) == 0 && len(join)+len(leave) == 0 && !*disconnect && !*fetch {
		flags.Usage()
		return errors.New("there is nothing to do")
	}
	if len(join) > 0 {
		err = target.SocketsJoin(ctx, join...)
	}
	if len(leave) > 0 {
		err = errors.Join(err, target.SocketsLeave(ctx, leave...))
	}
	if len(event) > 0 {
		err = errors.Join(err, emit(ctx, target, event[0], event[1:]))
	}
	if *fetch {
		err = errors.Join(err, list(ctx, target.Timeout(*timeout), out))
	}
	if *disconnect {
		err = errors.Join(err, target.DisconnectSockets(ctx, false))
	}
	return err
}

// adapterOf returns what the flags -adapter, -mode and -prefix say.
func adapterOf(name, mode, prefix string) (socketio.Adapter, error) {
	switch name {
	case "legacy":
		return socketio.Legacy{Prefix: prefix}, nil
	case "legacy3":
		return socketio.Legacy{Prefix: prefix, V3: true}, nil
	case "pubsub":
		return socketio.PubSub{Prefix: prefix}, nil
	case "streams":
		return socketio.Streams{Prefix: prefix, Stream: prefix}, nil
	case "streams-0.2":
		return socketio.Streams{Stream: prefix, Heartbeats: true}, nil
	case "sharded":
		switch mode {
		case "dynamic":
			return socketio.Sharded{Prefix: prefix}, nil
		case "static":
			return socketio.Sharded{Prefix: prefix, SubscriptionMode: socketio.SubscriptionModeStatic}, nil
		case "dynamic-private":
			return socketio.Sharded{Prefix: prefix, SubscriptionMode: socketio.SubscriptionModeDynamicPrivate}, nil
		}
		return nil, fmt.Errorf("-mode %s: there is no such mode", mode)
	}
	return nil, fmt.Errorf("-adapter %s: there is no such adapter", name)
}

// emit sends an event with arguments in JSON.
func emit(ctx context.Context, target socketio.Target, event string, args []string) error {
	values := make([]any, len(args))
	for i, arg := range args {
		if !json.Valid([]byte(arg)) {
			return fmt.Errorf("argument %d isn't JSON: %s", i+1, arg)
		}
		values[i] = json.RawMessage(arg)
	}
	return target.Emit(ctx, event, values...)
}

// list writes what is known of each socket, also when not all nodes answered.
func list(ctx context.Context, target socketio.Target, out io.Writer) error {
	sockets, err := target.FetchSockets(ctx)
	lines := json.NewEncoder(out)
	for _, s := range sockets {
		err = errors.Join(err, lines.Encode(map[string]any{
			"id": s.ID, "rooms": s.Rooms, "data": s.Data, "handshake": s.Handshake,
		}))
	}
	return err
}
