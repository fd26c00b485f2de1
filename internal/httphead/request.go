package httphead

import (
	"cmp"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"

	"github.com/limpet-go/limpet/internal/httpfield"
)

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// Borrow returns an empty buffer, mostly of two kilobytes.
func Borrow() *[]byte {
	b := buffers.Get().(*[]byte)
	*b = (*b)[:0]
	return b
}

// Release gives a buffer back. A very large one was rare, and is dropped.
func Release(b *[]byte) {
	if cap(*b) <= 16<<10 {
		buffers.Put(b)
	}
}

// AppendRequest appends the head of a request to b: its first line and its header. They
// are what [http.Request.Write] would write, but the fields aren't sorted. The host is for a
// request that names none. AppendRequest returns nil for a request that is rare, such as one
// with a body of unknown length, or wrong: then http.Request.Write has to see to it.
func AppendRequest(b []byte, req *http.Request, host string) []byte {
	host = cmp.Or(req.Host, host)
	if req.URL == nil || (req.Body != nil && req.Body != http.NoBody) != (req.ContentLength > 0) || req.ContentLength < 0 || req.Method == http.MethodConnect || req.Close ||
		len(req.TransferEncoding) > 0 || len(req.Trailer) > 0 || strings.HasPrefix(req.URL.Opaque, "//") || !plainHost(host) {
		return nil
	}
	path := req.URL.Opaque // with the query it is URL.RequestURI, which would join the two
	if path == "" {
		path = cmp.Or(req.URL.EscapedPath(), "/")
	}
	if !IsTarget(path) || !IsTarget(req.URL.RawQuery) || req.Method != "" && !httpfield.IsToken(req.Method) {
		return nil
	}
	method := cmp.Or(req.Method, http.MethodGet)
	b = append(append(append(b, method...), ' '), path...)
	if req.URL.ForceQuery || req.URL.RawQuery != "" {
		b = append(append(b, '?'), req.URL.RawQuery...)
	}
	b = appendField(append(b, " HTTP/1.1\r\n"...), "Host", host)
	agent, named := req.Header["User-Agent"]
	switch {
	case !named:
		b = appendField(b, "User-Agent", "Go-http-client/1.1")
	case len(agent) > 0 && agent[0] != "":
		b = appendField(b, "User-Agent", agent[0])
	}
	switch {
	case req.ContentLength > 0, method == http.MethodPost, method == http.MethodPut, method == http.MethodPatch: // many servers want a 0
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), req.ContentLength, 10), "\r\n"...)
	}
	for name, values := range req.Header {
		switch name {
		case "Host", "User-Agent", "Content-Length", "Transfer-Encoding", "Trailer":
			if !httpfield.AreValues(values) {
				return nil
			}
			continue
		}
		if !httpfield.IsToken(name) || Misspelled(name) || !httpfield.AreValues(values) {
			return nil
		}
		for _, value := range values {
			b = appendField(b, name, value)
		}
	}
	return append(b, "\r\n"...)
}

// appendField appends one line of a header.
func appendField(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, textproto.TrimString(value)...), "\r\n"...)
}

// plainHost reports whether s can be sent as it is: it isn't an international name,
// which net/http converts, and has no zone of an IPv6 address, which net/http removes.
func plainHost(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == ':', c == '_', c == '[', c == ']':
		default:
			return false
		}
	}
	return true
}

// Misspelled reports whether name is that of a field that net/http writes itself, but in
// another spelling: net/http would send it beside its own, and the two could frame the
// message differently.
func Misspelled(name string) bool {
	switch name {
	case "Content-Length", "Transfer-Encoding", "Trailer", "Host":
		return false
	}
	return Frames(name)
}

// Frames reports whether a field of this name, in any spelling, frames a message or says
// which host it is for.
func Frames(name string) bool {
	switch len(name) {
	case len("Content-Length"):
		return strings.EqualFold(name, "Content-Length")
	case len("Transfer-Encoding"):
		return strings.EqualFold(name, "Transfer-Encoding")
	case len("Trailer"):
		return strings.EqualFold(name, "Trailer")
	case len("Host"):
		return strings.EqualFold(name, "Host")
	}
	return false
}

// IsTarget reports whether s can be part of the target in a request line: it has no
// white space and no control character.
func IsTarget(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
