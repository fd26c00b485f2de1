package middleware

import (
	"io"
	"net/http"
	"slices"
	"strings"
)

// inTrailer reports whether a field may stand in a trailer section that passes
// through, RFC 9110 section 6.5.1: it says nothing of framing, routing,
// authentication, how the request is to be served, what is to become of the answer,
// or how content is to be read. Recipients that merge trailers into the header
// would take its word otherwise, past all that was checked there. connection is the
// Connection field of the message.
func inTrailer(name string, connection []string) bool {
	switch name {
	case "Content-Length", "Trailer", "Host", "Max-Forwards", "Forwarded", "Via",
		"Authorization", "Www-Authenticate", "Cookie", "Set-Cookie",
		"Cache-Control", "Expect", "Pragma", "Range",
		"Age", "Date", "Expires", "Location", "Retry-After", "Vary", "Warning",
		"Content-Encoding", "Content-Range", "Content-Type":
		return false
	}
	return !hopByHop(name) && !hearsay(name, false) && !strings.HasPrefix(name, "If-") && !hasToken(connection, name)
}

// passTrailer gives out a trailer of its own, of what may pass of that of in. Both
// get their values, and some of them their names, when the body has been read.
func passTrailer(in, out *http.Request) {
	out.Trailer = nil
	connection := in.Header["Connection"]
	for name := range in.Trailer {
		if inTrailer(name, connection) {
			if out.Trailer == nil {
				out.Trailer = make(http.Header)
			}
			out.Trailer[name] = nil
		}
	}
	if trailer := out.Trailer; trailer != nil {
		out.Body = &endingIn{out.Body, func() {
			for name, values := range in.Trailer {
				if inTrailer(name, connection) {
					trailer[name] = values
				}
			}
		}}
	}
}

// endToEnd takes off res what concerns the connection to the backend only, and the
// trailers that must be none. Those come when the body ends.
func endToEnd(res *http.Response) {
	connection := res.Header["Connection"]
	removeHopByHop(res.Header)
	if !slices.Contains(res.TransferEncoding, "chunked") {
		return // trailers are part of that coding
	}
	clean := func() {
		for name := range res.Trailer {
			if !inTrailer(name, connection) {
				delete(res.Trailer, name)
			}
		}
	}
	clean()
	res.Body = &endingIn{res.Body, clean}
}

// endingIn is a body that calls end before it says that it has ended.
type endingIn struct {
	io.ReadCloser
	end func()
}

func (b *endingIn) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.end()
	}
	return n, err
}
