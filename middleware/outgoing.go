package middleware

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/httpfield"
)

// removeHopByHop deletes all hop-by-hop fields from h.
func removeHopByHop(h http.Header) {
	removeNamed(h, h["Connection"])
	for name := range h {
		if httpfield.IsHopByHop(name) {
			delete(h, name)
		}
	}
}

// removeNamed deletes from h the fields that connection, the lines of a Connection field,
// names.
func removeNamed(h http.Header, connection []string) {
	for _, line := range connection {
		for name := range strings.SplitSeq(line, ",") {
			name = textproto.TrimString(name)
			if name != "" && !strings.EqualFold(name, "keep-alive") && !strings.EqualFold(name, "close") { // those two are options and no fields
				h.Del(name)
			}
		}
	}
}

// An outgoing is a request as the backends will see it. It holds the parts that prepare
// makes, so that they are allocated together, or not at all in a pooled passage.
type outgoing struct {
	http.Request
	url    url.URL
	header http.Header
	fields [5]string // the values of ClientIP.forward
	id     [1]string // the value of Options.RequestID's field
}

// prepare makes o the outgoing request for in. What depends on the backend is added by
// each attempt, as is the body: o keeps the client's as a placeholder. Fields that don't
// change share their values with those of in. prepare fails with errMalformed when the
// target can't be passed on as it is.
func (g *Gateway) prepare(o *outgoing, in *http.Request, pin affinity.Pin, id string) error {
	o.Request, o.url = *in, *in.URL
	if ctx := g.client.withClient(in, g.transport); ctx != in.Context() {
		o.Request = *in.WithContext(ctx)
	}
	out := &o.Request
	out.URL = &o.url
	out.RequestURI = ""
	// A backend that answers without having asked for the body must not get the
	// body. Only closing the connection makes that sure.
	out.Close = in.Header.Get("Expect") != ""
	if in.ContentLength == 0 {
		out.Body = nil // or net/http would send an empty chunked body
	}
	if o.header == nil {
		o.header = make(http.Header, len(in.Header)+len(o.fields)+1)
	}
	out.Header = o.header
	from := peer(in)
	trusted := g.client.trusts(from)
	g.checkPeer(in, from)
	for name, values := range in.Header {
		if !httpfield.IsHopByHop(name) && !untrustedField(name, trusted) {
			out.Header[name] = values
		} else if !trusted {
			g.distrust(name, from)
		}
	}
	removeNamed(out.Header, in.Header["Connection"])
	if httpfield.HasToken(in.Header["Te"], "trailers") {
		out.Header["Te"] = []string{"trailers"}
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = noAgent
	}
	if id != "" {
		o.id[0] = id
		out.Header[g.requestID] = o.id[:]
	}
	g.client.forward(in, from, trusted, out.Header, &o.fields)
	g.router.rewrite(out, pin)
	if g.backendHost {
		out.Host = ""
	}
	if g.rewrite != nil {
		out.Header = out.Header.Clone()
		g.rewrite(in, out)
	}
	return setTarget(in, out.URL)
}

// noAgent keeps net/http from sending a User-Agent of its own.
var noAgent = []string{""}
