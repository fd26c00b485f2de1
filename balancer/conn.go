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
	asks   bool   // socket.ask works
	abort  func() // ends what is under way; whose the connection is closes it

	// While it is idle:
	since, until time.Time

	// While it serves a request:
	in       *bufio.Reader
	room     int64  // bytes that may still be read
	head     []byte // of a request, to be written by the first Read
	reused   bool   // it has served another one before
	wrote    bool   // bytes of the request may have gone out
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
	below := raw
	if t, ok := raw.(*tls.Conn); ok {
		below = t.NetConn() // for the close of a tls.Conn waits
	}
	c.abort = func() { below.Close() }
	for {
		t, ok := below.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		below = t.NetConn()
	}
	c.socket, c.asks = newSocket(below), asks(raw)
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
	n, err := 0, error(nil)
	if c.head != nil {
		n, err = c.ask(p)
	} else {
		n, err = c.Conn.Read(p)
	}
	c.room -= int64(n)
	return n, err
}

// ask writes what waits in head and reads what comes then.
func (c *conn) ask(p []byte) (n int, err error) {
	head := c.head
	c.head = nil
	sent := 0
	if c.asks {
		sent, n, err = c.socket.ask(head, p, c.reused)
		c.wrote = sent > 0
	}
	if sent < len(head) {
		if err == nil {
			_, err = c.Write(head[sent:])
		}
		if c.writeErr = err; c.rebuffed() {
			err = nil
		}
	}
	if n == 0 && err == nil {
		n, err = c.Conn.Read(p)
	}
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
