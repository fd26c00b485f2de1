package middleware

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/httpfield"
)

// hopByHop reports whether a field ends at each hop, RFC 9110 section 7.6.1. So do
// those that Connection names. Proxy-Connection is no standard, but sent.
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate",
		"Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// removeHopByHop deletes these fields from h.
func removeHopByHop(h http.Header) {
	removeNamed(h, h["Connection"])
	for name := range h {
		if hopByHop(name) {
			delete(h, name)
		}
	}
}

// removeNamed deletes the fields from h that the lines of a Connection field name.
func removeNamed(h http.Header, connection []string) {
	for _, line := range connection {
		for name := range strings.SplitSeq(line, ",") {
			name = textproto.TrimString(name)
			if name != "" && !strings.EqualFold(name, "keep-alive") && !strings.EqualFold(name, "close") { // the usual ones, and no fields
				h.Del(name)
			}
		}
	}
}

// outgoing is a request as the backends will see it, with room for what is made
// for it.
type outgoing struct {
	http.Request
	url    url.URL
	header http.Header
	fields [5]string // the values of ClientIP.forward
}

// prepare makes o the outgoing request for in, without the connection to one of
// the backends. Its body is a placeholder: each attempt opens its own. Fields that
// don't change share their values with those of in. It fails when the target can't be
// passed on as it is.
func (g *Gateway) prepare(o *outgoing, in *http.Request, pin affinity.Pin) error {
	o.Request, o.url = *in, *in.URL
	if ctx := g.client.withClient(in, g.transport); ctx != in.Context() {
		o.Request = *in.WithContext(ctx)
	}
	out := &o.Request
	out.URL = &o.url
	out.RequestURI = ""
	// A backend that answers without having asked for the body must not get it
	// all the same, only to keep the connection.
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
	for name, values := range in.Header {
		if !hopByHop(name) && !untrustedField(name, trusted) {
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

// noAgent keeps net/http from naming itself.
var noAgent = []string{""}
