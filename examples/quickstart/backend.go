package main

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/go-chi/chi/v5"
)

// backend is one chat server, as it would run on a machine of its own: a listener, a health page, a WebSocket. It knows
// nothing of Limpet.
type backend struct {
	id   string
	hue  int // its colour on the page, in degrees
	room *room
	addr string // 127.0.0.1:port, kept over its deaths

	mu     sync.Mutex
	cancel context.CancelFunc // ends the present life; nil while it is dead
}

// hello is the first message on each socket: a client can't see through a proxy, so its backend tells it who it is.
type hello struct {
	Type    string `json:"type"`
	Backend string `json:"backend"`
	Hue     int    `json:"hue"`
}

// start brings the backend to life, the first time on a free port and then on the same again, because that is the
// address the pool has. Starting a live one does nothing.
func (b *backend) start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancel != nil {
		return nil
	}
	if b.addr == "" {
		b.addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", b.addr)
	if err != nil {
		return err
	}
	b.addr = ln.Addr().String()

	life, cancel := context.WithCancel(context.Background())
	r := chi.NewRouter()
	r.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {}) // any method: checks come with HEAD
	r.Get("/chat", func(w http.ResponseWriter, r *http.Request) { b.chat(life, w, r) })
	srv := &http.Server{Handler: r}
	go srv.Serve(ln) // ends with Close
	b.cancel = func() {
		srv.Close() // the listener and all connections, but not the WebSockets: those are not the server's any more
		cancel()    // so they hang on this context
	}
	return nil
}

// kill ends the backend the way a crash does: nobody is told goodbye. Its port refuses connections and all its sockets
// are cut, without a close frame. Killing a dead one does nothing.
func (b *backend) kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancel != nil {
		b.cancel()
		b.cancel = nil
	}
}

func (b *backend) alive() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cancel != nil
}

// chat serves one client until it leaves or the backend's life ends.
func (b *backend) chat(life context.Context, w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
	// Accept refuses pages of other origins: the gateway passes the browser's Host on, so that the two can be compared.
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	// A read or a write whose context ends closes the connection at once, which is just what a crash looks like.
	ctx, cancel := context.WithCancel(life)

	missed, lines, leave := b.room.join(after)
	defer leave()
	if wsjson.Write(ctx, c, hello{"hello", b.id, b.hue}) != nil {
		cancel()
		return
	}

	written := make(chan struct{})
	go func() { // ends with ctx, with the socket, or when the room gives up on this client
		defer close(written)
		defer c.CloseNow()
		for _, l := range missed {
			if wsjson.Write(ctx, c, l) != nil {
				return
			}
		}
		for {
			select {
			case l, ok := <-lines:
				if !ok || wsjson.Write(ctx, c, l) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { cancel(); <-written }()

	for {
		var in struct{ From, Text string }
		if wsjson.Read(ctx, c, &in) != nil {
			return
		}
		from, text := clip(in.From, 24), clip(in.Text, 500)
		if text == "" {
			continue
		}
		if from == "" {
			from = "Somebody"
		}
		b.room.say(line{From: from, Backend: b.id, Hue: b.hue, Text: text})
	}
}

// clip trims s and cuts it to n characters.
func clip(s string, n int) string {
	if r := []rune(strings.TrimSpace(s)); len(r) > n {
		return string(r[:n])
	}
	return strings.TrimSpace(s)
}
