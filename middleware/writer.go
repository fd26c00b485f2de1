package middleware

import (
	"maps"
	"net/http"
	"net/textproto"
	"reflect"

	"github.com/limpet-go/limpet/internal/httpfield"
)

// The rule of one writer: only the handler's goroutine causes a write to the client,
// or touches its ResponseWriter and the header of that.
//
// Two other goroutines read the client's body: the transport's, which sends it to the
// backend, and dropRest's (replay.go), which reads only a server's own HTTP/1 body, and
// only when the header of the answer has been sent. Some bodies write to the client
// within Read. net/http's body writes 100 Continue in its first Read if the client
// expects that. http.MaxBytesReader sets a field of the header. The body of a middleware
// may do anything. At the same time the handler's goroutine may write a 103, or an answer
// that comes before the end of the body. Two goroutines in one ResponseWriter corrupt the
// stream, and can send bytes of another client's answer, since net/http's buffers are
// pooled. Therefore:
//
//   - To an HTTP/1 client the handler's goroutine writes the 100 itself, before the body
//     is read (sendContinue). net/http then doesn't write its own.
//   - The server's own bodies only read, apart from that. They are recognised by their
//     types (classifyBody), and may be read while an answer is written.
//   - Over HTTP/2 the first Read of the server's own body may send a 100, also when the
//     request has no Expect field any more, since the server removes it. That is safe:
//     the connection's own goroutine writes all frames, and it sends no 100 after the
//     header of an answer. But it would not send the 100 after a 103 either, and the
//     client would wait for ever. So a 103 is dropped until the first Read has returned
//     (replay.busy).
//   - Any other body may write to the client within Read (replay.touches). While it may
//     be read, the gateway writes nothing: it drops a 1xx, and holds an answer
//     (held.go) until the body has been read or the reading is stopped (answerEarly).
//
// Together, by what the body is and what is to be written:
//
//	body                  100 (HTTP/1)             other 1xx                  answer
//	server's own, HTTP/1  handler, before reading  at any time                at any time
//	server's own, HTTP/2  by the first Read        after the first Read       at any time
//	any other             handler, before reading  before the 100, or at EOF  held until reading is over
//
// If a middleware hides the server's writer, the gateway can't write the 100 itself. Every
// body that may send one counts as any other then, and its first Read writes the 100 while
// the handler's goroutine writes nothing.

// classifyBody finds out what a read of the request's body may do. What it doesn't
// recognise counts as a body that may write to the client.
func (p *passage) classifyBody() {
	p.body.rc = http.NewResponseController(p.w)
	p.body.closes = p.in.ProtoMajor == 2
	waits := expectsContinue(p.in.Header) && p.in.ProtoMajor == 1 && p.in.ProtoMinor > 0
	switch serverType(p.body.src) {
	case "body":
	case "http2requestBody", "requestBody":
		p.body.h2 = true
	case "expectContinueReader":
		waits = true // also if a middleware has removed Expect from the header
	default:
		p.body.touches = true
	}
	if waits {
		p.owes100 = serverType(innermost(p.w)) == "response"
		p.body.touches = p.body.touches || !p.owes100
	}
}

// serverType returns the name of v's type if that belongs to one of net/http's servers
// or to golang.org/x/net/http2, of which net/http has a copy, and "" otherwise.
func serverType(v any) string {
	t := reflect.TypeOf(v)
	if t == nil || t.Kind() != reflect.Pointer {
		return ""
	}
	t = t.Elem()
	switch t.PkgPath() {
	case "net/http", "net/http/internal/http2", "golang.org/x/net/http2":
		return t.Name()
	}
	return ""
}

// innermost returns the writer that w wraps, through all that have an Unwrap method. That
// is the server's own, unless a middleware hides it.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = outer.Unwrap()
	}
}

// expectsContinue reports whether a client that sent this header waits for a 100 before
// it sends the body. balancer.Transport and net/http decide it in the same way.
func expectsContinue(h http.Header) bool { return httpfield.HasToken(h["Expect"], "100-continue") }

// inform passes a backend's informational answer on to the client, if it may be written
// now. After a 100 the transport reads the body only when inform has returned (see
// balancer.Transport.RoundTripTo).
func (p *passage) inform(code int, header textproto.MIMEHeader) error {
	switch {
	case code == http.StatusContinue:
		p.sendContinue()
	case p.owes100, p.body == nil, !p.body.busy():
		inform(p.w, code, header)
	}
	return nil
}

// sendContinue writes a 100 in place of the server, once, if the client waits for it. It
// writes to the server's own writer, as the server does: some middlewares take each
// status for the final one.
func (p *passage) sendContinue() {
	if p.owes100 {
		p.owes100 = false
		inform(innermost(p.w), http.StatusContinue, nil)
	}
}

// inform writes an informational answer (1xx).
func inform(w http.ResponseWriter, code int, header textproto.MIMEHeader) {
	h := w.Header()
	own := h.Clone() // middlewares in front have set these fields for the final answer
	if code == http.StatusContinue {
		clear(h)
	}
	fields := http.Header(header).Clone()
	removeHopByHop(fields)
	for name, values := range fields {
		h[name] = append(h[name], values...)
	}
	// When the client goes away, net/http's HTTP/2 server returns from WriteHeader
	// while it still writes h, unless this field makes it take a copy. No server
	// sends it with a 1xx.
	h["Content-Length"] = nil
	w.WriteHeader(code)
	clear(h)
	maps.Copy(h, own)
}

// answerEarly prepares w for an answer that is written before the end of the body was
// read. net/http would read the rest of the body before it writes the answer's first byte,
// and a client that waits for the answer before it sends the rest would wait for ever. With
// full duplex net/http doesn't. The connection must be closed then, or the server could
// take the rest of the body for the client's next request. When the body was read to its
// end, answerEarly does nothing.
func (p *replay) answerEarly(w http.ResponseWriter, r *http.Request) {
	if p == nil || p.complete() {
		return
	}
	if p.touches {
		p.stop(past)
	}
	if r.ProtoMajor == 1 {
		_ = p.rc.EnableFullDuplex()
		w.Header().Set("Connection", "close")
	}
}
