package upgrade

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// pump is the engine that works with any connection and on any system: two
// goroutines a tunnel, each of which reads one end and writes to the other. An event
// of the tunnel's course interrupts the reads of both by a deadline, so that they
// look what has become of their direction. Only send writes from outside, when the
// flow lets it.
type pump struct{}

func (pump) start(l link) relay {
	p := &pumped{client: l.client, backend: l.backend, tunnel: l.tunnel, began: time.Now()}
	p.course.websocket = l.websocket
	p.down = flow{pumped: p, dir: toClient, src: l.backend, dst: l.client, frames: l.tunnel.proxy.frames(l.websocket, SideBackend)}
	p.up = flow{pumped: p, dir: toBackend, src: l.client, dst: l.backend, frames: l.tunnel.proxy.frames(l.websocket, SideClient)}
	if l.websocket {
		p.down.turn = make(chan struct{}, 1)
		p.down.take() // until the head is written
	}
	p.running.Store(2)
	go p.down.run(l.head, l.toClient)
	go p.up.run(nil, l.toBackend)
	return p
}

// pumped is a tunnel on a pump.
type pumped struct {
	client, backend net.Conn
	tunnel          *Tunnel
	began           time.Time
	down, up        flow // to the client, to the backend

	last    atomic.Int64 // when a byte came last, since began
	running atomic.Int32 // flows

	// ending is set, under mu, with the first event of the course. A flow that
	// finds it unset need not take mu.
	ending atomic.Bool

	mu     sync.Mutex // guards course, and the deadlines of both connections from the first event on
	course course
}

func (p *pumped) now() time.Duration { return time.Since(p.began) }

// happens has the course take in an event, and wakes both flows. Closing the
// connections is left to the caller, see disconnect: that may take long.
func (p *pumped) happens(event func(c *course, now time.Duration) order) order {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ending.Store(true)
	before := p.course.closing
	order := event(&p.course, p.now())
	for _, conn := range [...]net.Conn{p.client, p.backend} {
		if p.course.closing && !before {
			conn.SetWriteDeadline(p.began.Add(p.course.goneBy))
		}
		conn.SetReadDeadline(past)
	}
	return order
}

func (p *pumped) close(code int, reason string) {
	p.happens(func(c *course, now time.Duration) order { return c.close(now, code, reason) })
}

func (p *pumped) cut() { p.end(nil) }

// end cuts the tunnel because of err, or because the gateway wants it so.
func (p *pumped) end(err error) {
	p.disconnect(p.happens(func(c *course, _ time.Duration) order { return c.cut(err) }))
}

// disconnect closes both connections if that is the course's order.
func (p *pumped) disconnect(order order) {
	client, backend := raw(p.client), raw(p.backend)
	switch order {
	case resetBoth:
		if c, ok := backend.(interface{ SetLinger(int) error }); ok {
			c.SetLinger(0)
		}
	case cutBoth:
	default:
		return
	}
	client.Close()
	backend.Close()
}

func (p *pumped) idle() time.Duration {
	return p.now() - time.Duration(p.last.Load())
}

// finish runs once both flows have ended.
func (p *pumped) finish() {
	p.client.Close()
	p.backend.Close()
	p.mu.Lock()
	s := p.course.cause
	p.mu.Unlock()
	s.ToClient, s.MessagesToClient = p.down.bytes, p.down.frames.messages+p.down.sent
	s.ToBackend, s.MessagesToBackend = p.up.bytes, p.up.frames.messages
	p.tunnel.end(s)
}

// raw returns the connection below TLS: closing that one doesn't wait for room
// to say farewell.
func raw(conn net.Conn) net.Conn {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok { // *tls.Conn
		return c.NetConn()
	}
	return conn
}
