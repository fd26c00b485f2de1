package middleware

import (
	"net/http"
	"net/textproto"
	"sync"

	"github.com/limpet-go/limpet/balancer"
)

// A passage is all that a plain request's way through the gateway needs. It is
// used for one request after the other, since to make it anew would be a large
// part of what a request costs.
type passage struct {
	trip
	gateway  *Gateway
	w        http.ResponseWriter
	owes100  bool // the client waits for a 100, which sendContinue has to write
	out      outgoing
	informed func(code int, header textproto.MIMEHeader) error
}

var passages = sync.Pool{New: func() any {
	p := &passage{}
	p.try, p.informed = p.attempt, p.inform
	return p
}}

// attempt sends the request to b.
func (p *passage) attempt(b *balancer.Backend) (*http.Response, error) {
	g, out := p.gateway, &p.out.Request
	if err := p.reopen(out); err != nil {
		return nil, err
	}
	if g.modify != nil { // which may ask for the backend
		out = out.WithContext(balancer.WithBackend(out.Context(), b))
	}
	if !expectsContinue(out.Header) { // then the body is read at once
		p.sendContinue()
	}
	informed := p.informed
	if !p.in.ProtoAtLeast(1, 1) {
		informed = nil // HTTP/1.0 knows no 1xx
	}
	res, err := g.transport.RoundTripTo(b, out, informed)
	if err != nil {
		return nil, err
	}
	return final(res, b)
}

// recycle gives p back when the answer has been written: the transport is done with
// the request then, but for a last Read of its body, which is no part of p. What a hook
// has seen it may have kept.
func (p *passage) recycle() {
	if p.gateway.rewrite != nil || p.gateway.modify != nil {
		return
	}
	if len(p.in.Header) > 64 { // a map never shrinks, and all of it is walked through
		p.out.header = nil
	}
	clear(p.out.header)
	*p = passage{
		trip:     trip{try: p.try},
		out:      outgoing{header: p.out.header},
		informed: p.informed,
	}
	passages.Put(p)
}
