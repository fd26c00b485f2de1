package hub

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
)

// received are the buffers of sockets that have something to read.
var received = sync.Pool{New: func() any { return new([4 << 10]byte) }}

// read deals with what the client has sent behind its handshake, and then waits for more.
func (s *socket) read(early []byte) {
	if !s.feed(early) {
		s.end()
		return
	}
	s.wait()
}

// wait waits until the client sends something, and deals with that. Another goroutine goes
// on then: one that has called the application keeps the stack that this took, and one
// that only waits needs the smallest there is. That is why wait holds no buffer, and why
// what it waits in isn't deep.
func (s *socket) wait() {
	if s.raw != nil {
		if err := s.raw.Read(s.try); err != nil {
			s.err = err // the connection was closed
		}
	} else {
		s.receiveFirst()
	}
	if s.deal() {
		go s.wait() // until the connection ends
	}
}

// receiveFirst is for connections of which only Read says whether there is something to
// read, such as those of TLS. It waits with one byte, and borrows a buffer for it then.
func (s *socket) receiveFirst() {
	var first [1]byte
	n, err := s.conn.Read(first[:])
	if s.err = err; n > 0 {
		s.got = received.Get().(*[4 << 10]byte)
		s.got[0], s.n = first[0], 1
	}
}

// deal deals with what was received, and with the rest of a frame that has begun. It
// reports whether to go on.
func (s *socket) deal() (on bool) {
	defer func() {
		if !on {
			s.end()
		}
	}()
	if s.got == nil {
		return s.err == nil
	}
	defer func() {
		received.Put(s.got)
		s.got = nil
	}()
	for {
		s.heard.Store(true)
		if !s.feed(s.got[:s.n]) {
			return false
		}
		if s.err != nil || !s.frames.within() {
			return s.err == nil
		}
		s.n, s.err = s.conn.Read(s.got[:])
	}
}

// feed deals with bytes of the client. It returns false once the client has closed the
// WebSocket.
func (s *socket) feed(b []byte) (on bool) {
	if s.deaf {
		return true
	}
	done, bad := s.frames.feed(b, s.sockets.opts.ReadLimit, s)
	if bad == nil {
		return !done
	}
	// Where the next frame would begin is unknown. What still comes is dropped, so that
	// the kernel doesn't reset the connection before the client has read the close frame.
	s.mu.Lock()
	s.deaf = true
	s.mu.Unlock()
	s.frames = frameReader{}
	if s.member != nil {
		s.member.Close(bad.code, bad.reason)
	}
	return true
}

// end is called once, when nothing is read any more.
func (s *socket) end() {
	defer s.gone()
	s.sockets.pings.remove(s)
	s.part()
	if s.member == nil {
		return
	}
	s.member.Close(closecode.Normal, "")
	if closed := s.sockets.opts.Closed; closed != nil {
		defer s.caught()
		closed(s.member)
	}
}

// begun counts a frame, and reports whether it is within MessageRate.
func (s *socket) begun() bool {
	return s.sockets.rate.Take(&s.full, time.Since(s.sockets.pings.began)) == 0
}

// message gives a message to the application, or an answer to the one who has asked.
func (s *socket) message(payload []byte, binary bool) {
	if s.lines && s.member != nil {
		var isAnswer bool
		if payload, isAnswer = s.answer(payload); isAnswer {
			return
		}
	}
	if m := s.member; m != nil && s.sockets.opts.Message != nil && !m.over() {
		defer s.caught()
		s.sockets.opts.Message(m.ctx, m, &Frame{payload: payload, binary: binary})
	}
}

// answer takes the line off a message, and reports whether that is all for the application: it is
// an answer, or a line that makes no sense.
func (s *socket) answer(message []byte) (rest []byte, done bool) {
	l, rest, err := cutLine(message)
	if err != nil {
		s.member.Close(closecode.PolicyViolation, "a message has to begin with a line of "+Protocol)
		return nil, true
	}
	if l.Answer == 0 {
		return rest, false
	}
	m := s.member
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.Error != nil {
		m.replied(l.Answer, nil, fmt.Errorf("hub: member %q answers with an error: %s", m.id, *l.Error))
	} else {
		m.replied(l.Answer, rest, nil)
	}
	return nil, true
}

func (s *socket) ping(payload []byte) {
	if s.member != nil {
		s.member.control(func(q *queued) { q.pong = append([]byte{0x80 | opPong, byte(len(payload))}, payload...) })
	}
}

// closed answers a close frame with the same one.
func (s *socket) closed(code int, reason string) {
	if s.member != nil {
		s.member.Close(code, reason)
	}
}

// caught closes the client of a callback that panics, as net/http does for a handler.
func (s *socket) caught() {
	p := recover()
	if p == nil {
		return
	}
	if p != http.ErrAbortHandler {
		s.sockets.hub.opts.Logger.Error("a callback of a client has panicked", "member", s.member.id, "panic", p, "stack", string(debug.Stack()))
	}
	s.member.Close(closecode.InternalError, "")
}
