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
		out = out.WithContext(balancer.NewContext(out.Context(), b))
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

func (p *passage) inform(code int, header textproto.MIMEHeader) error {
	inform(p.w, code, header)
	return nil
}

// recycle gives p back when the answer has been written: the body of the request,
// if it had one, isn't read any more then. What a hook has seen it may have kept.
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
