package middleware

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/limpet-go/limpet/internal/switchable"
)

// buffers are the buffers through which answers' bodies are copied. They are so large that
// net/http writes a full one without copying it into its own.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// writeAnswer copies res to the client, each piece as soon as it has come. When the
// backend's answer breaks off, it panics with [http.ErrAbortHandler], so that the client's
// connection breaks off too: a short answer must never look complete.
func writeAnswer(w http.ResponseWriter, t *trip, res *http.Response) {
	defer res.Body.Close()
	h := w.Header()
	mergeHeader(h, res.Header)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // keeps net/http from detecting one
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
	if err := copyBody(w, rc, res, t); err != nil {
		t.rec.broke(err)
		abort(rc, t.in)
	}
	if len(res.Trailer) > 0 {
		_ = rc.Flush() // net/http would send a short body with Content-Length, and then no trailers
	}
	for name, values := range res.Trailer {
		if len(res.Trailer) != announced {
			name = http.TrailerPrefix + name // the backend hadn't announced all of them
		}
		h[name] = values // in place of a field of the header that has the same name
	}
}

// mergeHeader adds the fields of a backend's answer to h, in which middlewares in front of
// the gateway may have set fields. The backend's cookies come before theirs, since some
// clients read only the first Set-Cookie.
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

// copyBody copies res.Body to the client. It flushes each piece of an answer whose length
// isn't known, and of others what doesn't fill the buffer.
func copyBody(w http.ResponseWriter, rc *http.ResponseController, res *http.Response, t *trip) error {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	streams := res.ContentLength < 0
	if streams {
		// A client of an event stream wants to know that it is open before the first
		// event comes.
		if err := flush(rc, t.body); err != nil {
			return err
		}
	}
	left := res.ContentLength
	for {
		n, err := res.Body.Read(buf[:])
		if n > 0 {
			sent, failed := w.Write(buf[:n])
			t.rec.sent(sent)
			if failed != nil {
				return &clientError{failed}
			}
			left -= int64(n)
			// If the buffer is full, more has come already and will be written next.
			if err == nil && n < len(buf) && (streams || left > 0) {
				if err := flush(rc, t.body); err != nil {
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

// A clientError is a failure to write to the client.
type clientError struct{ err error }

func (e *clientError) Error() string { return "writing to the client: " + e.err.Error() }
func (e *clientError) Unwrap() error { return e.err }

// leftBy reports whether an answer broke off with err because the client went away.
func leftBy(err error) bool {
	var client *clientError
	return errors.As(err, &client) || errors.Is(err, context.Canceled)
}

// flush sends what net/http has buffered. It isn't an error if a middleware hides the
// server's writer, so that nothing can be flushed.
func flush(rc *http.ResponseController, body *replay) error {
	err := rc.Flush()
	if err == nil {
		body.watchClient()
	} else if !errors.Is(err, http.ErrNotSupported) {
		return &clientError{err}
	}
	return nil
}

// abort breaks the client's connection in the middle of an answer. To an HTTP/1.0 client,
// a connection that is closed in order is the end of the answer, so that it is reset.
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
	socket := switchable.Innermost(conn)
	if tcp, ok := socket.(interface{ SetLinger(seconds int) error }); ok {
		_ = tcp.SetLinger(0)
		_ = socket.Close()
	}
	_ = conn.Close()
}
