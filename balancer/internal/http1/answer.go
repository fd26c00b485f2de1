package http1

import (
	"bytes"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/limpet-go/limpet/internal/httpfield"
)

// readAnswer reads the head of an answer. The form that most answers have is parsed here,
// with half of the allocations of http.ReadResponse. Whatever is unusual, let alone wrong, is
// left to that: the two can differ only in what both accept.
func (c *call) readAnswer() (*http.Response, error) {
	there, _ := c.conn.in.Peek(c.conn.in.Buffered())
	if end := bytes.Index(there, []byte("\r\n\r\n")); end >= 0 {
		if res := c.parse(string(there[:end+len("\r\n")])); res != nil { // the values of the header are parts of this string
			_, _ = c.conn.in.Discard(end + len("\r\n\r\n"))
			return res, nil
		}
	}
	return http.ReadResponse(c.conn.in, c.req)
}

// parse returns the answer whose first line and header these lines are. It returns nil
// unless that is a final one of HTTP/1.1 to an ordinary method, its length is told by one
// Content-Length, and its connection may be kept.
func (c *call) parse(lines string) *http.Response {
	const version = "HTTP/1.1"
	first, header, _ := strings.Cut(lines, "\r\n")
	status, ok := strings.CutPrefix(first, version+" ")
	if !ok || !httpfield.IsValue(status) || c.req.Method == http.MethodHead || c.req.Method == http.MethodConnect {
		return nil
	}
	code := finalCode(status)
	if code == 0 || code == http.StatusNoContent || code == http.StatusNotModified {
		return nil
	}
	n := strings.Count(header, "\r\n")
	res := &http.Response{
		Status: status, StatusCode: code, Proto: version, ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, n), ContentLength: -1, Request: c.req, Body: http.NoBody,
	}
	values := make([]string, n)
	for i := range values {
		var line string
		line, header, _ = strings.Cut(header, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !httpfield.IsToken(name) || !httpfield.IsValue(value) {
			return nil
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if !usual(res, name, value) {
			return nil
		}
		if had := res.Header[name]; had != nil {
			res.Header[name] = append(had, value)
			continue
		}
		values[i] = value
		res.Header[name] = values[i : i+1 : i+1]
	}
	if c.left = res.ContentLength; c.left < 0 {
		return nil
	}
	if c.left > 0 {
		res.Body = (*sized)(c)
	}
	return res
}

// finalCode returns the number that a status begins with, from 200 to 999. It is 0 for any
// other status.
func finalCode(status string) int {
	if len(status) < 3 || len(status) > 3 && status[3] != ' ' || status[0] < '2' {
		return 0
	}
	code, err := strconv.ParseUint(status[:3], 10, 16)
	if err != nil {
		return 0
	}
	return int(code)
}

// usual reports whether a field is one that parse knows how to treat: it doesn't matter to
// HTTP, or it is a Content-Length, the only one, which usual sets in res.
func usual(res *http.Response, name, value string) bool {
	switch name {
	case "Transfer-Encoding", "Trailer", "Pragma": // net/http makes Cache-Control of some Pragma
		return false
	case "Connection":
		return strings.EqualFold(value, "keep-alive")
	case "Content-Length":
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || res.ContentLength >= 0 {
			return false
		}
		res.ContentLength = int64(n)
	}
	return true
}

// A sized is the body of an answer that parse has made: what is left of it comes from the
// call's connection.
type sized call

// Read implements [io.Reader]. Like net/http's it returns io.EOF with the last bytes.
func (s *sized) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.conn.in.Read(p[:min(int64(len(p)), s.left)])
	switch s.left -= int64(n); {
	case s.left == 0:
		err = io.EOF
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close implements [io.Closer]. It does nothing: that of the call closes the connection.
func (s *sized) Close() error { return nil }
