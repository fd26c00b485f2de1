package http1

import (
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Read implements [io.Reader] for the answer's body. The Read that finds the end of
// the body frees the connection for other requests.
//
// An end of the body that is only an end of the connection (bare) proves nothing when
// the origin is lost: the answer counts as cut off then.
func (c *call) Read(p []byte) (int, error) {
	if c.state.Load() == abandoned {
		return 0, http.ErrBodyReadAfterClose
	}
	if c.broken != nil {
		return 0, c.broken
	}
	n, err := 0, error(nil)
	if c.state.Load() == answering {
		err = c.req.Context().Err() // the Canceler may be late
	}
	if err == nil {
		n, err = c.answer.Read(p)
	}
	if err == nil {
		return n, nil
	}
	if c.state.Load() == answering && (err != io.EOF || c.bare && c.client.origin.lost() != nil) {
		err = c.cut(err)
		c.broken, c.idleFor = err, 0
	}
	c.settle()
	return n, err
}

// Close implements [io.Closer]. If the answer wasn't read to its end the connection is
// closed.
func (c *call) Close() error {
	if c.state.CompareAndSwap(answering, abandoned) {
		c.unhook()
		c.conn.close()
	}
	if c.upload != nil {
		c.upload.end(false)
	}
	return nil
}

// cut returns why an answer was cut off: the loss of the origin, the end of the
// context, the failure of the request's body, or else err.
func (c *call) cut(err error) error {
	if lost := c.client.origin.lost(); lost != nil {
		err = lost
	} else if gone := c.req.Context().Err(); gone != nil {
		return gone // bare, as net/http's callers compare it
	} else if c.upload != nil {
		if broken := c.upload.err.Load(); broken != nil {
			err = *broken
		}
	}
	return c.client.origin.Error(true, false, err)
}

// An upgraded is the body of an answer 101: both directions of a connection that has
// changed its protocol. The end of one direction doesn't end the call.
type upgraded struct{ call *call }

// Read implements [io.Reader].
func (u *upgraded) Read(p []byte) (int, error) {
	n, err := u.call.conn.in.Read(p)
	if err != nil && (err != io.EOF || u.call.client.origin.lost() != nil) {
		err = u.call.cut(err)
	}
	return n, err
}

// Write implements [io.Writer].
func (u *upgraded) Write(p []byte) (int, error) { return u.call.conn.Conn.Write(p) }

// CloseWrite ends the direction to the origin, as that of a [net.TCPConn] does.
func (u *upgraded) CloseWrite() error {
	if half, ok := u.call.conn.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("balancer: half-close of a %T: %w", u.call.conn.Conn, errors.ErrUnsupported)
}

// Close implements [io.Closer].
func (u *upgraded) Close() error { return u.call.Close() }
