package http1

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
	"sync/atomic"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/internal/httphead"
	"github.com/limpet-go/limpet/internal/switchable"
)

// A conn is a connection to an origin. It serves one request at a time and is read by one
// goroutine at a time. Only abort may be called by others.
//
// A long poll waits for its answer for most of the time, and there may be thousands. So a
// direct connection has a buffer only from the first byte of the answer to its end.
type conn struct {
	net.Conn
	client *Client
	key    string // of the requests that it may serve: see Origin.Key
	socket *socket
	direct bool   // bytes go to the kernel as they are: socket.await works
	queues bool   // there is a socket below, which takes a small request without waiting for the origin to read
	abort  func() // makes reads and writes fail; the owner of the connection still has to close it

	// While it is idle:
	since, until time.Time

	// While it serves a request:
	in       *bufio.Reader         // nil if c is direct and nothing of the answer was read yet
	readLeft int64                 // bytes that may still be read: of the header at first, then unlimited
	head     *[]byte               // of httphead: a whole request that await has to write
	reused   bool                  // it has served another request before
	early    bool                  // the origin spoke before the request, or may have: see probe
	wrote    bool                  // bytes of the request may have gone out
	writeErr error                 // of the last write that failed
	waits    atomic.Int32          // see patience.go
	why      atomic.Pointer[error] // it was released
}

// maxHeader limits the header of an answer together with those of the informational
// answers before it, in bytes. If a hook is called for these, the limit starts anew for each.
const maxHeader = 1 << 20

var errHeader = fmt.Errorf("the header of the answer is larger than %d bytes", maxHeader)

var (
	readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriter(nil) }}
)

func newConn(raw net.Conn, client *Client) *conn {
	c := &conn{Conn: raw, client: client}
	top := raw
	if t, ok := raw.(*tls.Conn); ok {
		top = t.NetConn() // closing a tls.Conn may wait
	}
	c.abort = func() { top.Close() }
	below := switchable.Innermost(top)
	_, c.queues = below.(syscall.Conn)
	c.socket, c.direct = newSocket(below), direct(raw)
	return c
}

// ready prepares c for a request, and reports whether it is fit for one. If it isn't, c
// is closed. With byAwait the question is left to await, if that can answer it.
func (c *conn) ready(byAwait bool) bool {
	c.readLeft = maxHeader
	c.wrote, c.writeErr = false, nil
	if !c.direct {
		c.takeBuffer()
	}
	if byAwait && c.direct || c.probe() {
		return true
	}
	c.close()
	c.releaseBuffer()
	return false
}

// takeBuffer gets a read buffer.
func (c *conn) takeBuffer() {
	c.in = readers.Get().(*bufio.Reader)
	c.in.Reset(c)
}

// releaseBuffer gives the read buffer back, if there is one. Nobody may be reading from c.
func (c *conn) releaseBuffer() {
	if c.in != nil {
		c.in.Reset(nil)
		readers.Put(c.in)
		c.in = nil
	}
}

// close closes c for good. Only the owner may call it.
func (c *conn) close() {
	c.client.forget(c)
	c.Conn.Close()
}

// await returns when there is something to read, which in has then, or when reading fails.
// It first writes the request that waits in head.
func (c *conn) await() error {
	if c.in == nil {
		if err := c.awaitKernel(); err != nil {
			return err
		}
		c.takeBuffer()
	} else if c.head != nil {
		head := c.head
		c.head = nil
		if err := c.writeRest(head, 0, nil); err != nil {
			return err
		}
	}
	_, err := c.in.Peek(1)
	return err
}

// awaitKernel is await for a direct connection, which needs no buffer to wait. What the
// origin said before it took the whole request is still read.
func (c *conn) awaitKernel() error {
	reads := c.client.origin.Reads
	reads.Begun.Add(1)
	defer reads.end(0) // what is there is read later
	if c.head == nil {
		return c.socket.await(nil, false)
	}
	head := c.head
	c.head = nil
	err := c.socket.await(head, c.reused)
	c.wrote = c.socket.sent > 0
	c.early = c.socket.activity == spoke
	if unsent := c.socket.head; unsent != nil { // not head, which would keep the buffer while the request waits
		c.socket.head = nil
		return c.writeRest(unsent, c.socket.sent, err)
	}
	return err
}

