package middleware

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// buffers are for answers' bodies: large enough for net/http to pass them on
// without a copy of its own.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// writeAnswer copies res to the client, each piece as soon as it is there. When
// the backend's answer breaks off it breaks the client's connection as well: a
// short answer must never look whole.
func writeAnswer(w http.ResponseWriter, r *http.Request, res *http.Response) {
	defer res.Body.Close()
	h := w.Header()
	mergeHeader(h, res.Header)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // keeps net/http from guessing one
	}
	announced := len(res.Trailer)
	if announced > 0 {
		names := make([]string, 0, announced)
		for name := range res.Trailer {
			names = append(names, name)
		}
		h.Add("Trailer", strings.Join(names, ", "))
	}
	w.WriteHeader(res.StatusCode)

	rc := http.NewResponseController(w)
	if err := copyBody(w, rc, res); err != nil {
		abort(rc, r)
	}
	if len(res.Trailer) > 0 {
		_ = rc.Flush() // a body that fits into the buffers would leave no room for trailers
	}
	for name, values := range res.Trailer {
		if len(res.Trailer) != announced {
			name = http.TrailerPrefix + name
		}
		h[name] = values // in place of a field of the header that has the same name
	}
}

// mergeHeader adds a backend's fields to those that middlewares around the
// gateway have set. The application's cookies come first: some clients read
// only the first Set-Cookie.
func mergeHeader(h, answer http.Header) {
	for name, values := range answer {
		own := h[name]
		switch {
		case len(own) == 0:
			h[name] = values
		case name == "Set-Cookie":
			h[name] = append(values[:len(values):len(values)], own...)
		default:
			h[name] = append(own, values...)
		}
	}
}

func copyBody(w http.ResponseWriter, rc *http.ResponseController, res *http.Response) error {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	streams := res.ContentLength < 0
	if streams {
		// Whoever waits for an event stream wants to know that it is there.
		if err := flush(rc); err != nil {
			return err
		}
	}
	left := res.ContentLength
	for {
		n, err := res.Body.Read(buf[:])
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return fmt.Errorf("writing to the client: %w", err)
			}
			left -= int64(n)
			// A full buffer means that more is on its way.
			if err == nil && n < len(buf) && (streams || left > 0) {
				if err := flush(rc); err != nil {
					return err
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the backend's answer: %w", err)
		}
	}
}

// flush sends what is buffered. A writer that can't flush, because a middleware
// hides it, is the embedder's choice and no error.
func flush(rc *http.ResponseController) error {
	if err := rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("flushing to the client: %w", err)
	}
	return nil
}

// abort ends the client's connection in the middle of an answer. An HTTP/1.0
// client takes the end of the connection for the end of the answer, unless it is
// reset.
func abort(rc *http.ResponseController, r *http.Request) {
	if !r.ProtoAtLeast(1, 1) {
		if conn, _, err := rc.Hijack(); err == nil {
			reset(conn)
		}
	}
	panic(http.ErrAbortHandler)
}

// reset closes conn with a TCP reset.
func reset(conn net.Conn) {
	inner := conn
	if t, ok := inner.(interface{ NetConn() net.Conn }); ok {
		inner = t.NetConn()
	}
	if tcp, ok := inner.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
	}
	_ = conn.Close()
}
