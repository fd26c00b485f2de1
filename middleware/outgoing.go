package middleware

import (
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/limpet-go/limpet/affinity"
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
// don't change share their values with those of in.
func (g *Gateway) prepare(o *outgoing, in *http.Request, pin affinity.Pin) {
	o.Request, o.url = *in, *in.URL
	if ctx := g.client.named(in, g.transport); ctx != in.Context() {
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
		if !hopByHop(name) && !hearsay(name, trusted) {
			out.Header[name] = values
		} else if !trusted {
			g.distrust(name, from)
		}
	}
	removeNamed(out.Header, in.Header["Connection"])
	if slices.ContainsFunc(in.Header["Te"], func(line string) bool { return strings.Contains(strings.ToLower(line), "trailers") }) {
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
	asWritten(in, out.URL)
	// HTTP/2 lets a space through, which would end the request's target.
	out.URL.RawQuery = strings.ReplaceAll(out.URL.RawQuery, " ", "%20")
}

// noAgent keeps net/http from naming itself.
var noAgent = []string{""}

// asWritten makes u the request target that the client wrote, byte for byte:
// URL.RequestURI would escape what browsers and old clients leave as it is, as |
// and ^. A query that somebody changed, as an affinity does to take its mark off,
// counts as it is now. A path that somebody changed, as StripPrefix and
// Options.Rewrite do, or a target that isn't in origin-form leaves u alone.
func asWritten(in *http.Request, u *url.URL) {
	target := in.RequestURI
	// Behind an Opaque of two slashes net/http writes the scheme, and the
	// backend would take what follows for a host. A space, which HTTP/2 lets
	// through, would end the target in the middle.
	if !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") || strings.Contains(target, " ") {
		return
	}
	path, query, _ := strings.Cut(target, "?")
	if path != u.Path || u.RawPath != "" || query != u.RawQuery {
		written, err := url.ParseRequestURI(target)
		if err != nil || written.Path != u.Path || written.RawPath != u.RawPath {
			return
		}
		if written.RawQuery != u.RawQuery {
			u.Opaque = path
			return
		}
	}
	u.Opaque, u.RawQuery, u.ForceQuery = target, "", false
}

// inform passes an informational answer (1xx) on to the client, except 100, which
// the server sends by itself when the backend's 100 lets the transport read the
// client's body.
func inform(w http.ResponseWriter, code int, header textproto.MIMEHeader) {
	if code == http.StatusContinue {
		return
	}
	h := w.Header()
	own := h.Clone() // what middlewares around the gateway set is for the final answer
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
	for name, values := range own {
		h[name] = values
	}
}
