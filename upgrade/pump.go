package upgrade

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/limpet-go/limpet/internal/switchable"
)

// startPump starts the engine that works with any connection and on any system: two
// goroutines for each tunnel, one for each direction, which reads from one end and
// writes to the other. Neither blocks the other one. An event of the tunnel's course
// interrupts the reads of both with a deadline in the past, so that each goroutine
// checks what has become of its direction. From outside only send writes, while it
// holds the client's lock.
//
// What a pumpTunnel's goroutines share, and how:
//
//	state          who changes it                          guarded by
//	course         both flows, close, cut, send, endLull   mu
//	lullEnd        close                                   mu
//	ending         whoever reports the first event         mu; read without it
//	deadlines      whoever changes the course; each flow   mu, from the first event on
//	frames, bytes  the flow itself; send, of down's bytes  the flow's goroutine; down's lock
//	last, running  both flows                              atomic
//	spoken, waits  down                                    atomic
//	asked          up                                      atomic
//	answered       both flows                              atomic
//	stuck          down; send, with down's lock            atomic
func startPump(l link) engine {
	t := &pumpTunnel{client: l.client, backend: l.backend, tunnel: l.tunnel, began: time.Now()}
	t.course.websocket = l.websocket
	t.down = pumpFlow{pumpTunnel: t, dir: toClient, src: l.backend, dst: l.client, frames: l.tunnel.proxy.frames(l.websocket, SideBackend)}
	t.up = pumpFlow{pumpTunnel: t, dir: toBackend, src: l.client, dst: l.backend, frames: l.tunnel.proxy.frames(l.websocket, SideClient)}
	if p := l.tunnel.proxy; l.websocket && p.MessageRate > 0 {
		pace := p.newPacer(0)
		t.up.pace = &pace
	}
	if l.websocket {
		t.down.lock = make(chan struct{}, 1)
		t.down.take() // until the head is written
	}
	t.running.Store(2)
	go t.down.run(l.head, l.toClient)
	go t.up.run(nil, l.toBackend)
	return t
}

// A pumpTunnel is a tunnel that is carried by a pump.
type pumpTunnel struct {
	client, backend net.Conn
	tunnel          *Tunnel
	began           time.Time
	down, up        pumpFlow // down leads to the client, up to the backend

	last     atomic.Int64 // when the last byte came, counted from began
	spoken   atomic.Int64 // when the last byte came from the backend, see heard
	asked    atomic.Int64 // when bytes of the client's last message came, 0 for never: see package lull
	answered atomic.Bool  // the backend has sent a whole message since
	waits    atomic.Bool  // down is reading
	stuck    atomic.Int64 // when the write to the client began that is under way, 0 for none; kept with a StallTimeout only
	running  atomic.Int32 // flows that have not ended

	// ending is set with the first event of the course. A flow that finds it unset
	// passes its bytes on without taking mu.
	ending atomic.Bool

	mu      sync.Mutex // see startPump
	course  course
	lullEnd *time.Timer // calls endLull; nil until the tunnel waits for a lull
}

// now returns the time as the course counts it.
func (t *pumpTunnel) now() time.Duration { return time.Since(t.began) }

// happens reports an event to the course and wakes both flows. It returns the course's
// order. It leaves the closing of the connections to disconnect, which runs without
// mu, since Close may block.
func (t *pumpTunnel) happens(event func(c *course, now time.Duration) order) order {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ending.Store(true)
	before := t.course.closing
	order := event(&t.course, t.now())
	t.wake(before)
	return order
}

// wake has both flows ask the course again. before tells whether the tunnel was closing
// before the event. mu is held.
func (t *pumpTunnel) wake(before bool) {
	for _, conn := range [...]net.Conn{t.client, t.backend} {
		if t.course.closing && !before {
			conn.SetWriteDeadline(t.began.Add(t.course.goneBy))
		}
		conn.SetReadDeadline(past)
	}
}

func (t *pumpTunnel) close(code int, reason string, grace time.Duration) {
	t.happens(func(c *course, now time.Duration) order {
		asked := time.Duration(t.asked.Load())
		order := c.closeGracefully(now, grace, code, reason, asked, t.answered.Load())
		if c.waiting {
			t.endLullIn(c.lull.Latest - now)
		}
		return order
	})
}

// endLullIn has endLull called in that time. mu is held.
func (t *pumpTunnel) endLullIn(in time.Duration) {
	if t.lullEnd == nil {
		t.lullEnd = time.AfterFunc(in, t.endLull)
	} else {
		t.lullEnd.Reset(in)
	}
}

// endLull closes the tunnel if it still waits for a lull. A flow does that itself while it
// reads. But one that writes to an end which takes nothing has no deadline until the tunnel
// is closing, and the other flow may do the same, or have ended.
func (t *pumpTunnel) endLull() {
	t.happens(func(c *course, now time.Duration) order {
		if !c.waiting {
			return carryOn
		}
		return c.closeInLull(now)
	})
}

func (t *pumpTunnel) cut() { t.end(nil) }

// end cuts the tunnel because of err, or without an error if the gateway wants it.
func (t *pumpTunnel) end(err error) {
	t.disconnect(t.happens(func(c *course, _ time.Duration) order { return c.cut(err) }))
}

// disconnect closes both connections if order asks for that.
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

func (t *pumpTunnel) stalled() time.Duration {
	if since := t.stuck.Load(); since != 0 {
		return t.now() - time.Duration(since)
	}
	return 0
}

func (t *pumpTunnel) idle() time.Duration {
	return t.now() - time.Duration(t.last.Load())
}

func (t *pumpTunnel) heard() (waits bool, silent time.Duration) {
	t.mu.Lock()
	waits = t.waits.Load() && t.course.phases[toClient] == relaying && !t.course.closing
	t.mu.Unlock()
	return waits, t.now() - time.Duration(t.spoken.Load())
}

// finish closes what is still open and reports the end, once both flows have ended.
func (t *pumpTunnel) finish() {
	t.client.Close()
	t.backend.Close()
	t.mu.Lock()
	s := t.course.cause
	if t.lullEnd != nil {
		t.lullEnd.Stop()
	}
	t.mu.Unlock()
	s.ToClient, s.MessagesToClient = t.down.bytes, t.down.frames.messages+t.down.sent
	s.ToBackend, s.MessagesToBackend = t.up.bytes, t.up.frames.messages
	t.tunnel.end(s)
}

// raw returns the connection below TLS. To close that one doesn't wait for room to
// write TLS's close_notify.
func raw(conn net.Conn) net.Conn { return switchable.Innermost(conn) }
