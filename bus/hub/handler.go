package hub

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/closecode"
)

// HandlerOptions are the options of [Hub.Handler]. The zero value of each field is a
// good default.
type HandlerOptions struct {
	// Member says who a client is, and whether it may connect: an error is answered
	// with 403 Forbidden. For another answer put a middleware in front of the
	// handler. By default every client is let in and has a random ID.
	Member func(r *http.Request) (MemberOptions, error)

	// Opened is called when the client has become a member, Message for each message
	// that it sends then, and Closed when no more will come. One goroutine calls
	// them in this order, so a client whose messages take long to deal with delays
	// only itself. ctx ends with the connection. Text that isn't UTF-8 closes the
	// client with 1007 (Invalid Frame Payload Data).
	//
	// Others may have sent messages to the member before Opened is called, if
	// Member gave it rooms. For a greeting that comes first, let Opened send it and
	// then join the rooms.
	Opened  func(ctx context.Context, m *Member, r *http.Request)
	Message func(ctx context.Context, m *Member, f *Frame)
	Closed  func(m *Member)

	// Origins are patterns, as [path.Match] takes them, for the hosts of other sites
	// whose pages may connect. A port is a part of the host. Pages of the host that
	// the request is for may always connect, and so may clients that send no Origin:
	// those aren't browsers.
	Origins []string
	// Subprotocols are those that clients may ask for, the best one first.
	Subprotocols []string
	// ReadLimit is the size in bytes of the largest message that a client may send;
	// it is 32 KiB by default. A larger one closes the client with 1009 (Message Too
	// Big).
	ReadLimit int64
	// Ping is how often a client is sent a ping; it is every 25 s by default. The
	// connection of a client from which nothing has come between two pings is
	// closed.
	Ping time.Duration
}

// Handler returns a handler that makes WebSocket clients members of the hub. What a
// client sends goes to opts.Message and to nobody else; without Message it is ignored.
// Nil options are defaults.
//
// Once [Hub.Run] has ended clients are answered with 503 Service Unavailable, and the
// reason is logged once. Compression isn't negotiated: a message is encoded once for
// all members.
func (h *Hub) Handler(opts *HandlerOptions) http.Handler {
	s := &sockets{hub: h}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.ReadLimit <= 0 {
		s.opts.ReadLimit = 32 << 10
	}
	if s.opts.Ping <= 0 {
		s.opts.Ping = 25 * time.Second
	}
	return s
}

// sockets is the handler of a hub's WebSockets.
type sockets struct {
	hub  *Hub
	opts HandlerOptions
}

func (s *sockets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := s.hub.hasClosed(); err != nil {
		s.hub.refuse(err)
		w.Header().Set("Retry-After", "1")
		http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
		return
	}
	var who MemberOptions
	if s.opts.Member != nil {
		var err error
		if who, err = s.opts.Member(r); err != nil {
			s.hub.opts.Logger.Debug("a client may not become a member", "client", r.RemoteAddr, "err", err)
			http.Error(w, http.StatusText(http.StatusForbidden), http.StatusForbidden)
			return
		}
	}
	take, ok := hijack(w)
	if !ok {
		http.Error(w, http.StatusText(http.StatusNotImplemented), http.StatusNotImplemented)
		return
	}
	ws, err := websocket.Accept(take, r, &websocket.AcceptOptions{
		OriginPatterns: s.opts.Origins, Subprotocols: s.opts.Subprotocols,
	})
	if err != nil {
		return // Accept has answered
	}
	ws.SetReadLimit(s.opts.ReadLimit)
	c := &socket{ws: ws, wire: take.wire}
	m, err := s.hub.Connect(r.Context(), c, who)
	if err != nil {
		if errors.Is(err, ErrClosed) {
			ws.Close(closecode.ServiceRestart, "service restart") // as shut would a moment later
			return
		}
		s.hub.opts.Logger.Error("a client can't become a member", "client", r.RemoteAddr, "err", err)
		ws.Close(closecode.InternalError, "")
		return
	}
	context.AfterFunc(m.ctx, c.cut)
	s.serve(m, c, r)
}

// refuse logs, once, why clients are refused. That Run has ended with its context is
// no failure, but a handler that is still used then may be a mistake.
func (h *Hub) refuse(closed error) {
	h.refusing.Do(func() {
		level := slog.LevelError
		if closed == ErrClosed {
			level = slog.LevelInfo
		}
		h.opts.Logger.Log(context.Background(), level, "clients are refused with 503: Hub.Run has ended", "err", closed)
	})
}

// serve serves a member until its connection ends.
func (s *sockets) serve(m *Member, c *socket, r *http.Request) {
	if s.opts.Closed != nil {
		defer s.opts.Closed(m)
	}
	defer m.Close(closecode.InternalError, "") // only counts when a callback panics
	var pings *time.Timer
	pings = time.AfterFunc(math.MaxInt64, func() { // not before pings is assigned
		if c.wire.heard.Swap(false) {
			m.ping()
			pings.Reset(s.opts.Ping)
		} else {
			c.cut()
		}
	})
	pings.Reset(s.opts.Ping)
	defer pings.Stop()
	if s.opts.Opened != nil {
		s.opts.Opened(m.ctx, m, r)
	}
	for {
		kind, data, err := c.ws.Read(context.Background()) // ends with the connection
		if err != nil {
			break
		}
		if kind == websocket.MessageText && !utf8.Valid(data) { // other clients would close their connections if it was passed on
			m.Close(closecode.InvalidPayload, "text that is not UTF-8")
			continue
		}
		if s.opts.Message != nil && !m.over() {
			s.opts.Message(m.ctx, m, &Frame{payload: data, binary: kind == websocket.MessageBinary})
		}
	}
	m.Close(closecode.Normal, "")
}
