package upgrade

import (
	"context"
	"net"
	"time"

	"github.com/limpet-go/limpet/internal/switchable"
)

// A link is what an engine takes over: both connections of a tunnel, and the bytes
// that were read from them too early.
type link struct {
	client, backend     net.Conn
	head                []byte // the 101 for the client, written before anything else and not counted as its bytes
	toClient, toBackend []byte // what each end sent directly behind its handshake
	websocket           bool
	tunnel              *Tunnel // the engine calls its end method once, when both connections are closed, and never before it has started
}

// An engine carries one served tunnel: a loopTunnel on Linux between sockets, plain or
// below TLS that it can drive, or else a pumpTunnel. Its methods may be called at any time
// from any goroutine, also after the tunnel has ended. All but send return at once.
type engine interface {
	// close waits for a lull, for grace at most. Then it sends a close frame to both ends,
	// to each where one can still be put between two frames, waits a moment for their
	// answers and closes both connections. Only the first call counts, but a later one
	// may make a wait for a lull shorter.
	close(code int, reason string, grace time.Duration)
	// cut closes both connections now.
	cut()
	// send writes messages, one in each frame, to the client between two messages of
	// the backend, as [Tunnel.Send] promises.
	send(ctx context.Context, frames [][]byte) error
	// idle returns for how long no byte has come from either end.
	idle() time.Duration
	// heard reports whether the tunnel waits for bytes of its backend, and for how long none
	// has come from there: see [Proxy.Heard].
	heard() (waits bool, silent time.Duration)
	// stalled returns for how long the client has taken no byte of what waits for it, 0
	// if nothing waits.
	stalled() time.Duration
}

// startEngine starts the engine that is right for the tunnel's connections: an event
// loop if it can carry them, else a pump.
func (p *Proxy) startEngine(l link) engine {
	if s, ok := l.client.(*switchable.Conn); ok { // of a Listener, but without TLS
		l.client = s.NetConn()
	}
	if !p.NoEventLoop {
		if r := p.loops.start(l); r != nil {
			return r
		}
	}
	return startPump(l)
}

// frames returns the state of frame tracking for what from sends, before its first
// byte.
func (p *Proxy) frames(websocket bool, from Side) frames {
	if !websocket {
		return frames{off: true}
	}
	f := frames{masked: from == SideClient, limit: uint64(max(0, p.MessageLimit))}
	if f.masked && f.limit == 0 && p.MessageRate > 0 {
		f.limit = noLimit
	}
	return f
}
