package hub

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
	netsockets "github.com/limpet-go/limpet/internal/sockets"
)

// socket is a client's WebSocket, and the Conn of its member. Two goroutines work with it,
// neither of which is there while nothing moves, apart from the one that waits for the
// client: the member's own, which alone writes, and one that reads (see wait).
type socket struct {
	sockets  *sockets
	member   *Member // nil if the client can't become one
	conn     net.Conn
	out      net.Buffers
	release  func()       // tells what counts the client that it is gone; or nil
	halves   atomic.Int32 // how many of Close and end have been called
	lines    bool         // the client's messages begin with a line, as those of clients do that answer
	deflates bool         // messages to the client are compressed

	// What the reading goroutine uses.
	raw    syscall.RawConn       // nil if the connection is no socket, which one of TLS isn't
	try    func(fd uintptr) bool // s.receive, so that waiting allocates nothing
	got    *[4 << 10]byte        // what was received last, which is given back to received; or nil
	n      int                   // bytes in got
	err    error                 // why nothing more can be received
	frames frameReader
	alive  *Frame        // tells a client that speaks Protocol that the server is there; nil for others
	full   time.Duration // when as many frames may come at once as ever

	// What sockets.pings uses.
	heard      atomic.Bool   // something has come since the last ping
	due        time.Duration // when the next ping is
	next, prev *socket

	mu     sync.Mutex
	deaf   bool          // the client has broken the protocol: what it sends is dropped
	over   bool          // the client has closed the WebSocket, or nothing can be read any more
	parted chan struct{} // closed once over is set, if Close waits for that
}

// Send implements [Conn].
func (s *socket) Send(_ context.Context, messages []*Frame) error {
	if len(messages) == 1 {
		_, err := s.conn.Write(s.bytes(messages[0]))
		return err
	}
	list := outs.Get().(*[][]byte)
	defer outs.Put(list)
	*list = (*list)[:0]
	for _, f := range messages {
		*list = append(*list, s.bytes(f))
	}
	s.out = *list // a copy of the slice, which WriteBuffers consumes
	_, err := netsockets.WriteBuffers(s.conn, &s.out)
	s.out = nil
	clear(*list)
	return err
}

// bytes returns a message as the frame that the client gets.
func (s *socket) bytes(f *Frame) []byte {
	if s.deflates {
		return f.deflated()
	}
	return f.Bytes()
}

// outs are lists for Send.
var outs = sync.Pool{New: func() any { return new([][]byte) }}

// Close implements [Conn]. The connection is closed once the client has answered the
// close frame: what the client may have sent before that would otherwise make the kernel
// reset the connection, and the close frame might be lost (RFC 6455, section 7.1.1).
func (s *socket) Close(ctx context.Context, code int, reason string) error {
	defer s.gone()
	defer s.conn.Close()
	frame := binary.BigEndian.AppendUint16(make([]byte, 2, 4+len(reason)), uint16(code))
	if frame = append(frame, reason...); code == closecode.NoStatus {
		frame = frame[:2]
	}
	frame[0], frame[1] = 0x80|opClose, byte(len(frame)-2)
	if _, err := s.conn.Write(frame); err != nil {
		return err
	}
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return nil
	}
	s.parted = make(chan struct{})
	deaf := s.deaf
	s.mu.Unlock()
	if half, ok := s.conn.(interface{ CloseWrite() error }); deaf && ok {
		_ = half.CloseWrite() // the client's close frame can't be recognized: it closes its end when it sees this
	}
	select {
	case <-s.parted:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// gone is called once by Close and once by end. The connection counts until both are done:
// what a client has sent may keep the application busy when the connection is closed.
func (s *socket) gone() {
	if s.halves.Add(1) == 2 && s.release != nil {
		s.release()
	}
}

// part notes that nothing is read any more.
func (s *socket) part() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.over = true
		if s.parted != nil {
			close(s.parted)
		}
	}
}

// cut closes the connection without a close frame. Reads and writes that wait fail.
func (s *socket) cut() { s.conn.Close() }

// lose ends a member whose client is silent. A callback may wait for the member's context,
// and then nobody sees that reads fail.
func (s *socket) lose() {
	s.cut()
	s.member.fail()
}
