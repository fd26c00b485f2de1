package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/go-chi/chi/v5"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
)

// backend is one chat server, as it would run on a machine of its own: a listener, a health page, a WebSocket, and a hub
// that joins it to the others over the bus. It knows nothing of the gateway.
type backend struct {
	id      string
	hue     int // its colour on the page, in degrees
	bus     bus.Bus
	history *history
	addr    string // 127.0.0.1:port, kept over its deaths

	mu  sync.Mutex
	end func() // ends the present life; nil while it is dead
}

// hello is the first message on each socket: a client can't see through a proxy, so its backend tells it who it is.
type hello struct {
	Type    string `json:"type"`
	Backend string `json:"backend"`
	Hue     int    `json:"hue"`
	Seq     int64  `json:"seq"` // of the last line; it is lower than what a client has seen of another run of this program
}

// start brings the backend to life, the first time on a free port and then on the same again, because that is the
// address the pool has. Starting a live one does nothing.
func (b *backend) start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end != nil {
		return nil
	}
	if b.addr == "" {
		b.addr = "127.0.0.1:0"
	}
	h, err := hub.New(b.bus, nil)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", b.addr)
	if err != nil {
		return err
	}
	b.addr = ln.Addr().String()

	running, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.Run(running) // a bus in memory gives it no reason to fail
	}()

	var sockets sync.Map // the connection of each WebSocket
	chat := b.chat(h)
	r := chi.NewRouter()
	r.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {}) // any method: checks come with HEAD
	r.Get("/chat", func(w http.ResponseWriter, r *http.Request) {
		conn := r.Context().Value(connKey{})
		sockets.Store(conn, nil)
		defer sockets.Delete(conn)
		chat.ServeHTTP(w, r) // until the client has gone
	})
	srv := &http.Server{Handler: r, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}}
	go srv.Serve(ln) // ends with Close
	b.end = func() {
		srv.Close() // the listener and all connections, but not the WebSockets: those are not the server's any more
		for conn := range sockets.Range {
			conn.(net.Conn).Close()
		}
		stop() // the hub would say goodbye to its clients, but they are cut off
		<-ended
	}
	return nil
}

// connKey is for a request's connection.
type connKey struct{}

// kill ends the backend the way a crash does: nobody is told goodbye. Its port refuses connections and all its sockets
// are cut, without a close frame. Killing a dead one does nothing.
func (b *backend) kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end != nil {
		b.end()
		b.end = nil
	}
}

func (b *backend) alive() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.end != nil
}

// The room that all clients are in, on all backends.
const room = "chat"

// chat serves clients. The handler refuses pages of other origins: the gateway passes the browser's Host on, so that the
// two can be compared. A client that is too slow loses its socket, and is given what it missed when it comes back.
func (b *backend) chat(h *hub.Hub) http.Handler {
	return h.Handler(&hub.HandlerOptions{
		Opened: func(ctx context.Context, m *hub.Member, r *http.Request) {
			m.Send(frame(hello{"hello", b.id, b.hue, b.history.last()}))
			// First into the room, then what it missed: a line may come twice, but none is left out.
			m.Join(ctx, room)
			after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
			for _, l := range b.history.after(after) {
				m.Send(frame(l))
			}
		},
		Message: func(ctx context.Context, m *hub.Member, f *hub.Frame) {
			var in struct{ From, Text string }
			if json.Unmarshal(f.Payload(), &in) != nil {
				m.Close(1007, "not JSON")
				return
			}
			from, text := clip(in.From, 24), clip(in.Text, 500)
			if text == "" {
				return
			}
			if from == "" {
				from = "Somebody"
			}
			said := b.history.add(line{From: from, Backend: b.id, Hue: b.hue, Text: text})
			// To those on this backend, and over the bus to all others.
			if err := h.Send(ctx, hub.Who{Rooms: []string{room}}, frame(said)); err != nil {
				slog.Warn("a line has reached one backend only", "backend", b.id, "err", err)
			}
		},
	})
}

func frame(v any) *hub.Frame {
	data, _ := json.Marshal(v) // strings and numbers
	return hub.Text(data)
}

// clip trims s and cuts it to n characters.
func clip(s string, n int) string {
	if r := []rune(strings.TrimSpace(s)); len(r) > n {
		return string(r[:n])
	}
	return strings.TrimSpace(s)
}
