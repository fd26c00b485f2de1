package handover

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// A Conn is the connection between a predecessor and its successor. One goroutine at a time
// may use it.
type Conn struct {
	conn  *net.UnixConn
	until time.Time // no message is waited for longer; zero: no limit
	over  bool      // abort was read or sent
	times times

	interrupted atomic.Bool // no message is waited for any more
}

// times are how long a process waits for the other one.
type times struct {
	step time.Duration // a predecessor for the next message, while nobody uses the files
	give time.Duration // a predecessor for all of them, before it has sent commit
	take time.Duration // a successor for the next message
}

// NewConn returns a Conn on a stream socket that both processes are connected by.
func NewConn(conn *net.UnixConn) *Conn {
	_ = conn.SetWriteBuffer(4 * maxBatch) // see maxBatch
	return &Conn{conn: conn, times: times{step: 3 * time.Second, give: 10 * time.Second, take: 10 * time.Second}}
}

// Close ends the connection. While a Give is under way only the end of the process may.
func (c *Conn) Close() error { return c.conn.Close() }

// Interrupt has a wait for a message end with an error. It may be called while another
// goroutine uses the Conn.
func (c *Conn) Interrupt() {
	c.interrupted.Store(true)
	_ = c.conn.SetReadDeadline(longAgo)
}

var longAgo = time.Unix(1, 0)

// An Aborted is the error of a process whose opposite has sent abort.
type Aborted struct{ Reason string }

// Error returns the opposite's reason.
func (e *Aborted) Error() string { return "the other process says: " + e.Reason }

// Abort tells the other process that nothing goes over, and why. It waits until that is
// written, or nobody is there to read it. It returns the reason.
func (c *Conn) Abort(reason error) error {
	if c.over {
		return reason
	}
	c.over = true
	c.until = time.Time{}
	_ = c.send(message{kind: abort, payload: []byte(reason.Error())})
	return reason
}

// expect returns the next message, which must be of that kind. It waits for within at most, 0
// for no limit.
func (c *Conn) expect(k kind, within time.Duration) (message, error) {
	m, err := c.next(within)
	if err == nil && m.kind != k {
		m.close()
		return message{}, fmt.Errorf("there came %v where %v was expected", m.kind, k)
	}
	return m, err
}

// next returns the next message. abort is an error.
func (c *Conn) next(within time.Duration) (message, error) {
	until := c.until
	if within > 0 {
		if at := time.Now().Add(within); until.IsZero() || at.Before(until) {
			until = at
		}
	}
	if err := c.conn.SetReadDeadline(until); err != nil {
		return message{}, err
	}
	if c.interrupted.Load() { // perhaps before the deadline was set
		_ = c.conn.SetReadDeadline(longAgo)
	}
	m, err := c.read()
	if err == nil && m.kind == abort {
		c.over = true
		m.close()
		return message{}, &Aborted{Reason: string(m.payload)}
	}
	return m, err
}

// read reads one message.
func (c *Conn) read() (m message, err error) {
	var head [headerSize]byte
	if m.files, err = c.fill(head[:], nil); err != nil {
		m.close()
		return message{}, err
	}
	k, files, size, err := parseHeader(head[:])
	if err == nil {
		m.kind, m.payload = k, make([]byte, size)
		m.files, err = c.fill(m.payload, m.files)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
	}
	if err == nil && len(m.files) != files {
		err = errors.New("descriptors were lost on the way: is there room for them?")
	}
	if err != nil {
		m.close()
		return message{}, err
	}
	return m, nil
}

func (m message) close() { closeAll(m.files) }
