package balancer

import (
	"context"
	"io"
	"net/http"
)

// A body is that of an answer. It ends the call when it is read or closed, and
// says so when the backend was lost.
type body struct {
	io.ReadCloser
	call *call
	bare bool // has neither length nor chunks: its end looks like any lost connection
}

// body returns the body for an answer of the call.
func (c *call) body(res *http.Response) io.ReadCloser {
	if res.Body == http.NoBody {
		c.release()
		return res.Body
	}
	if duplex, ok := res.Body.(duplex); ok {
		// After a 101 net/http leaves the connection to its user.
		unhook := context.AfterFunc(c.ctx, func() { duplex.Close() })
		return &upgradedBody{duplex, c, unhook}
	}
	return &body{res.Body, c, res.ContentLength < 0 && len(res.TransferEncoding) == 0}
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		if err != io.EOF || b.bare && b.call.lost() {
			err = b.call.cut(err)
		}
		b.call.release()
	}
	return n, err
}

// Close implements [io.Closer].
func (b *body) Close() error {
	defer b.call.release()
	return b.ReadCloser.Close()
}

// A duplex is the body of a 101 answer as net/http makes it.
type duplex interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// An upgradedBody is both ways of an upgraded connection. The end of one way
// doesn't end the call.
type upgradedBody struct {
	duplex
	call   *call
	unhook func() bool
}

// Read implements [io.Reader].
func (b *upgradedBody) Read(p []byte) (int, error) {
	n, err := b.duplex.Read(p)
	if err != nil && (err != io.EOF || b.call.lost()) {
		err = b.call.cut(err)
	}
	return n, err
}

// Close implements [io.Closer].
func (b *upgradedBody) Close() error {
	defer b.call.release()
	b.unhook()
	return b.duplex.Close()
}

// cut says why an answer was cut off.
func (c *call) cut(err error) error {
	switch {
	case c.lost():
		err = ErrLost
	case c.client.Err() != nil:
		return c.client.Err() // bare, as net/http's callers compare it
	}
	return &Error{Backend: c.backend.id, Sent: true, Err: err}
}
