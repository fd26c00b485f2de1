package hub

import (
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
)

// hello is the first message of a client that speaks [Protocol], which the handler reads
// before the client becomes a member.
type hello struct {
	from   *socket
	come   bool
	first  firstMessage
	err    error      // it makes no sense
	parted *violation // what the client has closed the WebSocket with, if it has
	rest   []*Frame   // the messages that have come right behind it
}

// read waits for the first message, for as long as the client may take for a message to
// it. early is what has come with the handshake.
func (h *hello) read(c *socket, early []byte) *violation {
	h.from = c
	limit := c.sockets.opts.ReadLimit
	_ = c.conn.SetReadDeadline(time.Now().Add(c.sockets.hub.opts.WriteTimeout))
	buf := received.Get().(*[4 << 10]byte)
	defer received.Put(buf)
	done, bad := c.frames.feed(early, limit, h)
	for !h.come && !done {
		n, err := c.conn.Read(buf[:])
		if n > 0 {
			done, bad = c.frames.feed(buf[:n], limit, h)
		} else if err != nil {
			return &violation{closecode.PolicyViolation, "no positions have come"}
		}
	}
	_ = c.conn.SetReadDeadline(time.Time{})
	switch {
	case h.parted != nil && !h.come:
		bad = h.parted
	case h.err != nil:
		bad = &violation{closecode.PolicyViolation, "the first message has to be of " + Protocol}
	}
	if bad != nil {
		c.deaf = true
	}
	c.lines = h.first.Answers
	return bad
}

// pass gives the messages behind the first one to the application, and goes on reading.
func (h *hello) pass(c *socket) {
	for _, f := range h.rest {
		c.message(f.payload, f.binary)
	}
	if h.parted != nil {
		c.end()
	} else {
		c.read(nil)
	}
}

func (h *hello) begun() bool { return h.from.begun() }

func (h *hello) message(payload []byte, binary bool) {
	if !h.come {
		h.come = true
		h.first, h.err = parseFirst(payload)
		return
	}
	h.rest = append(h.rest, &Frame{payload: payload, binary: binary})
}

func (h *hello) ping([]byte) {} // the answer to a later one will do (RFC 6455, section 5.5.3)

func (h *hello) closed(code int, reason string) { h.parted = &violation{code, reason} }
