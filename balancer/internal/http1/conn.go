package http1

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
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
	client *Client
	key    string // of the requests that it is for
	socket *socket
	direct bool   // socket.writeRead works
	abort  func() // ends what is under way; whose the connection is closes it

	// While it is idle:
	since, until time.Time

	// While it serves a request:
	in       *bufio.Reader
	readLeft int64  // bytes that may still be read
	head     []byte // of a request, to be written by the first Read
	reused   bool   // it has served another one before
	early    bool   // the backend spoke first, or may have: see probe
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

func newConn(raw net.Conn, client *Client) *conn {
	c := &conn{Conn: raw, client: client}
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
	c.socket, c.direct = newSocket(below), direct(raw)
	return c
}

// ready readies it for a request, and reports whether it is fit for that. If it
// isn't, it is closed.
func (c *conn) ready(byRead bool) bool {
	c.in = readers.Get().(*bufio.Reader)
	c.in.Reset(c)
	c.readLeft = maxHeader
	c.wrote, c.writeErr = false, nil
	if byRead && c.direct || c.probe() {
		return true
	}
	c.close()
	c.releaseBuffer()
	return false
}

// releaseBuffer takes its buffer away. Nobody may be reading.
func (c *conn) releaseBuffer() {
	c.in.Reset(nil)
	readers.Put(c.in)
	c.in = nil
}

func (c *conn) close() {
	c.client.forget(c)
	c.Conn.Close()
}

// Read implements [io.Reader] within the limit of readLeft.
func (c *conn) Read(p []byte) (int, error) {
	if c.readLeft <= 0 {
		return 0, errHeader
	}
	if int64(len(p)) > c.readLeft {
		p = p[:c.readLeft]
	}
	n, err := 0, error(nil)
	if c.head != nil {
		n, err = c.writeHead(p)
	} else {
		n, err = c.Conn.Read(p)
	}
	c.readLeft -= int64(n)
	return n, err
}

// writeHead writes what waits in head and reads what comes then.
func (c *conn) writeHead(p []byte) (n int, err error) {
	head := c.head
	c.head = nil
	sent := 0
	if c.direct {
		sent, n, err = c.socket.writeRead(head, p, c.reused)
		c.wrote = sent > 0
		c.early = c.socket.activity == spoke
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

// Write implements [io.Writer].
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.wrote = c.wrote || n > 0 || err == nil
	if err != nil {
		c.writeErr = err
	}
	return n, err
}

// probe looks what the backend did before a request is written to c, as ask does
// for itself, and reports whether the request may be.
//
// A connection that the backend has closed, as one does that is just being killed,
// isn't written to: what was never written may be sent elsewhere, a POST too.
//
// What a backend says before it is asked anything answers no request. On a kept
// connection it may be the 408 of a backend that tired of waiting: it isn't used.
// On a new one it may be the 503 of a backend that is too busy for more: there it
// is passed on, whatever status it has, for it is all that this backend has to say
// so far. But an answer to the request may still follow, and mustn't be taken for
// that to the next one: a connection on which the backend spoke first, or may have,
// is never kept.
//
// The rule is about the request's first byte. An answer that comes when that was
// written, though before the end of a body, is an answer to it. What comes between
// the look and the writing nobody can tell from such a one.
func (c *conn) probe() (fit bool) {
	activity := c.peek()
	c.early = activity == spoke
	return activity == silent || c.early && !c.reused
}

// peek says what the backend did. What it said can still be read.
func (c *conn) peek() activity {
	if c.direct { // so that nothing is between the kernel and c
		return c.socket.peek()
	}
	// TLS, or a type of somebody's own, may hold bytes that the kernel has not any
	// more, and may take those that it has without passing any on, as the session
	// tickets of TLS 1.3. A read whose time is over is told of the former only.
	for patience := 50 * time.Microsecond; patience < 20*time.Millisecond; patience *= 2 {
		below, until := c.socket.peek(), past
		if below == closed {
			return closed
		}
		if below != silent {
			until = time.Now().Add(patience)
		}
		if c.Conn.SetReadDeadline(until) != nil {
			return spoke // for all that can be known
		}
		late := !time.Now().Before(until)
		_, err := c.in.Peek(1)
		if c.Conn.SetReadDeadline(time.Time{}) != nil || c.in.Buffered() > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return spoke
		}
		if below == silent || below == hidden && !late {
			return silent
		}
	}
	return spoke
}

var past = time.Unix(1, 0)

// rebuffed reports whether the backend wants no more of a request. What it said
// before that, an answer as 413 perhaps, is still to be read, and if it said
// nothing the reading tells.
func (c *conn) rebuffed() bool {
	return c.wrote && (errors.Is(c.writeErr, syscall.EPIPE) || errors.Is(c.writeErr, syscall.ECONNRESET))
}
