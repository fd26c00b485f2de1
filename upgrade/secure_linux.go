package upgrade

import (
	"crypto/tls"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/limpet-go/limpet/internal/sockets"
)

// A secureEnd is TLS at one end of a tunnel on a loop. The loop reads and writes the
// socket, and what crypto/tls reads and writes below itself is the memory of the loop:
//
//	receive   takes what the socket has into the loop's buffer, once for each event
//	decrypt   has crypto/tls read that, until nothing is left
//	write     has crypto/tls encrypt, gathers its records, and sends them by one call
//	flush     sends what there was no room for, once epoll says that there is room
//
// Two properties of crypto/tls make that possible. [tls.Conn.Read] goes on after an error
// that is a [net.Error] and temporary, as os.ErrDeadlineExceeded is, wherever within a
// record it has come. [tls.Conn.Write] does not: so Write takes everything, whatever
// there is room for. What crypto/tls writes while it reads, alerts and the answers of
// KeyUpdate messages (RFC 8446, section 4.6.3), takes the same way.
//
// After decrypt nothing is left in the tls.Conn but a part of a record: epoll would not
// report more than that. What has stopped reading, most often the close_notify of the
// peer, is kept in end, since the tunnel may have to forward other bytes before. epoll
// would not report that either: the connection below may stay open.
//
// loop.mu guards a secureEnd.
type secureEnd struct {
	loop   *loop
	tls    *tls.Conn
	in     []byte   // what crypto/tls has not read yet
	out    *pending // encrypted bytes for which the socket has no room, nil for none
	end    error    // what has ended the reading, nil for nothing
	read   uint32   // bytes received, and how many of them were payload, in this window
	plain  uint32
	budget uint16 // how many bytes receive takes at most
	holds  bool   // the tls.Conn, or in, may hold payload
	told   bool   // the course was told of end
}

// A record that has no payload costs as much as one with a lot: a KeyUpdate 20 µs,
// and 27 bytes. So receive takes few bytes at a time, until most of those that came were
// payload. The other tunnels of the loop need not wait for the rest.
const (
	smallBudget  = 2 << 10
	largeBudget  = chunkSize / 2
	budgetWindow = 4 * largeBudget
)

// longestRecord is that of TLS 1.2, with its header (RFC 5246, section 6.2.3).
const longestRecord = 5 + 16<<10 + 2<<10

// One decrypt must read all that receive has taken, and what the tls.Conn held of a record
// before: the next tunnel that receives overwrites loop.cipher, where in is, and epoll
// doesn't report again what is left. So all that has to be less than loop.buf. (The bytes
// that takeOver leaves in in are elsewhere, and readHeld reads on while holds is set.)
const _ uint = chunkSize - 1 - largeBudget - longestRecord

// mostUnsent is how many encrypted bytes may wait for room before what the peer sends
// isn't read any more: its KeyUpdates would make them more. One write of the tunnel's
// makes half as many.
const mostUnsent = 2 * chunkSize

// receive reads the socket once.
func (e *secureEnd) receive(fd int) {
	n, err := sockets.Receive(fd, e.loop.cipher[:e.budget])
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return
	case err != nil:
		e.end = os.NewSyscallError("read", err)
	case n == 0:
		e.end = io.EOF
	default:
		e.in = e.loop.cipher[:n]
	}
	e.holds = true
}

// decrypt fills buf with payload, as far as there is some.
func (e *secureEnd) decrypt(buf []byte) (n int) {
	e.read += uint32(len(e.in))
	for n < len(buf) {
		m, err := e.tls.Read(buf[n:])
		n += m // there may be some together with an error
		if err == nil {
			continue
		}
		e.holds, e.in = false, nil
		if err != os.ErrDeadlineExceeded {
			e.end = err
		}
		break
	}
	e.plain += uint32(n)
	if e.read >= budgetWindow {
		e.budget = smallBudget
		if e.plain >= e.read/4*3 {
			e.budget = largeBudget
		}
		e.read, e.plain = 0, 0
	}
	return n
}

// Read is for crypto/tls.
func (e *secureEnd) Read(p []byte) (int, error) {
	switch {
	case len(e.in) > 0:
		n := copy(p, e.in)
		e.in = e.in[n:]
		return n, nil
	case e.end != nil:
		return 0, e.end
	}
	return 0, os.ErrDeadlineExceeded
}

// Write is for crypto/tls. It takes all of p, to be sent by flush.
func (e *secureEnd) Write(p []byte) (int, error) {
	if e.out != nil {
		e.out.b = append(e.out.b, p...)
	} else {
		e.loop.records = append(e.loop.records, p...)
	}
	return len(p), nil
}

// write encrypts and sends b, or the first part of it. What there is no room for counts as
// written, as if it was in the socket. While some of that waits, write returns EAGAIN.
func (e *secureEnd) write(fd int, b []byte) (int, error) {
	if e.out != nil {
		return 0, syscall.EAGAIN
	}
	n, err := e.tls.Write(b[:min(len(b), chunkSize)])
	if flushErr := e.flush(fd); err == nil {
		err = flushErr
	}
	if err != nil {
		return 0, err
	}
	return n, nil
}

// flush sends what Write has taken, as far as there is room.
func (e *secureEnd) flush(fd int) error {
	b := e.loop.records
	if e.out != nil {
		b = e.out.b
	}
	for len(b) > 0 {
		n, err := sockets.Send(fd, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil && err != syscall.EAGAIN {
			e.drop()
			return err
		}
		b = b[n:]
		if err != nil {
			break
		}
	}
	switch {
	case len(b) == 0:
		e.drop()
	case e.out != nil:
		e.out.b = b
	default:
		e.out = pendings.Get().(*pending)
		e.out.b = append(e.out.room[:0], b...)
		e.loop.records = e.loop.records[:0]
	}
	return nil
}

// drop drops what Write has taken.
func (e *secureEnd) drop() {
	e.loop.records = e.loop.records[:0]
	if e.out != nil {
		e.out.b = nil
		pendings.Put(e.out)
		e.out = nil
	}
}

// closeNotify ends the writing (RFC 8446, section 6.1). Only the first call counts.
func (e *secureEnd) closeNotify(fd int) {
	e.tls.CloseWrite()
	e.flush(fd)
}

// chokes reports whether nothing may be read from the peer.
func (e *secureEnd) chokes() bool {
	return e != nil && (e.told || e.out != nil && len(e.out.b) > mostUnsent)
}

// reason returns what the course is told of the end. TLS that ended without close_notify
// counts as ended in order, as the end of a plain connection does.
func (e *secureEnd) reason() error {
	if e.end == io.EOF || errors.Is(e.end, io.ErrUnexpectedEOF) {
		return nil
	}
	return e.end
}
