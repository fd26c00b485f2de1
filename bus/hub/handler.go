package hub

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
	"github.com/limpet-go/limpet/internal/tokenbucket"
)

// HandlerOptions are the options of [Hub.Handler]. The zero value of each field is a
// good default.
type HandlerOptions struct {
	// Member says who a client is, and whether it may connect: an error is answered
	// with 403 Forbidden. For another answer put a middleware in front of the
	// handler. By default every client is let in and has a random ID.
	Member func(r *http.Request) (MemberOptions, error)

	// Opened is called when the client has become a member, Message for each message
	// that it sends then, and Closed when no more will come. They are called in this
	// order, one at a time for each client, so a client whose messages take long to
	// deal with delays only itself. Text that isn't UTF-8 closes the client with 1007
	// (Invalid Frame Payload Data), and a callback that panics with 1011 (Internal
	// Server Error).
	//
	// ctx ends with the connection and not with the handler, which returns when Opened
	// has. It has no values. Those of r.Context() are for Member and Opened alone: a router
	// such as chi uses the memory of a request's parameters for the next request when the
	// handler returns. What Message needs of the request, Opened has to keep.
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
	// Subprotocols are those that clients may ask for beside [Protocol], the best one
	// first. Clients that ask for Protocol speak it.
	Subprotocols []string
	// Compress makes the handler compress messages for clients that offer permessage-deflate
	// (RFC 7692), as browsers do, and lets these clients compress theirs. Each message is
	// compressed by itself, without context takeover: once for all clients that get it, and
	// a client takes no memory for it while nothing moves. Messages of less than 256 bytes,
	// and those that don't become shorter, are sent as they are. A client isn't answered with
	// the extension, and gets all messages as they are, if it offers nothing, or only offers
	// with a server_max_window_bits of less than 15.
	//
	// The length of a compressed message tells something of its content: don't send a secret
	// in one message with text that strangers choose.
	Compress bool
	// ReadLimit is the size in bytes of the largest message that a client may send;
	// it is 32 KiB by default. A larger one closes the client with 1009 (Message Too
	// Big). Of a compressed one what counts is its length without compression. The first
	// one of [Protocol] takes some 30 bytes and a name for each room.
	ReadLimit int64
	// MessageRate is how many messages a second a client may send. Control frames such as
	// pings count, and each fragment of a message. A client that sends more is closed with
	// 1008 (Policy Violation). 0 means no limit.
	MessageRate int
	// MessageBurst is how many messages a client that was silent may send at once; with a
	// MessageRate it is those of ten seconds by default.
	MessageBurst int
	// Ping is how often a client is sent a ping; it is every 25 s by default. The
	// connection of a client from which nothing has come between two pings is
	// closed. Nothing is read while Opened or Message runs, not even the answer to a
	// ping: one that takes longer than Ping may lose its client.
	Ping time.Duration
}

// Handler returns a handler that makes WebSocket clients members of the hub. What a
// client sends goes to opts.Message and to nobody else; without Message it is ignored.
// Nil options are defaults.
//
// It returns once a client has become a member. For what wraps it, such as an access log, a
// histogram of durations or a limit of requests in flight, the request ends then. Limit of
// Limpet's middleware counts the client until its connection is closed, and Closed says when a
// client is gone. A panic in Message or Closed is logged by [Options].Logger.
//
// A handler in front needs a ResponseWriter with an Unwrap method, as [http.ResponseController]
// asks for, or clients are answered with 501 Not Implemented, which is logged once.
//
// Once [Hub.Run] has ended clients are answered with 503 Service Unavailable, and the
// reason is logged once.
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
	s.alive = line{Alive: s.opts.Ping.Seconds(), Answers: true}.frame()
	if s.opts.MessageRate > 0 {
		s.rate = tokenbucket.New(s.opts.MessageRate, cmp.Or(max(0, s.opts.MessageBurst), 10*s.opts.MessageRate))
	}
	s.pings.every, s.pings.began = s.opts.Ping, time.Now()
	return s
}

// sockets is the handler of a hub's WebSockets.
type sockets struct {
	hub   *Hub
	opts  HandlerOptions
	rate  tokenbucket.Bucket
	pings pings
	alive *Frame // see socket.alive
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
	c, early := s.accept(w, r)
	if c == nil {
		return
	}
	code, reason := closecode.InternalError, "" // if Connect panics
	first := &hello{}
	defer func() {
		if c.alive == nil {
			go c.read(early) // until the connection ends
		} else {
			go first.pass(c) // likewise
		}
		if c.member == nil {
			c.refuse(code, reason)
		}
	}()
	if who.Positions = nil; c.alive != nil {
		if bad := first.read(c, early); bad != nil {
			code, reason = bad.code, bad.reason
			return
		}
		who.Positions = first.first.Positions
	}
	// A member has none of the request's values: a router may give what it keeps there to
	// another request when the handler returns.
	m, err := s.hub.connect(r.Context(), context.Background(), c, who)
	switch {
	case errors.Is(err, ErrClosed):
		code, reason = closecode.ServiceRestart, "service restart" // as shut would a moment later
	case err != nil:
		s.hub.opts.Logger.Error("a client can't become a member", "client", r.RemoteAddr, "err", err)
	default:
		c.member = m
		s.pings.add(c)
		s.open(m, r)
		if c.alive != nil {
			m.tellAbsent()
		}
	}
}

// open calls Opened.
func (s *sockets) open(m *Member, r *http.Request) {
	if s.opts.Opened == nil {
		return
	}
	returned := false
	defer func() {
		if !returned { // it panics, which net/http deals with
			m.Close(closecode.InternalError, "")
		}
	}()
	s.opts.Opened(m.ctx, m, r)
	returned = true
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
