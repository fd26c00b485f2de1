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

// socket is the Conn of a client's WebSocket. coder/websocket reads from the
// connection and writes control frames to it. Data frames are written around it, since
// their bytes are there already.
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
	s.out = s.wire.frames // a copy of the slice, which WriteTo consumes
	_, err := s.out.WriteTo(s.wire.Conn)
	clear(s.wire.frames)
	return err
}

// Close implements [Conn].
func (s *socket) Close(_ context.Context, code int, reason string) error {
	return s.ws.Close(websocket.StatusCode(code), reason)
}

// cut closes the connection without a close frame. Reads and writes that wait fail.
func (s *socket) cut() { s.wire.Conn.Close() }

// wire is the connection below a WebSocket, with a lock for writing. coder/websocket
// writes each control frame by one Write, so none of them gets into a data frame.
type wire struct {
	net.Conn
	heard atomic.Bool // something was read since the last ping

	mu     sync.Mutex
	frames [][]byte // for Send, which keeps it to allocate nothing
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

// hijacker is a ResponseWriter that knows the connection it was hijacked for, so that
// data frames can be written to it.
type hijacker struct {
	http.ResponseWriter
	wire *wire
}

// hijack returns a hijacker for w. It returns false if w can't be hijacked, which is
// found out before anything is written to it.
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
	h.wire.heard.Store(true) // the handshake counts for the first ping
	rw.Writer.Reset(h.wire)
	return h.wire, rw, nil
}
