package upgrade

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
)

// Tunnel is an upgraded connection from a client to a backend. From
// [Proxy.Connect] to Serve it is the backend's half only. All methods but
// Response may be called concurrently.
type Tunnel struct {
	proxy *Proxy

	// Under the proxy's mu:
	prev, next *Tunnel
	began      time.Duration // since the proxy's epoch
	ageJitter  float32       // the part of a tenth that MaxAge is shorter by
	watched    bool          // it is served, and look has not closed it

	ended   bool // or never served; as from here on under mu
	mu      sync.Mutex
	opts    ConnectOptions // as they are once it is served, except for Closed
	opening *opening       // until Serve
	engine  engine         // from Serve on
	summary *Summary       // once both connections are closed
}

// opening is the backend's half of a tunnel. There may be many tunnels that are
// served and idle: they don't keep it.
type opening struct {
	res     *http.Response
	backend net.Conn
	early   []byte        // what came behind the 101
	ready   chan struct{} // closed by Serve or the end, if somebody waits for that
}

// Response returns the backend's 101. Its Header may be changed until Serve,
// which drops it. Its Request is the one given to Connect.
func (t *Tunnel) Response() *http.Response {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.opening == nil {
		return nil
	}
	return t.opening.res
}

// SetClient sets [ConnectOptions].Key and Turn, for who learns them from the backend's
// answer. It may be called until Serve; later it does nothing.
func (t *Tunnel) SetClient(key string, turn float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.engine == nil {
		t.opts.Key, t.opts.Turn = key, turn
	}
}

// Key returns the key given at Connect or SetClient.
func (t *Tunnel) Key() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.opts.Key
}

// Group returns the group given at Connect.
func (t *Tunnel) Group() string { return t.opts.Group }

// Serve takes the client's connection over from w, answers with the 101 and
// returns as soon as the engine has both connections; the handler should return
// then. The answer has the fields of w.Header and behind them those of
// Response().Header, which alone may speak of Sec-WebSocket-* and whose
// Set-Cookie fields come first.
//
// What the client sent behind its handshake arrives at the backend first, and
// what the backend sent behind its 101 at the client. On an error nothing was
// written to the client, the backend's connection is closed and ConnectOptions.Closed
// has been called; the error wraps that of Hijack, or [ErrClosed].
func (t *Tunnel) Serve(w http.ResponseWriter) error {
	t.mu.Lock()
	if t.ended || t.engine != nil {
		t.mu.Unlock()
		return fmt.Errorf("upgrade: serve: %w", ErrClosed)
	}
	o := t.opening
	err := t.start(w, o)
	t.ended = err != nil
	o.wake()
	t.mu.Unlock()
	if err != nil {
		o.backend.Close()
		t.end(Summary{By: SideGateway, Err: err})
		return fmt.Errorf("upgrade: serve: %w", err)
	}
	t.proxy.watch(t)
	return nil
}

// start takes the client's connection and hands both to the engine. t.mu is held.
func (t *Tunnel) start(w http.ResponseWriter, o *opening) error {
	if t.proxy.closed.Load() {
		return ErrClosed
	}
	client, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	client.SetDeadline(time.Time{}) // those of http.Server, where Hijack left them

	t.engine = t.proxy.startEngine(link{
		client: client, backend: o.backend, head: head(w.Header(), o.res.Header),
		toClient: o.early, toBackend: buffered(rw.Reader),
		websocket: isWebSocket(o.res.Header.Get("Upgrade")), tunnel: t,
	})
	t.opening = nil
	t.opts.Key = strings.Clone(t.opts.Key) // which may be cut from something big
	return nil
}

// head returns the 101 for the client.
func head(own, backend http.Header) []byte {
	h := own.Clone()
	if h == nil {
		h = make(http.Header)
	}
	removeHop(h)
	for name := range h {
		if strings.HasPrefix(name, "Sec-Websocket-") {
			delete(h, name)
		}
	}
	protocol := backend.Get("Upgrade")
	backend = backend.Clone()
	removeHop(backend)
	for name, values := range backend {
		if name == "Set-Cookie" { // some clients read only the first: the application's
			h[name] = append(values, h[name]...)
			continue
		}
		h[name] = append(h[name], values...)
	}
	setUpgrade(h, protocol)
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	h.Write(&b)
	b.WriteString("\r\n")
	return b.Bytes()
}

// Close ends the tunnel: each end gets a close frame (RFC 6455, section 5.5.1)
// between two frames; one that is in the middle of a frame gets it behind that
// frame, or none if it doesn't end within a second. What the ends still send is
// read for another second at most, so that the close frame isn't lost, and both
// connections are closed. Other protocols than WebSocket get no frame. The
// reason is cut to 123 bytes; a code that may not be on the wire sends none.
//
// Close returns at once; ConnectOptions.Closed tells when it is done. Only the first
// Close counts. On a tunnel that isn't served yet it closes the backend's
// connection, and Serve returns [ErrClosed].
func (t *Tunnel) Close(code int, reason string) {
	t.mu.Lock()
	engine, ended := t.engine, t.ended
	o := t.opening
	if engine == nil {
		t.ended = true
		o.wake()
	}
	t.mu.Unlock()
	if engine != nil {
		engine.close(code, reason)
	} else if !ended {
		o.backend.Close()
		t.end(Summary{By: SideGateway, Code: code, Reason: reason})
	}
}

// cut closes both connections now.
func (t *Tunnel) cut() {
	t.mu.Lock()
	engine := t.engine
	t.mu.Unlock()
	if engine != nil {
		engine.cut()
	} else {
		t.Close(closecode.ServiceRestart, "")
	}
}

// end is called once, when both connections are closed.
func (t *Tunnel) end(s Summary) {
	s.Duration = t.proxy.forget(t)
	t.mu.Lock()
	t.ended, t.summary = true, &s
	closed := t.opts.Closed
	t.mu.Unlock()
	if closed != nil {
		closed(s)
	}
	t.proxy.remove()
}

// OnClosed has f called when both connections are closed, behind ConnectOptions.Closed
// and what OnClosed was given before, or at once if they are. The engine waits for
// it, so it should not block.
func (t *Tunnel) OnClosed(f func(Summary)) {
	t.mu.Lock()
	summary := t.summary
	if before := t.opts.Closed; before == nil {
		t.opts.Closed = f
	} else {
		t.opts.Closed = func(s Summary) { before(s); f(s) }
	}
	t.mu.Unlock()
	if summary != nil {
		f(*summary)
	}
}

// Summary tells how a tunnel went.
type Summary struct {
	By     Side   // who ended it
	Code   int    // of the first close frame, passed or the gateway's own; 1005 if it had none, 0 if there was no frame
	Reason string // the gateway's reason; not what an end wrote into its close frame
	Err    error  // what broke the tunnel; nil if a close frame or Close ended it

	ToClient, ToBackend                 int64 // bytes behind the handshake
	MessagesToClient, MessagesToBackend int64 // whole messages of a WebSocket, those of Send too; control frames not counted
	Duration                            time.Duration
}

// Side is one of the three that can end a tunnel.
type Side uint8

// The sides of a tunnel.
const (
	SideGateway Side = iota
	SideClient
	SideBackend
)

// String returns "gateway", "client" or "backend".
func (s Side) String() string {
	switch s {
	case SideClient:
		return "client"
	case SideBackend:
		return "backend"
	}
	return "gateway"
}
