package middleware

import (
	"context"
	"fmt"
	"net/http"

	"github.com/limpet-go/limpet/balancer"
)

// ServeHTTP sends the request to the client's backend and copies the answer to the
// client. It doesn't normalise the path: the backend gets it as the client wrote it,
// and as handlers in front of the gateway saw it in r.URL. These requests are answered
// with 400:
//
//   - the target is neither a path, nor an http or https URL with a host, nor * with
//     the method OPTIONS,
//   - the target can't be passed on as it is,
//   - the host is none that RFC 3986 allows.
//
// Some behaviour is that of net/http's server, and the gateway can't change it. When a
// client closes its side of an HTTP/1 connection after the request, the server takes
// that for a client that went away, and the request is given up. A request with both
// Transfer-Encoding and Content-Length is read by the former, and a Transfer-Encoding
// over HTTP/1.0 is ignored. The server removes the field that it ignores, so that
// handlers can't tell, and it may keep the connection, which RFC 9112 section 6.1
// forbids.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.remarks.done.Load() {
		g.checkUse(r)
	}
	id := ""
	if g.requestID != "" {
		id = identify(w, r, g.requestID)
	}
	rec := g.router.record(r, g.client, id)
	if rec != nil {
		defer rec.report()
	}
	if r.Method == http.MethodConnect {
		// The gateway is no forward proxy: with an answer of 200 to a CONNECT the
		// client would get a raw connection to the backend (RFC 9110 section 9.3.6).
		g.refuse(w, r, rec, errConnect)
		return
	}
	if err := checkRequest(r); err != nil {
		g.refuse(w, r, rec, err)
		return
	}
	if g.upgrade.Protocol(r) != "" {
		g.tunnel(w, r, rec, id)
		return
	}
	g.proxy(w, r, rec, id)
}

// proxy serves a plain request. The handler's goroutine runs all of it. The transport
// may have a goroutine that reads the body; join waits for its last Read, also when a
// hook panics, so that no Read goes on after proxy has returned.
//
// The passage is given back to its pool only at the end of a request that was answered.
// After an error or a panic, somebody may still use it.
func (g *Gateway) proxy(w http.ResponseWriter, r *http.Request, rec *Record, id string) {
	p := passages.Get().(*passage)
	p.gateway, p.w = g, w
	p.in, p.rec, p.pin = r, rec, g.router.find(r)
	rec.found(p.pin)
	if err := g.prepare(&p.out, r, p.pin, id); err != nil {
		g.refuse(w, r, rec, err)
		return
	}
	if p.body = newReplay(g.router, r, &p.out.Request); p.body != nil {
		if !p.body.complete() {
			p.classifyBody()
		}
		if rec != nil {
			rec.body = p.body
		}
		defer p.body.join()
		if p.body.touches && r.ProtoMajor == 1 && p.out.Context().Done() != nil {
			defer p.outlive()()
		}
	}
	res, err := g.send(p)
	if err == nil {
		if p.backend != nil {
			defer p.backend.End() // not p.end: p may be another request's by then
		}
		res, err = p.body.hold(res)
	}
	if err != nil {
		err = p.body.reason(err)
	}
	p.body.answerEarly(w, r)
	if err != nil {
		g.refuse(w, r, rec, err)
		return
	}
	g.answer(w, &p.trip, res)
	p.recycle()
}

// final returns res without the fields that concern only the connection to b. It
// returns an error if res isn't a final answer: a 101 that nobody asked for isn't one.
func final(res *http.Response, b *balancer.Backend) (*http.Response, error) {
	if res.StatusCode < 200 {
		res.Body.Close()
		return nil, &balancer.Error{Backend: b.ID(), Sent: true, Err: fmt.Errorf("answered %s, which is no final status", res.Status)}
	}
	endToEnd(res)
	return res, nil
}

// answer sends res to the client: a backend's answer, or that of the affinity to a
// client whose home is gone.
func (g *Gateway) answer(w http.ResponseWriter, t *trip, res *http.Response) {
	if g.requestID != "" {
		delete(res.Header, g.requestID) // a backend may send it back
	}
	if err := g.modifyResponse(t.rec, res); err != nil {
		res.Body.Close()
		g.refuse(w, t.in, t.rec, err)
		return
	}
	if t.backend == nil {
		yield(res.Header, w.Header())
	}
	g.endKeepAlive(w)
	if t.backend != nil {
		const origin = "Access-Control-Allow-Origin"
		g.router.doctor.checkCORS(t, len(w.Header()[origin]), len(res.Header[origin]))
	}
	writeAnswer(w, t, res)
}

// modifyResponse lets Options.ModifyResponse change a backend's answer, and notes in the
// record what it has become. If the hook panics, the record has no status.
func (g *Gateway) modifyResponse(rec *Record, res *http.Response) error {
	if g.modify == nil {
		return nil
	}
	if rec != nil {
		rec.Status = 0
	}
	err := g.modify(res)
	if rec != nil {
		rec.Status, rec.Header = res.StatusCode, res.Header
	}
	return err
}

// refuse sends the gateway's own answer to a request that failed with err. A client
// that went away (499) isn't worth a warning.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, rec *Record, err error) {
	if rec.refused(err); rec != nil && !rec.Left {
		w = &ownAnswer{w, rec}
	}
	if StatusCode(err) != 499 {
		g.router.warn(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if g.requestID != "" { // ErrorPages doesn't know the field's name
		r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, w.Header().Get(g.requestID)))
	}
	g.endKeepAlive(w)
	g.fail(w, r, err)
}
