package http1

import (
	"io"
	"net/http"
	"slices"
)

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

// appendBody appends the body of req, if it has one, to a buffer of httphead.
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
