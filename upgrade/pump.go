package upgrade

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// pump is the engine that works with any connection and on any system: two
// goroutines a tunnel, each of which reads one end and writes to the other. Who
// wants a close frame leaves word and interrupts the reads by a deadline. Only
// send writes from outside, when the flow lets it.
type pump struct{}

func (pump) start(l link) relay {
	p := &pumped{client: l.client, backend: l.backend, tunnel: l.tunnel, began: time.Now()}
	p.down = flow{pumped: p, src: l.backend, dst: l.client, frames: l.tunnel.proxy.frames(l.websocket, Backend)}
	p.up = flow{pumped: p, src: l.client, dst: l.backend, frames: l.tunnel.proxy.frames(l.websocket, Client)}
	if p.websocket = l.websocket; p.websocket {
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
	websocket       bool
	down, up        flow // to the client, to the backend

	last        atomic.Int64            // when a byte came last, since began
	closing     atomic.Pointer[closing] // set once
	closeSeen   atomic.Bool             // a close frame of an end has passed
	clientEnded atomic.Bool             // the client has shut down its writing
	clientLost  atomic.Bool             // nothing can be written to the client
	quiet       atomic.Int64            // how long the direction that is left may be silent, 0: both run
	running     atomic.Int32            // flows

	mu    sync.Mutex
	cause Summary // By, Code, Reason and Err of what happened first
	known bool
}

// closing is the word left for both flows.
type closing struct {
	code      int
	reason    string
	toBackend bool      // a close frame is due to the backend too
	frameBy   time.Time // until then a passing frame may end
	goneBy    time.Time // until then ends are drained
}

func (p *pumped) close(code int, reason string) {
	p.end(code, reason, true, Summary{By: Gateway, Code: code, Reason: reason})
}

// end leaves word that the tunnel closes and wakes both flows. It returns the
// word that counts.
func (p *pumped) end(code int, reason string, toBackend bool, cause Summary) *closing {
	now := time.Now()
	c := &closing{code, reason, toBackend, now.Add(frameTime), now.Add(frameTime + drainTime)}
	if !p.closing.CompareAndSwap(nil, c) {
		return p.closing.Load()
	}
	p.note(cause)
	for _, conn := range [...]net.Conn{p.client, p.backend} {
		conn.SetWriteDeadline(c.goneBy)
		conn.SetReadDeadline(past)
	}
	return c
}

func (p *pumped) cut() {
	p.note(Summary{By: Gateway})
	raw(p.client).Close()
	raw(p.backend).Close()
}

func (p *pumped) idle() time.Duration {
	return time.Since(p.began) - time.Duration(p.last.Load())
}

// note remembers what ended the tunnel: what is noted first.
func (p *pumped) note(cause Summary) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.known {
		p.known, p.cause = true, cause
	}
}

// reset closes both connections because the client's was reset, so that the
// backend learns the same at once.
func (p *pumped) reset() {
	if c, ok := raw(p.backend).(interface{ SetLinger(int) error }); ok {
		c.SetLinger(0)
	}
	p.cut()
}

// finish runs once both flows have ended.
func (p *pumped) finish() {
	p.client.Close()
	p.backend.Close()
	p.mu.Lock()
	s := p.cause
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
