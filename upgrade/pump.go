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

func startPump(l link) engine {
	t := &pumpTunnel{client: l.client, backend: l.backend, tunnel: l.tunnel, began: time.Now()}
	t.course.websocket = l.websocket
	t.down = pumpFlow{pumpTunnel: t, dir: toClient, src: l.backend, dst: l.client, frames: l.tunnel.proxy.frames(l.websocket, SideBackend)}
	t.up = pumpFlow{pumpTunnel: t, dir: toBackend, src: l.client, dst: l.backend, frames: l.tunnel.proxy.frames(l.websocket, SideClient)}
	if l.websocket {
		t.down.lock = make(chan struct{}, 1)
		t.down.take() // until the head is written
	}
	t.running.Store(2)
	go t.down.run(l.head, l.toClient)
	go t.up.run(nil, l.toBackend)
	return t
}

// pumpTunnel is a tunnel on a pump.
type pumpTunnel struct {
	client, backend net.Conn
	tunnel          *Tunnel
	began           time.Time
	down, up        pumpFlow // to the client, to the backend

	last    atomic.Int64 // when a byte came last, since began
	running atomic.Int32 // flows

	// ending is set, under mu, with the first event of the course. A flow that
	// finds it unset need not take mu.
	ending atomic.Bool

	mu     sync.Mutex // guards course, and the deadlines of both connections from the first event on
	course course
}

func (t *pumpTunnel) now() time.Duration { return time.Since(t.began) }

// happens has the course take in an event, and wakes both flows. Closing the
// connections is left to the caller, see disconnect: that may take long.
func (t *pumpTunnel) happens(event func(c *course, now time.Duration) order) order {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ending.Store(true)
	before := t.course.closing
	order := event(&t.course, t.now())
	for _, conn := range [...]net.Conn{t.client, t.backend} {
		if t.course.closing && !before {
			conn.SetWriteDeadline(t.began.Add(t.course.goneBy))
		}
		conn.SetReadDeadline(past)
	}
	return order
}

func (t *pumpTunnel) close(code int, reason string) {
	t.happens(func(c *course, now time.Duration) order { return c.close(now, code, reason) })
}

func (t *pumpTunnel) cut() { t.end(nil) }

// end cuts the tunnel because of err, or because the gateway wants it so.
func (t *pumpTunnel) end(err error) {
	t.disconnect(t.happens(func(c *course, _ time.Duration) order { return c.cut(err) }))
}

// disconnect closes both connections if that is the course's order.
func (t *pumpTunnel) disconnect(order order) {
	client, backend := raw(t.client), raw(t.backend)
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

func (t *pumpTunnel) idle() time.Duration {
	return t.now() - time.Duration(t.last.Load())
}

// finish runs once both flows have ended.
func (t *pumpTunnel) finish() {
	t.client.Close()
	t.backend.Close()
	t.mu.Lock()
	s := t.course.cause
	t.mu.Unlock()
	s.ToClient, s.MessagesToClient = t.down.bytes, t.down.frames.messages+t.down.sent
	s.ToBackend, s.MessagesToBackend = t.up.bytes, t.up.frames.messages
	t.tunnel.end(s)
}

// raw returns the connection below TLS: closing that one doesn't wait for room
// to say farewell.
func raw(conn net.Conn) net.Conn {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok { // *tls.Conn
		return c.NetConn()
	}
	return conn
}
