package balancer

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A conn is a connection to a backend. It serves one request at a time.
type conn struct {
	net.Conn
	route  *route
	client string // whose it is, with ProxyProtocol
	socket *socket
	abort  func() // ends what is under way; whose the connection is closes it

	// While it is idle:
	since, until time.Time

	// While it serves a request:
	in       *bufio.Reader
	room     int64 // bytes that may still be read
	reused   bool  // it has served another one before
	wrote    bool  // bytes of the request may have gone out
	writeErr error
}

// maxHeader is how large the header of an answer may be, and those of the
// informational answers before it.
const maxHeader = 1 << 20

var errHeader = fmt.Errorf("the header of the answer is larger than %d bytes", maxHeader)

var (
	readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriter(nil) }}
)

func newConn(raw net.Conn, r *route) *conn {
	c := &conn{Conn: raw, route: r}
	if t, ok := raw.(interface{ NetConn() net.Conn }); ok { // *tls.Conn
		raw = t.NetConn()
	}
	c.socket = newSocket(raw)
	c.abort = func() { raw.Close() }
	return c
}

// begin readies it for a request.
func (c *conn) begin() {
	c.in = readers.Get().(*bufio.Reader)
	c.in.Reset(c)
	c.wrote, c.writeErr = false, nil
}

// rest takes its buffer away. Nobody may be reading.
func (c *conn) rest() {
	c.in.Reset(nil)
	readers.Put(c.in)
	c.in = nil
}

func (c *conn) close() {
	c.route.forget(c)
	c.Conn.Close()
}

// Read implements [io.Reader] within the limit of room.
func (c *conn) Read(p []byte) (int, error) {
	if c.room <= 0 {
		return 0, errHeader
	}
	if int64(len(p)) > c.room {
		p = p[:c.room]
	}
	n, err := c.Conn.Read(p)
	c.room -= int64(n)
	return n, err
}

const unlimited = math.MaxInt64

// Write implements [io.Writer]. A new connection that the backend has closed,
// as one does that is just being killed, isn't written to: what was never
// written may be sent elsewhere, a POST too.
func (c *conn) Write(p []byte) (int, error) {
	if !c.wrote && !c.reused && c.socket.peek(false) == closed {
		c.writeErr = io.EOF
		return 0, io.EOF
	}
	n, err := c.Conn.Write(p)
	c.wrote = c.wrote || n > 0 || err == nil
	if err != nil {
		c.writeErr = err
	}
	return n, err
}

// quiet reports whether the backend has said nothing on an idle connection, not
// even its end.
func (c *conn) quiet() bool {
	if c.socket.peek(true) != silent {
		return false
	}
	t, ok := c.Conn.(*tls.Conn)
	if !ok {
		return true
	}
	// A record may have come along with the last one of the answer. A read whose
	// time is over gets no further than that.
	_ = t.SetReadDeadline(past)
	n, err := t.Read(make([]byte, 1))
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && t.SetReadDeadline(time.Time{}) == nil
}

var past = time.Unix(1, 0)

// rebuffed reports whether the backend wants no more of a request. What it said
// before that, an answer as 413 perhaps, is still to be read, and if it said
// nothing the reading tells.
func (c *conn) rebuffed() bool {
	return c.wrote && (errors.Is(c.writeErr, syscall.EPIPE) || errors.Is(c.writeErr, syscall.ECONNRESET))
}

// A sight is what the other end of a connection did while nobody was reading.
type sight int

const (
	silent sight = iota
	spoke
	closed
)
