package upgrade

import (
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// loops is the engine for Linux and connections that are nothing but a socket:
// event loops, each of which moves the bytes of many tunnels. An idle tunnel has
// no goroutine, no timer and no buffer there. The zero value is ready.
type loops struct {
	mu  sync.Mutex
	all []*loop // as many as GOMAXPROCS ever was, nil while it has no tunnels
}

// linger is how long a loop outlives its last tunnel: the next one may be near.
const linger = 100 * time.Millisecond

// start takes over both connections of l, or returns nil if it can't; then they
// are as before.
func (e *loops) start(l link) engine {
	proxy := l.tunnel.proxy
	plainClient, plainBackend := proxy.unwrap(l.client), proxy.unwrap(l.backend)
	client, ok := duplicate(plainClient)
	if !ok {
		return nil
	}
	backend, ok := duplicate(plainBackend)
	if !ok {
		syscall.Close(client)
		return nil
	}
	loop, err := e.least()
	if err != nil {
		syscall.Close(client)
		syscall.Close(backend)
		return nil
	}
	l.toBackend = append(l.toBackend, ahead(l.client, plainClient)...)
	l.toClient = append(l.toClient, ahead(l.backend, plainBackend)...)
	// The sockets live on in the duplicates; what the runtime keeps for its own goes.
	l.client.Close()
	l.backend.Close()
	return loop.start(l, client, backend)
}

func (p *Proxy) unwrap(conn net.Conn) net.Conn {
	if p.Unwrap == nil {
		return conn
	}
	return p.Unwrap(conn)
}

// ahead returns what a wrapper has read of plain and nobody of the wrapper.
func ahead(wrapper, plain net.Conn) (b []byte) {
	if wrapper == plain {
		return nil
	}
	wrapper.SetReadDeadline(past)
	plain.SetReadDeadline(past) // in case that the wrapper keeps its own to itself
	for buf := make([]byte, 4<<10); ; {
		n, err := wrapper.Read(buf)
		b = append(b, buf[:n]...)
		if err != nil { // another one than the deadline's comes again
			return b
		}
	}
}

// least counts a tunnel in at the loop that has the fewest, of as many as GOMAXPROCS
// is now. If that was more, the tunnels of the other loops stay there to their end.
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

// retire lets l go if it has no tunnels; none comes to it any more then.
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
