package hub

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/coder/websocket"
)

// socket is a client's WebSocket. coder/websocket reads from it and writes
// control frames to it; data frames are written beside it, since they are ready.
type socket struct {
	ws   *websocket.Conn
	wire *wire
	out  net.Buffers
}

// Send implements [Conn].
func (s *socket) Send(_ context.Context, messages []*Frame) error {
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	if len(messages) == 1 {
		_, err := s.wire.Conn.Write(messages[0].Bytes())
		return err
	}
	s.wire.frames = s.wire.frames[:0]
	for _, f := range messages {
		s.wire.frames = append(s.wire.frames, f.Bytes())
	}
	s.out = s.wire.frames // WriteTo consumes it
	_, err := s.out.WriteTo(s.wire.Conn)
	clear(s.wire.frames)
	return err
}

// Close implements [Conn].
func (s *socket) Close(_ context.Context, code int, reason string) error {
	return s.ws.Close(websocket.StatusCode(code), reason)
}

// cut closes the connection: what reads from it and writes to it fails.
func (s *socket) cut() { s.wire.Conn.Close() }

// wire is the connection below a WebSocket. coder/websocket writes each control
// frame by one Write, so that a lock keeps frames whole.
type wire struct {
	net.Conn
	heard atomic.Bool // since the last ping

	mu     sync.Mutex
	frames [][]byte
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard.Store(true)
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Conn.Write(p)
}

// hijacker is a ResponseWriter that keeps the connection it gives away.
type hijacker struct {
	http.ResponseWriter
	wire *wire
}

// hijack returns a hijacker if w can be hijacked.
func hijack(w http.ResponseWriter) (*hijacker, bool) {
	for in := w; ; {
		switch t := in.(type) {
		case http.Hijacker:
			return &hijacker{ResponseWriter: w}, true
		case interface{ Unwrap() http.ResponseWriter }:
			in = t.Unwrap()
		default:
			return nil, false
		}
	}
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.wire = &wire{Conn: conn}
	h.wire.heard.Store(true) // the handshake
	rw.Writer.Reset(h.wire)
	return h.wire, rw, nil
}