// writeRest writes head from that byte on, unless err has ended that, and gives it back.
func (c *conn) writeRest(head *[]byte, from int, err error) error {
	if err == nil {
		_, err = c.Write((*head)[from:])
	}
	httphead.Release(head)
	if c.writeErr = err; c.rebuffed() {
		err = nil
	}
	return err
}

// Read implements [io.Reader]. It reads no more than readLeft allows.
func (c *conn) Read(p []byte) (int, error) {
	if c.readLeft <= 0 {
		return 0, errHeader
	}
	if int64(len(p)) > c.readLeft {
		p = p[:c.readLeft]
	}
	reads := c.client.origin.Reads
	reads.Begun.Add(1)
	n, err := c.Conn.Read(p)
	reads.end(n)
	c.readLeft -= int64(n)
	return n, err
}

// unlimited is the readLeft of an answer's body.
const unlimited = math.MaxInt64

// Write implements [io.Writer]. It notes what a failed call has to know: whether bytes
// may have gone out, and the error.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.wrote = c.wrote || n > 0 || err == nil
	if err != nil {
		c.writeErr = err
	}
	return n, err
}

// probe peeks at what the origin did before a request is written to c, and reports
// whether the request may be written. (socket.await does the same for itself.)
//
// Nothing is written to a connection that the origin has closed, as a process does that
// is being killed: a request of which no byte was written may be sent elsewhere, a POST
// too.
//
// What an origin says before it is asked anything is no answer to a request. On a kept
// connection it may be the 408 of a server that got tired of waiting: the connection
// isn't used. On a new one it may be the 503 of a server that is too busy for more
// connections. That is passed on, whatever its status, since it is all that this origin
// has said so far. But the answer to the request may still follow, and must not be
// taken for the answer to the next one: a connection on which the origin spoke first, or
// may have, is never kept.
//
// The rule is about the request's first byte. An answer that arrives after that byte was
// written, though before the end of the body, answers the request. An answer that
// arrives between the peek and the write can't be told from it.
func (c *conn) probe() (fit bool) {
	did := c.peek()
	c.early = did == spoke
	return did == silent || c.early && !c.reused
}

// peek returns what the origin did while nobody was reading. What it said can still be
// read.
func (c *conn) peek() activity {
	if c.direct { // nothing is between the kernel and c
		return c.socket.peek()
	}
	// TLS, or a type of the embedder's own, may hold bytes that have left the kernel. And
	// it may take bytes from the kernel without passing any on, such as the session
	// tickets of TLS 1.3. A read whose deadline has passed returns the former, and never
	// looks at the kernel: only if that has bytes is a read given a moment.
	for patience := 50 * time.Microsecond; patience < 20*time.Millisecond; patience *= 2 {
		below, until := c.socket.peek(), past
		if below == closed {
			return closed
		}
		if below != silent {
			until = time.Now().Add(patience)
		}
		if c.Conn.SetReadDeadline(until) != nil {
			return spoke // or may have: without a deadline a read would wait
		}
		late := !time.Now().Before(until)
		_, err := c.in.Peek(1)
		if _, secured := c.Conn.(*tls.Conn); secured && err == io.EOF && c.in.Buffered() == 0 {
			return closed // a close_notify; other types may call any failure io.EOF
		}
		if c.Conn.SetReadDeadline(time.Time{}) != nil || c.in.Buffered() > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return spoke
		}
		if below == silent || below == hidden && !late {
			return silent
		}
	}
	return spoke
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// rebuffed reports whether the origin has closed the connection before it took the
// whole request. What it said before that, perhaps an answer such as 413, can still be
// read; if it said nothing, the read fails.
func (c *conn) rebuffed() bool {
	return c.wrote && (errors.Is(c.writeErr, syscall.EPIPE) || errors.Is(c.writeErr, syscall.ECONNRESET))
}
