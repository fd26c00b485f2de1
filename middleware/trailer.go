package middleware

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/limpet-go/limpet/internal/httpfield"
)

// inTrailer reports whether a field of a trailer section may be passed on. A field that
// says something about framing, routing, authentication, the handling of the request or
// the answer, or the format of the content may not: RFC 9110 section 6.5.1. A recipient
// that merges trailers into the header would believe it, although none of the checks of
// the header was applied. connection is the Connection field of the message.
func inTrailer(name string, connection []string) bool {
	switch name {
	case "Content-Length", "Trailer", "Host", "Max-Forwards", "Forwarded", "Via",
		"Authorization", "Www-Authenticate", "Cookie", "Set-Cookie",
		"Cache-Control", "Expect", "Pragma", "Range",
		"Age", "Date", "Expires", "Location", "Retry-After", "Vary", "Warning",
		"Content-Encoding", "Content-Range", "Content-Type":
		return false
	}
	return !httpfield.IsHopByHop(name) && !untrustedField(name, false) && !strings.HasPrefix(name, "If-") && !httpfield.HasToken(connection, name)
}

// announced returns the trailers that r has announced and that may be passed on, or nil if
// there are none. They have no values yet: those come at the end of the body.
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

// checkTrailer returns an error if a field of a trailer has a name or a value that can't be
// sent. net/http checks the fields of a header only.
func checkTrailer(trailer http.Header) error {
	for name, values := range trailer {
		if !httpfield.IsToken(name) || !httpfield.AreValues(values) {
			return fmt.Errorf("%w: a field of the trailer", errMalformed)
		}
	}
	return nil
}

// endToEnd removes from res the hop-by-hop fields, and the trailers that may not be passed
// on. Trailers that were not announced come at the end of the body, and are removed
// then.
func endToEnd(res *http.Response) {
	connection := res.Header["Connection"]
	removeHopByHop(res.Header)
	if !slices.Contains(res.TransferEncoding, "chunked") {
		return // only the chunked coding has trailers
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
