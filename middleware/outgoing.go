package middleware

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/limpet-go/limpet/affinity"
)

// hopByHop are the fields that end at each hop, RFC 9110 section 7.6.1, beside
// those that Connection names. Proxy-Connection is no standard, but sent.
var hopByHop = [...]string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate",
	"Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// removeHopByHop deletes them from h.
func removeHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// outgoing returns the request as the backends will see it, without the
// connection to one of them. Its body is a placeholder: each attempt opens its
// own.
func (g *Gateway) outgoing(in *http.Request, ctx context.Context, pin affinity.Pin) *http.Request {
	out := in.WithContext(g.client.named(ctx, in, g.transport))
	u := *in.URL
	out.URL = &u
	out.Header = in.Header.Clone()
	out.RequestURI = ""
	// A backend that answers without having asked for the body must not get it
	// all the same, only to keep the connection.
	out.Close = out.Header.Get("Expect") != ""
	if in.ContentLength == 0 {
		out.Body = nil // or net/http would send an empty chunked body
	}
	trailers := slices.ContainsFunc(out.Header["Te"], func(line string) bool {
		return strings.Contains(strings.ToLower(line), "trailers")
	})
	removeHopByHop(out.Header)
	if trailers {
		out.Header["Te"] = []string{"trailers"}
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""} // keeps net/http from naming itself
	}
	g.client.forward(in, out.Header)
	g.router.rewrite(out, pin)
	if g.backendHost {
		out.Host = ""
	}
	if g.rewrite != nil {
		g.rewrite(in, out)
	}
	asWritten(in, out.URL)
	return out
}

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

// informational passes 1xx answers on to the client, except 100, which the
// server sends by itself when the backend's 100 lets the transport read the
// client's body.
type informational struct {
	w       http.ResponseWriter
	proto11 bool // HTTP/1.0 knows no 1xx

	mu   sync.Mutex
	done bool
}

func (i *informational) context(ctx context.Context) context.Context {
	if !i.proto11 {
		return ctx
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: i.got})
}

func (i *informational) got(code int, header textproto.MIMEHeader) error {
	if code == http.StatusContinue {
		return nil
	}
	// An attempt that was given up may still be reading.
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.done {
		return nil
	}
	h := i.w.Header()
	own := h.Clone() // what middlewares around the gateway set is for the final answer
	fields := http.Header(header).Clone()
	removeHopByHop(fields)
	for name, values := range fields {
		h[name] = append(h[name], values...)
	}
	i.w.WriteHeader(code)
	clear(h)
	for name, values := range own {
		h[name] = values
	}
	return nil
}

// stop is called before the final answer is written.
func (i *informational) stop() {
	i.mu.Lock()
	i.done = true
	i.mu.Unlock()
}
