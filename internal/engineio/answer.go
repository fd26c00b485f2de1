// Package engineio reads the beginning of a node's answers, as several packages need it that
// follow the sessions of Engine.IO.
package engineio

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
)

// UnknownSession is the message of Engine.IO's error code 1. It is the whole answer to a
// handshake, and a field of the JSON that answers any other request.
const UnknownSession = "Session ID unknown"

// A Peeked is a body of which the beginning has been read ahead. Read returns that
// beginning first.
type Peeked struct {
	Head []byte // may be changed before the first Read
	err  error  // that followed Head, nil if there was none yet
	io.ReadCloser
}

// Read implements [io.Reader].
func (p *Peeked) Read(b []byte) (int, error) {
	if len(p.Head) > 0 {
		n := copy(b, p.Head)
		p.Head = p.Head[n:]
		return n, nil
	}
	if p.err != nil {
		return 0, p.err
	}
	return p.ReadCloser.Read(b)
}

// Peek reads ahead until enough returns true, the body ends, or max bytes are there. It
// replaces res.Body by the body that it returns.
func Peek(res *http.Response, max int, enough func(head []byte) bool) *Peeked {
	p := &Peeked{ReadCloser: res.Body}
	res.Body = p
	for p.Head = make([]byte, 0, 512); p.err == nil && len(p.Head) < max; {
		if len(p.Head) == cap(p.Head) {
			p.Head = slices.Grow(p.Head, len(p.Head))
		}
		var n int
		n, p.err = p.ReadCloser.Read(p.Head[len(p.Head):min(cap(p.Head), max)])
		p.Head = p.Head[:len(p.Head)+n]
		if n > 0 && enough(p.Head) {
			break
		}
	}
	return p
}

// SaysUnknown tells whether an answer of status 400 is the one that Engine.IO gives for a
// session that it doesn't know. It reads the beginning of the body ahead. One that is
// compressed isn't read.
func SaysUnknown(res *http.Response) bool {
	const max = 256
	if res.ContentLength > max || res.Header.Get("Content-Encoding") != "" {
		return false
	}
	head := Peek(res, max, func(head []byte) bool {
		return json.Valid(head) || string(head) == UnknownSession
	}).Head
	var answer struct{ Code *int }
	return string(head) == UnknownSession ||
		json.Unmarshal(head, &answer) == nil && answer.Code != nil && *answer.Code == 1
}
