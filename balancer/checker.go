package balancer

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"time"
)

// A checker checks one backend. Only the goroutine that checks the backend uses it. Much of
// what a check needs is made once for all: a pool of 1,000 backends makes as many checks in
// each second.
type checker struct {
	*Check
	backend *Backend
	within  time.Duration // how long the next check may take, from dial to answer
	get     bool          // since the backend doesn't support HEAD
	request *http.Request // that is sent, nil before the first check
	wire    []byte        // request as it is on the wire
	kept    *checkConn    // for the next check, nil if there is none
	uses    int           // checks on kept since the last new connection
}

// freshEvery is how many checks are made on a kept connection before one is made on a new
// connection too.
const freshEvery = 29

// errHead means that a backend doesn't support HEAD, which the embedder didn't ask for.
var errHead = errors.New("HEAD is not answered here, GET may be")

// ask checks the backend once, on a new connection too if fresh is set or that is due. The
// finding has all but refused.
func (c *checker) ask(ctx context.Context, fresh bool) (f finding) {
	if c.kept != nil {
		c.uses++
		var stale bool
		f.answered, stale, f.err = c.again()
		f.lives = f.answered
		if !stale && (f.err != nil || !fresh && c.uses <= freshEvery) {
			return f
		}
	}
	c.uses = 0
	if c.kept == nil {
		c.uses = rand.IntN(freshEvery) // so that many backends don't have their turns together
	}
	timed, cancel := context.WithTimeout(ctx, c.within)
	defer cancel()
	f.answered, f.err = c.connect(timed, ctx)
	if f.err == errHead {
		c.get, c.request = true, nil
		f.answered, f.err = c.connect(timed, ctx)
	}
	f.lives = f.lives || f.answered
	return f
}

// again makes a check on the kept connection. Stale reports that it couldn't be used: the
// backend may close it at any time.
func (c *checker) again() (answered, stale bool, err error) {
	conn := c.kept
	c.kept = nil
	if err := conn.SetDeadline(time.Now().Add(c.within)); err != nil {
		conn.end()
		return false, true, err
	}
	err = c.converse(conn)
	if c.kept == nil {
		conn.end()
	}
	if !conn.final && errors.Is(err, os.ErrDeadlineExceeded) {
		return false, false, c.late()
	}
	return conn.any, !conn.any || err == errHead, err
}

// connect makes a check on a new connection until ctx ends. If that may be used again it takes
// the place of the kept one, until run ends.
func (c *checker) connect(ctx, run context.Context) (answered bool, err error) {
	raw, err := c.transport.connect(ctx, c.backend)
	if err != nil {
		return false, err
	}
	if c.Path == "" {
		raw.Close()
		return true, nil
	}
	conn, old := newCheckConn(raw), c.kept
	c.kept = nil
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	err = c.converse(conn)
	inTime := stop()
	if c.kept != nil && inTime {
		old.end()
		conn.stop = context.AfterFunc(run, func() { raw.Close() })
	} else {
		c.kept = old
		raw.Close()
	}
	if !conn.final && !inTime {
		return false, c.late()
	}
	return conn.any, err
}

// late is the error of a check that got no answer in time.
func (c *checker) late() error {
	return fmt.Errorf("no answer within %v", c.within.Round(time.Millisecond))
}

// close ends the kept connection.
func (c *checker) close() { c.kept.end() }

// converse sends the request on conn, and returns an error unless the answer is as expected. It
// makes conn the kept connection if it may be used again.
func (c *checker) converse(conn *checkConn) error {
	if err := c.prepare(); err != nil {
		return err
	}
	conn.begin()
	if _, err := conn.Write(c.wire); err != nil {
		return err
	}
	if c.plain(conn) {
		conn.final, c.kept = true, conn
		return nil
	}
	for {
		res, err := http.ReadResponse(conn.in, c.request)
		switch {
		case err != nil:
			return err
		case res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols:
			continue // an informational answer before the real one
		}
		conn.final = true
		if c.KeepAlive && !res.Close && res.StatusCode >= 200 && conn.finish(res) {
			c.kept = conn
		}
		if c.expected(res.StatusCode) {
			return nil
		}
		if status := res.StatusCode; c.Method == "" && !c.get &&
			(status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented) {
			return errHead
		}
		// Without the path's query, which may hold a secret.
		return &unexpected{c.request.Method, c.request.URL.Path, res.Status, res.StatusCode}
	}
}

// prepare makes the request if that has to be done.
func (c *checker) prepare() error {
	if c.request != nil {
		return nil
	}
	method := cmp.Or(c.Method, http.MethodHead)
	if c.get {
		method = http.MethodGet
	}
	req, err := c.Check.request(context.Background(), method, c.backend.origin)
	if err != nil {
		return err
	}
	var wire bytes.Buffer
	if err := req.Write(&wire); err != nil {
		return err
	}
	c.request, c.wire = req, wire.Bytes()
	return nil
}

func (c *Check) expected(status int) bool {
	if c.Expect == nil {
		return 200 <= status && status <= 399
	}
	return slices.Contains(c.Expect, status)
}

// A checkConn is a connection for checks.
type checkConn struct {
	net.Conn
	in    *bufio.Reader
	stop  func() bool // ends what closes the connection when the checks end; nil if it isn't kept
	left  int         // bytes that this check may still read
	any   bool        // this check has received something
	final bool        // and the header of the final answer
}

func newCheckConn(raw net.Conn) *checkConn {
	c := &checkConn{Conn: raw}
	c.in = bufio.NewReaderSize(c, 1<<10)
	return c
}

// begin prepares c for a check, which reads no more than this, whatever the page sends.
func (c *checkConn) begin() { c.left, c.any, c.final = 64<<10, false, false }

func (c *checkConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	c.any = c.any || n > 0
	return n, err
}

// finish reads the rest of an answer, and reports whether c can be used for another request.
func (c *checkConn) finish(res *http.Response) bool {
	_, err := io.Copy(io.Discard, res.Body)
	return err == nil && c.in.Buffered() == 0
}

// end closes the connection, if there is one.
func (c *checkConn) end() {
	if c != nil {
		c.stop()
		c.Close()
	}
}
