package http1

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/limpet-go/limpet/internal/httphead"
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
	if c.req.Method == http.MethodHead || c.req.Method == http.MethodConnect {
		return nil
	}
	res := httphead.ParseAnswer(lines)
	if res == nil || res.StatusCode < 200 || res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusNotModified {
		return nil
	}
	for _, value := range res.Header["Connection"] {
		if !strings.EqualFold(value, "keep-alive") {
			return nil
		}
	}
	length := res.Header["Content-Length"]
	if len(length) != 1 {
		return nil
	}
	n, err := strconv.ParseUint(length[0], 10, 63)
	if err != nil {
		return nil
	}
	res.Request, res.ContentLength, c.left = c.req, int64(n), int64(n)
	if n > 0 {
		res.Body = (*sized)(c)
	}
	return res
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
