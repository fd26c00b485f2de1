package http1

import (
	"cmp"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/limpet-go/limpet/internal/httpfield"
)

// heads are buffers for appendHead, mostly of two kilobytes each.
var heads = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// releaseHead gives a buffer of heads back. A very large one was rare, and is dropped.
func releaseHead(head *[]byte) {
	if cap(*head) <= 16<<10 {
		heads.Put(head)
	}
}

// appendHead appends the head of a request to b: its first line and its header. They
// are what http.Request.Write would write, but the fields aren't sorted. It returns nil
// for a request that is rare, such as one with a body of unknown length, or wrong: then
// valid and http.Request.Write have to see to it.
func appendHead(b []byte, req *http.Request, host string) []byte {
	host = cmp.Or(req.Host, host)
	if req.URL == nil || hasBody(req) != (req.ContentLength > 0) || req.ContentLength < 0 || req.Method == http.MethodConnect || req.Close ||
		len(req.TransferEncoding) > 0 || len(req.Trailer) > 0 || strings.HasPrefix(req.URL.Opaque, "//") || !plainHost(host) {
		return nil
	}
	path := req.URL.Opaque // with the query it is URL.RequestURI, which would join the two
	if path == "" {
		path = cmp.Or(req.URL.EscapedPath(), "/")
	}
	if !isTarget(path) || !isTarget(req.URL.RawQuery) || req.Method != "" && !httpfield.IsToken(req.Method) {
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
		if !httpfield.IsToken(name) || misspelled(name) || !httpfield.AreValues(values) {
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

// maxThere is the length of the largest body that is sent together with the head. It is in
// memory twice for a moment, and RoundTrip reads no answer while it writes. A socket that
// holds nothing else takes so much without waiting; a connection that has none below, such as
// a net.Pipe, may wait for the origin to read, which may have answered instead.
const maxThere = 4 << 10

// isThere reports whether the body can be sent together with the head: it has a method
// Buffered, like that of a [bufio.Reader], which says that all of it can be read without
// waiting. It must have a GetBody too, since a kept connection is found closed only when the
// body was read. With Expect: 100-continue the origin has to ask for the body first.
func isThere(req *http.Request) bool {
	body, ok := req.Body.(interface{ Buffered() int })
	return ok && req.GetBody != nil && req.ContentLength <= maxThere && int64(body.Buffered()) == req.ContentLength && !expectsContinue(req)
}

// appendBody appends the body of req, if it has one, to a buffer of heads.
func appendBody(head *[]byte, req *http.Request) error {
	if !hasBody(req) {
		return nil
	}
	defer req.Body.Close()
	n := len(*head)
	*head = slices.Grow(*head, int(req.ContentLength))[:n+int(req.ContentLength)]
	_, err := io.ReadFull(req.Body, (*head)[n:])
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
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
