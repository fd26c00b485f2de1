package upgrade

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
	"github.com/limpet-go/limpet/internal/switchable"
)

// loops are the event loops of a Proxy. They are the engine for connections that are
// sockets, plain or below TLS of ours, on Linux. An idle tunnel has no goroutine, no timer
// and no buffer there. The zero value is ready to use.
type loops struct {
	mu  sync.Mutex
	all []*loop // as many as GOMAXPROCS ever was, nil while it has no tunnels
}

// linger is how long a loop stays after its last tunnel has ended. The next one may
// come soon.
const linger = 100 * time.Millisecond

// start takes over both connections of l, or returns nil if it can't carry them. Then
// they are as before.
func (e *loops) start(l link) engine {
	client, backend := l.tunnel.proxy.beneath(l.client), l.tunnel.proxy.beneath(l.backend)
	if !client.duplicate() {
		return nil
	}
	if !backend.duplicate() {
		syscall.Close(client.fd)
		return nil
	}
	loop, err := e.least()
	if err != nil {
		syscall.Close(client.fd)
		syscall.Close(backend.fd)
		return nil
	}
	l.toBackend = append(l.toBackend, client.takeOver(loop)...)
	l.toClient = append(l.toClient, backend.takeOver(loop)...)
	return loop.start(l, [2]base{client, backend})
}

// A base is what is beneath a connection that a loop takes over.
type base struct {
	wrapper, plain net.Conn   // wrapper passes the bytes of plain on
	secure         *secureEnd // what is above wrapper, nil without TLS
	fd             int        // a duplicate of that of plain, or its own if it can be taken; -1 before
	alone          bool       // fd is the only descriptor of the socket, whose close doesn't wait
}

// beneath returns what is beneath conn.
func (p *Proxy) beneath(conn net.Conn) base {
	var secure *secureEnd
	if t, ok := conn.(*tls.Conn); ok {
		if below, ok := t.NetConn().(*switchable.Conn); ok {
			secure = &secureEnd{tls: t, budget: smallBudget, holds: true}
			conn = below.NetConn()
		}
	}
	return base{wrapper: conn, plain: p.unwrap(conn), secure: secure}
}

// duplicate sets b.fd unless it can be taken, and reports whether a loop can carry b.
func (b *base) duplicate() (ok bool) {
	if _, ok := b.plain.(*sockets.Conn); ok {
		b.fd = -1
		return true
	}
	b.fd, ok = duplicate(b.plain)
	return ok
}

// takeOver has loop go on with b, and returns what was read ahead, unless that is for TLS.
func (b *base) takeOver(loop *loop) []byte {
	early := ahead(b.wrapper, b.plain)
	own, ok := b.plain.(*sockets.Conn)
	if ok {
		b.fd, b.alone = own.Take() // if that fails, all that the loop does with it will
	}
	if !ok || b.wrapper != b.plain {
		// A duplicate keeps the socket open. Close frees what the runtime keeps for its own.
		b.wrapper.Close()
	}
	if b.secure == nil {
		return early
	}
	b.secure.loop, b.secure.in = loop, early
	b.secure.tls.NetConn().(*switchable.Conn).Switch(b.secure)
	return nil
}

// unwrap returns the connection below conn, see Proxy.Unwrap.
func (p *Proxy) unwrap(conn net.Conn) net.Conn {
	if p.Unwrap == nil {
		return conn
	}
	return p.Unwrap(conn)
}

// ahead returns the bytes that wrapper has read from plain and that nobody has read
// from wrapper.
func ahead(wrapper, plain net.Conn) (b []byte) {
	if wrapper == plain {
		return nil
	}
	wrapper.SetReadDeadline(past)
	plain.SetReadDeadline(past) // the wrapper may not pass its deadline on
	for buf := make([]byte, 4<<10); ; {
		n, err := wrapper.Read(buf)
		b = append(b, buf[:n]...)
		if err != nil { // an error other than the deadline's comes again when the socket is read
			return b
		}
	}
}

// least returns the loop that has the fewest tunnels and counts one more there. It
// chooses among as many loops as GOMAXPROCS is now. After that was lowered, the
// tunnels of the other loops stay there until they end.
func (e *loops) least() (*loop, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	use := runtime.GOMAXPROCS(0)
	for len(e.all) < use {
		e.all = append(e.all, nil)
	}
	at := 0
	for i, l := range e.all[:use] {
		if l == nil {
			at = i
			break
		}
		if l.tunnels.Load() < e.all[at].tunnels.Load() {
			at = i
		}
	}
	if e.all[at] == nil {
		l, err := newLoop(e)
		if err != nil {
			return nil, err
		}
		e.all[at] = l
		go l.run()
	}
	e.all[at].tunnels.Add(1)
	return e.all[at], nil
}

// retire removes l if it has no tunnels, and reports whether it did. No tunnel comes
// to it afterwards.
func (e *loops) retire(l *loop) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l.tunnels.Load() > 0 {
		return false
	}
	for i := range e.all {
		if e.all[i] == l {
			e.all[i] = nil
		}
	}
	return true
}
