package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// node is one chat server, as it would run on a machine of its own.
type node struct {
	name string
	hub  *hub.Hub
}

// message is what nodes and clients send; Type says which fields are set:
//
//	from a client  enter (Room), say (Text, To for one client alone), who
//	from its node  hello (ID, Node), said (ID, From, Node, Text, To), people
//	               (People), changed (People should be asked for), missed
type message struct {
	Type   string   `json:"type"`
	Room   string   `json:"room,omitempty"`
	To     string   `json:"to,omitempty"` // a client's ID
	ID     string   `json:"id,omitempty"`
	From   string   `json:"from,omitempty"`
	Node   string   `json:"node,omitempty"`
	Text   string   `json:"text,omitempty"`
	People []person `json:"people,omitempty"`
}

// kept is the number of messages to a room that a client gets which comes back.
const kept = 1000

// person is what others may know of a client.
type person struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Node string `json:"node"`
}

func newNode(name string, b bus.Bus) (_ *node, err error) {
	n := &node{name: name}
	// Clients that are told of a change ask who is there, in their own time. So
	// they also see those go whose node had no time to say goodbye.
	changed := func(_ *hub.Member, room string) {
		n.send(context.Background(), hub.Who{Rooms: []string{room}}, message{Type: "changed"})
	}
	missed := 0
	if _, ok := b.(bus.History); ok {
		missed = kept
	}
	n.hub, err = hub.New(b, &hub.Options{
		Prefix:  "chat",
		Recover: missed,
		Joined:  changed,
		Left:    changed,
		Node: func(string, bool) {
			n.send(context.Background(), hub.Who{All: true, Local: true}, message{Type: "changed"})
		},
		Gap: func(who hub.Who, gap *bus.Gap) {
			slog.Warn("messages of other nodes are missing", "node", name, "err", gap)
			n.send(context.Background(), who, message{Type: "missed"})
		},
	})
	return n, err
}

// serve serves clients until ctx ends.
func (n *node) serve(ctx context.Context, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("/chat", n.hub.Handler(&hub.HandlerOptions{Member: n.member, Opened: n.opened, Message: n.message}))
	mux.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(ln) // ends with Close
	defer server.Close()
	return n.hub.Run(ctx)
}

// member takes a client's word for its name and its room. A real one looks at a session here.
func (n *node) member(r *http.Request) (hub.MemberOptions, error) {
	name := clip(r.URL.Query().Get("name"), 24)
	if name == "" {
		return hub.MemberOptions{}, errors.New("it has no name")
	}
	who := hub.MemberOptions{Data: person{Name: name, Node: n.name}}
	if room := clip(r.URL.Query().Get("room"), 40); room != "" {
		who.Rooms = []string{room}
	}
	return who, nil
}

func (n *node) opened(_ context.Context, m *hub.Member, _ *http.Request) {
	m.Send(frame(message{Type: "hello", ID: m.ID(), Node: n.name}))
}

func (n *node) message(ctx context.Context, m *hub.Member, f *hub.Frame) {
	var in message
	if json.Unmarshal(f.Payload(), &in) != nil {
		m.Close(1007, "no JSON")
		return
	}
	switch in.Type {
	case "enter":
		m.Leave(m.Info().Rooms...)
		if err := m.Join(ctx, clip(in.Room, 40)); err != nil {
			slog.Warn("a client may miss messages of other nodes", "node", n.name, "err", err)
		}
	case "who":
		m.Send(frame(message{Type: "people", People: n.people(ctx, m.Info().Rooms)}))
	case "say":
		var me person
		info := m.Info()
		_ = json.Unmarshal(info.Data, &me) // it is ours
		who := hub.Who{Rooms: info.Rooms}
		if in.To != "" {
			who = hub.Who{IDs: []string{in.To, m.ID()}}
		}
		n.send(ctx, who, message{Type: "said", To: in.To, ID: m.ID(), From: me.Name, Node: n.name, Text: clip(in.Text, 500)})
	}
}

// people returns who is in rooms, on all nodes.
func (n *node) people(ctx context.Context, rooms []string) (people []person) {
	roster, err := n.hub.Members(ctx, hub.Who{Rooms: rooms})
	if err != nil || roster.Answered < roster.Nodes {
		slog.Warn("not all nodes have answered", "node", n.name, "answered", roster.Answered, "nodes", roster.Nodes, "err", err)
	}
	for _, m := range roster.Members {
		var p person
		_ = json.Unmarshal(m.Data, &p)
		p.ID = m.ID
		people = append(people, p)
	}
	return people
}

func (n *node) send(ctx context.Context, who hub.Who, m message) {
	if err := n.hub.Send(ctx, who, frame(m)); err != nil {
		slog.Warn("not all clients have got a message", "node", n.name, "err", err)
	}
}

func frame(m message) *hub.Frame {
	b, _ := json.Marshal(m) // strings only
	return hub.Text(b)
}

// clip trims s and cuts it to n characters.
func clip(s string, n int) string {
	s = strings.TrimSpace(s)
	if r := []rune(s); len(r) > n {
		return string(r[:n])
	}
	return s
}
