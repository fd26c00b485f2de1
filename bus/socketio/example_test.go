package socketio_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/bus/socketio"
)

// A service without Socket.IO sends an event to the clients of a cluster.
func ExampleEmitter() {
	client, err := bus.NewRedisClient("redis://127.0.0.1:6379")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	emitter, err := socketio.NewEmitter(client, nil) // for nodes with @socket.io/redis-adapter
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()

	type order struct {
		ID      int       `json:"id"`
		Paid    time.Time `json:"paid"` // a Date
		Invoice []byte    `json:"invoice"`
	}
	room := emitter.Of("/shop").To("user:7")
	if err := room.Emit(ctx, "paid", order{ID: 1, Paid: time.Now(), Invoice: []byte("%PDF")}); err != nil {
		fmt.Println(err)
	}
	if err := room.Except("admins").DisconnectSockets(ctx, false); err != nil {
		fmt.Println(err)
	}
}

// A service that sends many events doesn't wait for each.
func ExampleEmitter_Queued() {
	client, err := bus.NewRedisClient("redis://127.0.0.1:6379")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	emitter, err := socketio.NewEmitter(client, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	queued := emitter.Queued(0, func(err error) { fmt.Println("an event is lost:", err) })
	for price := range 1000 {
		if err := queued.To("prices").Emit(ctx, "price", price); err != nil { // the queue is full
			fmt.Println(err)
		}
	}
	if err := queued.Flush(ctx); err != nil { // before the client is closed
		fmt.Println(err)
	}
}

// Clients with a plain WebSocket share rooms with Socket.IO clients.
func ExampleBridge() {
	ctx := context.Background() // until the service ends
	client, err := bus.NewRedisClient("redis://127.0.0.1:6379")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	h, err := hub.New(nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	bridge, err := socketio.NewBridge(h, client, socketio.PubSub{}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() { fmt.Println(bridge.Run(ctx)) }() // and the hub with it

	http.Handle("/ws", h.Handler(&hub.HandlerOptions{
		Member: func(r *http.Request) (hub.MemberOptions, error) {
			return hub.MemberOptions{Rooms: []string{"lobby"}}, nil
		},
		Message: func(ctx context.Context, m *hub.Member, f *hub.Frame) {
			if err := bridge.To("lobby").Emit(ctx, "said", m.ID(), string(f.Payload())); err != nil {
				fmt.Println(err)
			}
		},
	}))
}

// Emit refuses the names of Socket.IO's own events, and what the nodes can't do,
// before it sends anything.
func ExampleTarget_Emit() {
	client := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true})
	defer client.Close()
	emitter, err := socketio.NewEmitter(client, socketio.Legacy{})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = emitter.Emit(context.Background(), "disconnect")
	fmt.Println(err, errors.Is(err, socketio.ErrReserved))
	err = emitter.Except("admins").Emit(context.Background(), "news")
	fmt.Println(err, errors.Is(err, errors.ErrUnsupported))
	// Output:
	// socketio: "disconnect": reserved event name true
	// socketio: broadcast: Socket.IO 2 can't except rooms, only sockets by their IDs: unsupported operation true
}

// A service lists the sockets in a room. If a node hasn't answered in time, it goes
// on with the sockets of the others.
func ExampleTarget_FetchSockets() {
	client, err := bus.NewRedisClient("redis://127.0.0.1:6379")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	emitter, err := socketio.NewEmitter(client, socketio.Sharded{}) // for nodes with createShardedAdapter
	if err != nil {
		fmt.Println(err)
		return
	}
	sockets, err := emitter.To("lobby").Timeout(time.Second).FetchSockets(context.Background())
	var incomplete *socketio.IncompleteError
	if errors.As(err, &incomplete) {
		fmt.Printf("%d of %d nodes have answered\n", incomplete.Nodes, incomplete.Expected)
	} else if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range sockets {
		fmt.Println(s.ID, s.Rooms)
	}
}
