package middleware

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/limpet-go/limpet/internal/httpfield"
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
	return !hopByHop(name) && !untrustedField(name, false) && !strings.HasPrefix(name, "If-") && !httpfield.HasToken(connection, name)
}

// announced returns the names in the trailer of r that may pass, without values: those
// come when the body has been read. It is nil if there are none.
func announced(r *http.Request) http.Header {
	var names http.Header
	for name := range r.Trailer {
		if inTrailer(name, r.Header["Connection"]) {
			if names == nil {
				names = make(http.Header)
			}
			names[name] = nil
		}
	}
	return names
}

// checkTrailer returns an error if a field of a trailer can't be passed on. net/http
// checks those of a header only.
func checkTrailer(trailer http.Header) error {
	for name, values := range trailer {
		if !httpfield.IsToken(name) || !httpfield.AreValues(values) {
			return fmt.Errorf("%w: a field of the trailer", errMalformed)
		}
	}
	return nil
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
	res.Body = &eofBody{res.Body, clean}
}
