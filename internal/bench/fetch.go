//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A visitor is a client that makes the same HTTP request again and again, with
// the cookies that it was given with the first answer.
type visitor struct {
	request []byte
	want    []byte // the answer's body; nil: anything that begins so, then always the same
	begins  string
	keeps   bool // the cookies
	met     bool // has an answer
}

func newVisitor(method, path, body string, keepsCookies bool) *visitor {
	head := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: limpet-bench\r\nAccept: */*\r\n", method, path)
	if method == "POST" {
		head = fmt.Appendf(head, "Content-Type: text/plain\r\nContent-Length: %d\r\n", len(body))
	}
	return &visitor{request: append(append(head, "Cookie: theme=dark\r\n\r\n"...), body...), keeps: keepsCookies}
}

// keep adds the cookies of an answer to the request.
func (v *visitor) keep(head []byte) {
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		name, value, _ := strings.Cut(string(line), ":")
		if strings.EqualFold(name, "Set-Cookie") {
			cookie, _, _ := strings.Cut(value, ";")
			with := "Cookie: " + strings.TrimSpace(cookie) + "; "
			v.request = bytes.Replace(v.request, []byte("Cookie: "), []byte(with), 1)
		}
	}
}

// A fetcher makes the requests of its visitors, one after the other, on one
// connection.
type fetcher struct {
	*load
	conn     *conn
	visitors []*visitor
	now      *visitor // who waits for an answer
	since    time.Time

	head  []byte // of the answer, until it is whole
	left  int    // bytes of the body to come, -1 while the head isn't whole
	body  []byte // while nobody knows what it should be
	wrong bool
}

func (l *load) fetcher(visitors []*visitor) (*fetcher, error) {
	conn, err := l.connect()
	if err != nil {
		return nil, err
	}
	f := &fetcher{load: l, conn: conn, visitors: visitors, left: -1}
	conn.received = f.received
	return f, nil
}

// next makes the next request if there is time, or if its visitor is new.
func (f *fetcher) next() {
	v := f.visitors[0]
	if f.conn.closed || v.met && !f.more() {
		return
	}
	f.visitors = append(f.visitors[1:], v)
	f.now, f.since = v, f.begin()
	f.conn.send(v.request)
}

// over ends a request. A connection that failed isn't used again.
func (f *fetcher) over(err error) {
	v := f.now
	f.now, f.left, f.wrong, f.body = nil, -1, false, nil
	f.end(f.since, err)
	if err != nil {
		f.conn.close()
		return
	}
	v.met = true
	f.next()
}

func (f *fetcher) received(p []byte, err error) {
	switch {
	case f.now == nil && err == nil:
		f.fault(fmt.Errorf("more than the answer: %.60q", p))
		f.conn.close()
		return
	case f.now == nil:
		f.fault(fmt.Errorf("lost an idle connection: %w", err))
		return
	case err != nil:
		f.over(fmt.Errorf("lost the connection instead of an answer: %w", err))
		return
	}
	if f.left < 0 {
		if len(f.head) > 0 {
			f.head = append(f.head, p...)
			p = f.head
		}
		at := bytes.Index(p, []byte("\r\n\r\n"))
		if at < 0 {
			f.head = append(f.head[:0], p...)
			return
		}
		f.head = nil
		if err := f.begun(p[:at+2]); err != nil {
			f.over(err)
			return
		}
		p = p[at+4:]
	}
	n := min(len(p), f.left)
	f.take(p[:n])
	if f.left -= n; f.left > 0 {
		return
	}
	over := f.checked()
	if over == nil && len(p) > n {
		over = fmt.Errorf("more than the answer: %.60q", p[n:])
	}
	f.over(over)
}

// begun reads the head of an answer.
func (f *fetcher) begun(head []byte) error {
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answer %.60q", head)
	}
	size, err := strconv.Atoi(field(head, "content-length"))
	if err != nil || size < 0 {
		return errors.New("answer without Content-Length")
	}
	if f.now.want != nil && size != len(f.now.want) {
		return fmt.Errorf("answer of %d bytes, want %d", size, len(f.now.want))
	}
	if f.now.keeps && !f.now.met {
		f.now.keep(head)
	}
	f.left = size
	return nil
}

// take takes a piece of the body.
func (f *fetcher) take(p []byte) {
	want := f.now.want
	if want == nil {
		f.body = append(f.body, p...)
	} else if !bytes.Equal(p, want[len(want)-f.left:][:len(p)]) {
		f.wrong = true
	}
}

// checked judges a whole answer.
func (f *fetcher) checked() error {
	switch v := f.now; {
	case v.want == nil && !strings.HasPrefix(string(f.body), v.begins):
		return fmt.Errorf("answer %.60q, want %q", f.body, v.begins)
	case v.want == nil:
		v.want = f.body
	case f.wrong:
		return fmt.Errorf("another answer than %.60q: wrong, or of another backend", v.want)
	}
	return nil
}
