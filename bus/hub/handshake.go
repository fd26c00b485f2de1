package hub

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/stay"
	"github.com/limpet-go/limpet/internal/switchable"
)

// accept answers a client's handshake and returns its WebSocket, or nil if the answer is
// an error. early is what the client has sent behind the handshake. coder/websocket does the
// handshake. It isn't used for what comes then, since its buffers and its state would take as
// much memory as everything else of a member.
func (s *sockets) accept(w http.ResponseWriter, r *http.Request) (c *socket, early []byte) {
	if !canHijack(w) {
		if r.ProtoMajor == 1 { // no ResponseWriter of HTTP/2 can be taken over
			s.hub.hidden.Do(func() {
				s.hub.opts.Logger.Error("clients are refused with 501: a middleware in front hides the connection; its ResponseWriter needs an Unwrap method")
			})
		}
		http.Error(w, http.StatusText(http.StatusNotImplemented), http.StatusNotImplemented)
		return nil, nil
	}
	take := &hijacker{ResponseWriter: w}
	if s.opts.Compress {
		take.extension = answerOffers(r.Header.Values("Sec-WebSocket-Extensions"))
	}
	ws, err := websocket.Accept(take, r, &websocket.AcceptOptions{
		OriginPatterns: s.opts.Origins, Subprotocols: append([]string{Protocol}, s.opts.Subprotocols...),
	})
	if err != nil {
		return nil, nil // Accept has answered
	}
	_ = ws.CloseNow() // closes what it takes for the connection
	conn := below(take.conn)
	c = &socket{sockets: s, conn: conn, raw: rawConn(conn), release: stay.Hold(r.Context())}
	c.deflates = take.extension != ""
	c.frames.inflates = c.deflates
	c.try = c.receive
	if ws.Subprotocol() == Protocol {
		c.alive = s.alive
	}
	c.heard.Store(true) // the handshake counts for the first ping
	return c, take.early
}

// below returns the connection that one of an [upgrade.Listener] without TLS passes everything
// on to, and any other as it is.
//
// [upgrade.Listener]: https://pkg.go.dev/github.com/limpet-go/limpet/upgrade#Listener
func below(conn net.Conn) net.Conn {
	if s, ok := conn.(*switchable.Conn); ok {
		return s.NetConn()
	}
	return conn
}

// canHijack reports whether a connection can be taken over from w, which has to be known
// before anything is written to it.
func canHijack(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}

// hijacker is a ResponseWriter that keeps the connection it was hijacked for.
type hijacker struct {
	http.ResponseWriter
	extension string // the answer to the client's offers of compression, or ""
	conn      net.Conn
	early     []byte // what the client has sent behind its handshake
}

// WriteHeader implements http.ResponseWriter.
func (h *hijacker) WriteHeader(status int) {
	if h.extension != "" && status == http.StatusSwitchingProtocols {
		h.Header().Set("Sec-WebSocket-Extensions", h.extension)
	}
	h.ResponseWriter.WriteHeader(status)
}

// Hijack implements http.Hijacker. The connection that it returns can't be closed.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	h.conn, h.early = conn, bytes.Clone(early)
	return kept{conn}, rw, nil
}

// kept is a connection that Close leaves open.
type kept struct{ net.Conn }

func (kept) Close() error { return nil }

// refuse closes a client that is no member.
func (s *socket) refuse(code int, reason string) {
	timeout := s.sockets.hub.opts.WriteTimeout
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_ = s.conn.SetWriteDeadline(time.Now().Add(timeout))
	_ = s.Close(ctx, code, reason)
}
