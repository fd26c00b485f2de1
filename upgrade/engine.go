package upgrade

import (
	"context"
	"net"
	"time"
)

// link is what an engine gets of a tunnel, to take over both connections: the
// loops, if they can do with them, else a pump.
type link struct {
	client, backend     net.Conn
	head                []byte // for the client before anything else: the 101, not counted
	toClient, toBackend []byte // what came behind the handshakes
	websocket           bool
	tunnel              *Tunnel // its end is called once, when both are closed; never within start
}

// relay is a running tunnel, as seen from outside. Its methods may be called at
// any time from any goroutine, also after the end; all but send return at once.
type engine interface {
	// close sends a close frame to both ends where one can still be put between
	// two frames, waits a moment for theirs and closes. Only the first counts.
	close(code int, reason string)
	// cut closes both connections now.
	cut()
	// send writes framed messages to the client between two messages of the
	// backend, as [Tunnel.Send] promises.
	send(ctx context.Context, frames [][]byte) error
	// idle tells for how long no byte has come from either end.
	idle() time.Duration
}

// relay hands a tunnel to the engine that is right for its connections.
func (p *Proxy) startEngine(l link) engine {
	if !p.NoEventLoop {
		if r := p.loops.start(l); r != nil {
			return r
		}
	}
	return startPump(l)
}

// frames are those that come from an end, before the first.
func (p *Proxy) frames(websocket bool, from Side) frames {
	if !websocket {
		return frames{off: true}
	}
	return frames{masked: from == SideClient, limit: uint64(max(0, p.MessageLimit))}
}
