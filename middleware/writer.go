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
// The only other goroutine that a request has sends its body to the backend, and to
// read a body can be more than to read. net/http's answers 100 Continue within the
// first Read if the client expects that, http.MaxBytesReader's Read sets a field of the
// header, and a middleware's may do anything. At the same time the handler's goroutine
// may pass on a 103, or an answer that comes early. So:
//
//   - To an HTTP/1 client the handler's goroutine writes the 100 itself, before the body
//     may be read (see sendContinue). net/http doesn't write its own then.
//   - The server's own bodies do nothing else but read. They are known by their types
//     and are read while an answer is written. Over HTTP/2 the first Read may still send
//     a 100: the server takes the Expect off the request. But the connection's own
//     goroutine writes it, as it writes everything, and never behind a header of the
//     stream. That is right before an answer; before a 103 it would leave the client
//     waiting, so that this waits for the first Read (replay.busy).
//   - Of any other body it isn't known (replay.touches). While it may be read nothing is
//     written: a 1xx is dropped, and before an answer the reading is stopped. The
//     backend gets no more of the body then, so that only with the server's own bodies
//     both can go on side by side.

// classifyBody finds out what a read of the request's body may do.
func (p *passage) classifyBody() {
	p.body.rc = http.NewResponseController(p.w)
	waits := expectsContinue(p.in.Header) && p.in.ProtoMajor == 1 && p.in.ProtoMinor > 0
	switch serverType(p.body.src) {
	case "body":
	case "http2requestBody", "requestBody":
		p.body.h2 = true
	case "expectContinueReader":
		waits = true // whatever a middleware has made of the header
	default:
		p.body.touches = true
	}
	if waits {
		p.owes100 = serverType(innermost(p.w)) == "response"
		p.body.touches = p.body.touches || !p.owes100
	}
}

// serverType names v's type if it is one of a server of net/http's, or of the HTTP/2
// server that this has a copy of.
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

// innermost returns the writer that the middlewares around the gateway have wrapped,
// as far as they say so: the server's.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = outer.Unwrap()
	}
}

// expectsContinue reports whether a request with this header waits for a 100 before its
// body is sent, as balancer.Transport and net/http judge it.
func expectsContinue(h http.Header) bool { return httpfield.HasToken(h["Expect"], "100-continue") }

// inform passes a backend's informational answer on. The body isn't read before it was
// told of the 100 (see balancer.Transport.RoundTripTo).
func (p *passage) inform(code int, header textproto.MIMEHeader) error {
	switch {
	case code == http.StatusContinue:
		p.sendContinue()
	case p.owes100, p.body == nil, !p.body.busy():
		inform(p.w, code, header)
	}
	return nil
}

// sendContinue tells a client that waits for it to send the body, in place of the server.
// Middlewares aren't asked, as they aren't by the server: some take each status for the
// final one.
func (p *passage) sendContinue() {
	if p.owes100 {
		p.owes100 = false
		inform(innermost(p.w), http.StatusContinue, nil)
	}
}

// inform writes an informational answer (1xx).
func inform(w http.ResponseWriter, code int, header textproto.MIMEHeader) {
	h := w.Header()
	own := h.Clone() // what middlewares around the gateway set is for the final answer
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

// answerEarly readies w for an answer that comes before the end of the body, if
// it does. net/http would read on before the answer's first byte, and a client
// that waits for the answer would wait for ever. With full duplex it doesn't, but
// then it must not take what is left of the body for the client's next request.
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
