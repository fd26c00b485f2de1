package middleware

import (
	"context"
	"net/http"
	"net/textproto"
	"sync"

	"github.com/limpet-go/limpet/balancer"
)

// A passage is the state of a plain request through a Gateway: the trip, the outgoing
// request, and the client's writer. Passages are pooled, since their allocations would be
// a large part of what a request costs. Nothing that can outlive the request may refer to
// a passage: the transport's goroutine has only the replay, which is allocated for each
// body.
type passage struct {
	trip
	gateway  *Gateway
	w        http.ResponseWriter
	owes100  bool // the client waits for a 100, and sendContinue has to write it
	out      outgoing
	poll     poll // while it is under way, if its pin is Fixed
	informed func(code int, header textproto.MIMEHeader) error
}

var passages = sync.Pool{New: func() any {
	p := &passage{}
	p.try, p.informed, p.leave = p.attempt, p.inform, p.pay
	return p
}}

// outlive gives the outgoing request a context that outlives the reading of the body: see
// outlive of a replay. It isn't part of proxy, on whose stack the copy of the request would
// lie for as long as the request lasts.
func (p *passage) outlive() context.CancelFunc {
	ctx, cancel := p.body.outlive(p.out.Context())
	p.out.Request = *p.out.WithContext(ctx)
	return cancel
}

// attempt sends the request to b and returns the final answer. It is the trip's try.
func (p *passage) attempt(b *balancer.Backend) (*http.Response, error) {
	g, out := p.gateway, &p.out.Request
	if err := p.reopen(out); err != nil {
		return nil, err
	}
	if g.modify != nil { // it may ask the context for the backend
		out = out.WithContext(balancer.WithBackend(out.Context(), b))
	}
	if !expectsContinue(out.Header) { // the transport reads the body at once
		p.sendContinue()
	}
	informed := p.informed
	if !p.in.ProtoAtLeast(1, 1) && !p.owes100 {
		informed = nil // HTTP/1.0 knows no 1xx; a client that waits for one isn't of HTTP/1.0
	}
	res, err := g.transport.RoundTripWithin(b, out, informed, p.patience)
	if err != nil {
		return nil, err
	}
	return final(res, b)
}

// recycle puts p back into the pool when the answer has been written. The transport doesn't
// use the request any more then. A last Read of the body may be under way, but the body is
// no part of p. If a hook has seen the outgoing request it may have kept it, and p isn't
// used again.
func (p *passage) recycle() {
	if p.gateway.rewrite != nil || p.gateway.modify != nil {
		return
	}
	if len(p.in.Header) > 64 { // a map never shrinks, and clear walks through all of it
		p.out.header = nil
	}
	clear(p.out.header)
	*p = passage{
		trip:     trip{try: p.try, leave: p.leave},
		out:      outgoing{header: p.out.header},
		informed: p.informed,
	}
	passages.Put(p)
}
