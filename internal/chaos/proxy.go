//go:build unix

package chaos

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"
)

// A faultKind is something that is done to a backend, to a gateway's link to it, or to a
// gateway.
type faultKind string

const (
	faultRefuse faultKind = "refuse" // new connections are refused, old ones go on
	faultReset  faultKind = "reset"  // all connections are reset, and new ones at once
	faultHole   faultKind = "hole"   // nothing comes through, new connections are accepted
	faultSilent faultKind = "silent" // new connections are accepted and silent, old ones go on
	faultDelay  faultKind = "delay"  // what a backend sends comes late
	faultHalf   faultKind = "half"   // the backend's side of all connections is shut down, once
	faultCut    faultKind = "cut"    // connections end within what a backend sends, once
	faultPicky  faultKind = "picky"  // requests are reset, only health checks are answered
)

// delayTime is how late what a backend sends comes at faultDelay.
const delayTime = 150 * time.Millisecond

// A link is the way from one gateway to one backend: a TCP proxy that can fail in the
// ways of a network.
type link struct {
	addr string

	mu       sync.Mutex
	target   string        // "": nobody is there
	fault    faultKind     // "": none
	change   chan struct{} // closed at a change of fault, and replaced
	listener net.Listener  // nil while connections are refused
	pipes    map[*pipe]bool
	done     sync.WaitGroup
}

// newLink returns a link that refuses connections.
func newLink() (*link, error) {
	l, err := listenLoopback()
	if err != nil {
		return nil, err
	}
	l.Close()
	return &link{addr: l.Addr().String(), change: make(chan struct{}), pipes: make(map[*pipe]bool)}, nil
}

// listenLoopback listens on a port below those that systems hand out by themselves, so
// that nobody takes it while it is closed.
func listenLoopback() (l net.Listener, err error) {
	for range 100 {
		if l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(10_000+rand.IntN(20_000))); err == nil {
			return l, nil
		}
	}
	return nil, err
}

// set makes the link lead to target, "" for nobody, with a fault, "" for none.
func (l *link) set(target string, fault faultKind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target, l.fault = target, fault
	close(l.change)
	l.change = make(chan struct{})
	open := target != "" && fault != faultRefuse
	switch {
	case !open && l.listener != nil:
		l.listener.Close()
		l.listener = nil
	case open && l.listener == nil:
		l.listen()
	}
	for p := range l.pipes {
		switch fault {
		case faultReset:
			p.reset()
		case faultHalf:
			p.half()
		}
	}
}

// listen starts to accept connections. l.mu is held.
func (l *link) listen() {
	for range 100 {
		listener, err := net.Listen("tcp", l.addr)
		if err == nil {
			l.listener = listener
			l.done.Go(func() { l.accept(listener) })
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	panic("chaos: somebody has taken the port of " + l.addr)
}

// setFault sets the fault alone.
func (l *link) setFault(fault faultKind) { l.set(l.to(), fault) }

func (l *link) to() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.target
}

// state returns the fault and what is closed when it changes.
func (l *link) state() (faultKind, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault, l.change
}

// close ends the link and all of its connections.
func (l *link) close() {
	l.set("", faultReset)
	l.done.Wait()
}

func (l *link) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		l.done.Go(func() { l.serve(conn.(*net.TCPConn)) })
	}
}

// serve passes one connection through.
func (l *link) serve(client *net.TCPConn) {
	defer client.Close()
	for { // a connection that is accepted and silent goes on when the fault is over
		fault, change := l.state()
		if fault != faultSilent {
			break
		}
		<-change
	}
	conn, err := net.Dial("tcp", l.to())
	if err != nil {
		client.SetLinger(0)
		return
	}
	backend := conn.(*net.TCPConn)
	defer backend.Close()
	p := &pipe{link: l, client: client, backend: backend}
	l.mu.Lock()
	if l.fault == faultReset {
		l.mu.Unlock()
		client.SetLinger(0)
		return
	}
	l.pipes[p] = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.pipes, p)
		l.mu.Unlock()
	}()
	var both sync.WaitGroup
	both.Go(func() { p.pump(backend, client, false) })
	both.Go(func() { p.pump(client, backend, true) })
	both.Wait()
}

// A pipe is a connection that passes through a link.
type pipe struct {
	link            *link
	client, backend *net.TCPConn // client is the gateway
}

// reset breaks the connection towards both ends.
func (p *pipe) reset() {
	p.client.SetLinger(0)
	p.backend.SetLinger(0)
	p.client.Close()
	p.backend.Close()
}

// half ends what the backend sends.
func (p *pipe) half() { p.client.CloseWrite() }

// pump passes on what one side sends until that ends. The end is passed on as it came: in
// order or as a reset.
func (p *pipe) pump(dst, src *net.TCPConn, toClient bool) {
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 && !p.pass(dst, buf[:n], toClient) {
			p.reset()
			return
		}
		if err == io.EOF {
			dst.CloseWrite()
			return
		}
		if err != nil {
			p.reset()
			return
		}
	}
}

// pass writes b to dst as the link's fault says, and reports whether the connection lives.
func (p *pipe) pass(dst *net.TCPConn, b []byte, toClient bool) bool {
	for {
		fault, change := p.link.state()
		switch {
		case fault == faultHole:
			<-change
			continue
		case fault == faultDelay && toClient:
			time.Sleep(delayTime)
		case fault == faultCut && toClient && len(b) > 1 && !health(b):
			dst.Write(b[:len(b)/2])
			p.client.CloseWrite()
			time.Sleep(20 * time.Millisecond) // a reset would overtake the bytes
			return false
		case fault == faultPicky && !toClient && !health(b):
			return false
		}
		_, err := dst.Write(b)
		return err == nil
	}
}

// health tells whether b is a health check, or looks like its answer: a HEAD has no body.
func health(b []byte) bool {
	return bytes.HasPrefix(b, []byte("HEAD ")) ||
		bytes.HasPrefix(b, []byte("HTTP/")) && bytes.HasSuffix(b, []byte("\r\n\r\n")) && !bytes.Contains(b, []byte(" 101 "))
}
