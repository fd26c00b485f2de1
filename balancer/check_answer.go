package balancer

import (
	"bytes"
	"net/http"
	"strconv"
)

// plain reads an answer of the commonest kind, and reports whether there was one: it is as
// expected, its body has a length and is here already, and the connection may be kept after it.
// Any other answer is left for net/http to read. A pool of 1,000 backends has as many
// answers in each second: this needs no memory, where net/http makes seven objects of each.
func (c *checker) plain(conn *checkConn) bool {
	if !c.KeepAlive {
		return false
	}
	conn.in.Peek(1) // waits; an error is found again by net/http
	answer, _ := conn.in.Peek(conn.in.Buffered())
	head, body, whole := bytes.Cut(answer, []byte("\r\n\r\n"))
	status, head, _ := bytes.Cut(head, []byte("\r\n"))
	if !whole || !c.fine(status) {
		return false
	}
	length := -1
	for len(head) > 0 {
		var line []byte
		line, head, _ = bytes.Cut(head, []byte("\r\n"))
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found || len(name) == 0 || bytes.ContainsAny(name, " \t") || bytes.ContainsAny(value, "\r\n\x00") {
			return false
		}
		value = bytes.Trim(value, " \t")
		switch {
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return false
		case bytes.EqualFold(name, []byte("Connection")) && !bytes.EqualFold(value, []byte("keep-alive")):
			return false
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.ParseUint(string(value), 10, 16)
			if err != nil || length >= 0 {
				return false
			}
			length = int(n)
		}
	}
	if c.request.Method == http.MethodHead {
		length = 0
	}
	if length != len(body) {
		return false
	}
	conn.in.Discard(len(answer))
	return true
}

// fine reports whether an answer with this first line is as expected, and no special case.
func (c *checker) fine(line []byte) bool {
	const version = "HTTP/1.1 "
	if len(line) < len(version)+3 || string(line[:len(version)]) != version {
		return false
	}
	rest := line[len(version):]
	status, err := strconv.ParseUint(string(rest[:3]), 10, 16)
	return err == nil && status >= 200 && (len(rest) == 3 || rest[3] == ' ') && c.expected(int(status))
}
