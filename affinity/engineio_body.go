package affinity

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
)

// maxPeek is how many bytes of an answer are read ahead at most. The packet
// that opens a session comes first and has less than 200 bytes.
const maxPeek = 4096

// A peeked is a body of which the beginning has been read ahead. Read returns
// that beginning first.
type peeked struct {
	head []byte
	err  error // the error that followed head
	io.ReadCloser
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	if p.err != nil {
		return 0, p.err
	}
	return p.ReadCloser.Read(b)
}

// peek reads ahead until enough returns true, the body ends, or max bytes are
// there. It replaces res.Body by the body that it returns.
func peek(res *http.Response, max int, enough func(head []byte) bool) *peeked {
	p := &peeked{ReadCloser: res.Body}
	res.Body = p
	for p.head = make([]byte, 0, 512); p.err == nil && len(p.head) < max; {
		if len(p.head) == cap(p.head) {
			p.head = slices.Grow(p.head, len(p.head))
		}
		var n int
		n, p.err = p.ReadCloser.Read(p.head[len(p.head):min(cap(p.head), max)])
		p.head = p.head[:len(p.head)+n]
		if n > 0 && enough(p.head) {
			break
		}
	}
	return p
}

// saysUnknown tells whether an answer of status 400 is the one that Engine.IO
// gives for a session that it doesn't know.
func saysUnknown(res *http.Response) bool {
	const max = 256
	if res.ContentLength > max {
		return false
	}
	head := peek(res, max, func(head []byte) bool {
		return json.Valid(head) || string(head) == unknownSession
	}).head
	var answer struct{ Code *int }
	return string(head) == unknownSession ||
		json.Unmarshal(head, &answer) == nil && answer.Code != nil && *answer.Code == 1
}
