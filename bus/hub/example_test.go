package hub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// A whole chat server: clients say in the URL who they are, and what they write
// reaches everybody in the lobby, on all nodes. With [bus.Redis] in the place of
// [bus.Memory] the nodes are on machines of their own.
func ExampleHub_Handler() {
	h, err := hub.New(&bus.Memory{}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- h.Run(ctx) }()

	http.Handle("/chat", h.Handler(&hub.HandlerOptions{
		Member: func(r *http.Request) (hub.MemberOptions, error) {
			return hub.MemberOptions{Data: r.URL.Query().Get("name"), Rooms: []string{"lobby"}}, nil
		},
		Message: func(ctx context.Context, m *hub.Member, f *hub.Frame) {
			line, _ := json.Marshal(map[string]string{"from": m.ID(), "text": string(f.Payload())})
			if err := h.Send(ctx, hub.Who{Rooms: []string{"lobby"}}, hub.Text(line)); err != nil {
				fmt.Println(err) // the clients of this node have it
			}
		},
	}))
	// http.ListenAndServe(":8080", nil)

	stop()
	fmt.Println(<-ended)
	// Output: <nil>
}

// printer is a connection of a kind of its own.
type printer struct{ closed chan struct{} }

func (p printer) Send(_ context.Context, messages []*hub.Frame) error {
	for _, f := range messages {
		fmt.Printf("Ann gets %s\n", f.Payload())
	}
	return nil
}

func (p printer) Close(_ context.Context, code int, reason string) error {
	fmt.Printf("Ann is closed: %d %s\n", code, reason)
	close(p.closed)
	return nil
}

// Two nodes: what one of them sends reaches the members of both.
func ExampleHub() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	memory := &bus.Memory{}
	var nodes []*hub.Hub
	for range 2 {
		node, err := hub.New(memory, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		nodes = append(nodes, node)
		go func() {
			if err := node.Run(ctx); err != nil {
				fmt.Println(err)
			}
		}()
	}
	here, there := nodes[0], nodes[1]

	conn := printer{make(chan struct{})}
	ann, err := there.Connect(ctx, conn, hub.MemberOptions{ID: "ann", Data: map[string]string{"name": "Ann"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := ann.Join(ctx, "lobby"); err != nil {
		fmt.Println(err) // messages of other nodes may be missed at first
	}

	lobby := hub.Who{Rooms: []string{"lobby"}}
	if err := here.Send(ctx, lobby, hub.Text([]byte("hello"))); err != nil {
		fmt.Println(err) // other nodes weren't reached
	}
	if err := here.Disconnect(ctx, lobby, 4000, "enough"); err != nil {
		fmt.Println(err)
	}
	<-conn.closed
	// Output:
	// Ann gets hello
	// Ann is closed: 4000 enough
}

// Clients that come back get what they have missed: up to a thousand messages to each room,
// of those that the bus keeps. A page imports Connection from /limpet.js.
func ExampleClient() {
	h, err := hub.New(&bus.Memory{History: 10_000}, &hub.Options{Recover: 1000}) // or &bus.Streams{Client: client}
	if err != nil {
		fmt.Println(err)
		return
	}
	// go h.Run(ctx)
	mux := http.NewServeMux()
	mux.Handle("/limpet.js", hub.Client())
	mux.Handle("/ws", h.Handler(&hub.HandlerOptions{
		Member: func(*http.Request) (hub.MemberOptions, error) {
			return hub.MemberOptions{Rooms: []string{"lobby"}}, nil // who may read what was missed in the lobby
		},
	}))
}

// Everybody in a room is asked, on whichever node they are. A page answers with
//
//	chat.onask = async (question) => 'yes';
func ExampleHub_Ask() {
	h, err := hub.New(&bus.Memory{}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	// go h.Run(ctx)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	replies, err := h.Ask(ctx, hub.Who{Rooms: []string{"lobby"}}, hub.Text([]byte("ready?")))
	if err != nil {
		fmt.Println(err) // other nodes weren't asked
	}
	for _, r := range replies {
		if r.Err != nil {
			fmt.Println(r.Member, r.Err) // it has left, for example, or hasn't answered in time
			continue
		}
		fmt.Println(r.Member, string(r.Data))
	}
	// Output:
}

// Messages are compressed for clients that offer it, as browsers do.
func ExampleHandlerOptions() {
	h, err := hub.New(nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	// go h.Run(ctx)
	mux := http.NewServeMux()
	mux.Handle("/ws", h.Handler(&hub.HandlerOptions{Compress: true}))
}
