package upgrade

import (
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
	"github.com/limpet-go/limpet/internal/httpfield"
	"github.com/limpet-go/limpet/internal/lull"
)

// A Tunnel is an upgraded connection from a client to a backend. Between
// [Proxy.Connect] and [Tunnel.Serve] it is the connection to the backend only. All
// methods but Response may be called concurrently.
type Tunnel struct {
	proxy *Proxy

	began time.Duration // counted from the proxy's epoch; set by Proxy.add or adopt, and unique

	// Guarded by proxy.mu:
	prev, next *Tunnel
	ageJitter  float32 // in [0,1): this part of a tenth of MaxAge is taken off it
	watched    bool    // it is served, and closeDue has not closed it

	ended   bool // the tunnel has ended, or can't be served any more; guarded by mu, as all below
	mu      sync.Mutex
	opts    ConnectOptions // Key and Turn may change until Serve, Closed until the end
	opening *opening       // nil from Serve on
	engine  engine         // nil until Serve
	summary *Summary       // nil until both connections are closed and Closed was called
}

// An opening is what a tunnel needs only until it is served: there may be many tunnels
// that are served and idle.
type opening struct {
	res     *http.Response
	backend net.Conn
	early   []byte        // what the backend sent directly behind its 101
	ready   chan struct{} // made by whoever waits for Serve, closed by Serve or the end
}

// Response returns the backend's 101, and nil once the tunnel is served. Its Header
// may be changed until [Tunnel.Serve]. Its Request is the one that was given to
// Connect.
func (t *Tunnel) Response() *http.Response {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.opening == nil {
		return nil
	}
	return t.opening.res
}

// SetClient sets Key and Turn of [ConnectOptions], for callers that learn them from
// the backend's answer. It may be called until [Tunnel.Serve]; later it does nothing.
func (t *Tunnel) SetClient(key string, turn float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.engine == nil {
		t.opts.Key, t.opts.Turn = key, turn
	}
}

// Key returns the key that was given to Connect or SetClient.
func (t *Tunnel) Key() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.opts.Key
}

// ID returns a name for the tunnel that no other tunnel of its Proxy has. It has some of
// the characters 0-9 and a-z.
func (t *Tunnel) ID() string { return strconv.FormatUint(uint64(t.began), 36) } // began may be negative: see adopt

// Began returns when Connect has got the backend's 101.
func (t *Tunnel) Began() time.Time {
	return t.proxy.epoch.Add(t.began) // neither changes after Connect
}

// Group returns the group that was given to Connect.
func (t *Tunnel) Group() string { return t.opts.Group }

// Serve takes the client's connection over from w, answers with the 101, and returns
// as soon as the engine has both connections. The handler should return then.
//
// The 101 has the fields of w.Header, followed by those of Response().Header. Fields
// whose names begin with Sec-WebSocket- are taken from the latter only, and its
// Set-Cookie fields come first.
//
// The first bytes that the backend gets are those that the client sent behind its
// handshake, and the first that the client gets are those that the backend sent behind
// its 101.
//
// On an error nothing was written to the client, the backend's connection is closed,
// and Closed of [ConnectOptions] has been called. The error wraps that of Hijack, or
// [ErrClosed].
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

// start takes the client's connection over and starts an engine. t.mu is held.
func (t *Tunnel) start(w http.ResponseWriter, o *opening) error {
	client, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	client.SetDeadline(time.Time{}) // http.Server's deadlines may still be set

	t.engine = t.proxy.startEngine(link{
		client: client, backend: o.backend, head: head(w.Header(), o.res.Header),
		toClient: o.early, toBackend: buffered(rw.Reader),
		websocket: isWebSocket(o.res.Header.Get("Upgrade")), tunnel: t,
	})
	t.opening = nil
	t.opts.Key = strings.Clone(t.opts.Key) // it may be a part of a long string
	return nil
}

// head returns the 101 for the client, of the gateway's own fields and the backend's.
func head(own, backend http.Header) []byte {
	names := append(make([]string, 0, 24), "Connection", "Upgrade")
	for name := range own {
		names = append(names, name)
	}
	for name := range backend {
		names = append(names, name)
	}
	slices.Sort(names)
	b := append(make([]byte, 0, 512), "HTTP/1.1 101 Switching Protocols\r\n"...) // mostly enough
	for _, name := range slices.Compact(names) {
		switch name {
		case "Connection":
			b = appendField(b, name, "Upgrade")
			continue
		case "Upgrade":
			b = appendField(b, name, backend.Get(name))
			continue
		}
		mine, theirs := own[name], backend[name]
		if isHop(own, name) || strings.HasPrefix(name, "Sec-Websocket-") {
			mine = nil
		}
		if isHop(backend, name) {
			theirs = nil
		}
		if name == "Set-Cookie" { // the application's go first: some clients read only one
			mine, theirs = theirs, mine
		}
		b = appendField(appendField(b, name, mine...), name, theirs...)
	}
	return append(b, "\r\n"...)
}

// appendField appends the lines of a field as [http.Header.Write] would write them: a line
// break in a value is a space, and a field with an invalid name is left out.
func appendField(b []byte, name string, values ...string) []byte {
	if !httpfield.IsToken(name) {
		return b
	}
	for _, value := range values {
		value = textproto.TrimString(lineBreaks.Replace(value))
		b = append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
	}
	return b
}

var lineBreaks = strings.NewReplacer("\r", " ", "\n", " ")

// Close ends the tunnel. Each end gets a close frame (RFC 6455, section 5.5.1) between
// two frames. While a frame is passing, its receiver gets the close frame behind that
// frame, or none if the frame doesn't end within a second. What the ends still send is
// read and dropped for another second at most, so that the close frame isn't lost, and
// then both connections are closed. Protocols other than WebSocket get no frame.
//
// The reason is cut to 123 bytes. A code that must not be sent (RFC 6455, section 7.4)
// gives a close frame without code and reason.
//
// Close returns at once; Closed of [ConnectOptions] is called when the tunnel has
// ended. Only the first Close counts. On a tunnel that isn't served yet it closes the
// backend's connection, and Serve returns [ErrClosed].
func (t *Tunnel) Close(code int, reason string) {
	t.close(code, reason, 0)
}

// CloseGracefully is Close at a moment at which none of the client's messages seems to wait
// for its answer, within a second. The gateway can't know which message answers which. It
// waits until the backend has sent a whole message behind the last one of the client, and
// the client has been silent for 0.4 s, since what the backend has sent need not have been
// the answer; or until the client's message is a second old. With a client that goes on
// sending at shorter intervals it waits for 0.3 s, and then for a message of the backend. A
// tunnel whose client has been silent for long is closed at once.
//
// So an answer that takes less than 0.3 s reaches the client, if the client pauses for 0.4 s
// now and then, or sends one message after the answer to the other. Not answered are
// messages that cross the close frame on their way, some with slower answers, and some of a
// client that sends without a pause, while others are answered.
//
// The backend gets its close frame when the client has answered the other one, and the
// answer in place of it, or after a second. Until then it gets what the client sends, which
// didn't know of the close yet, but its answers are dropped.
//
// A Close that comes meanwhile, and whatever else ends the tunnel, doesn't wait. Protocols
// other than WebSocket are closed at once.
func (t *Tunnel) CloseGracefully(code int, reason string) {
	t.close(code, reason, lull.Most)
}

func (t *Tunnel) close(code int, reason string, grace time.Duration) {
	t.mu.Lock()
	engine, ended := t.engine, t.ended
	o := t.opening
	if engine == nil {
		t.ended = true
		o.wake()
	}
	t.mu.Unlock()
	if engine != nil {
		engine.close(code, reason, grace)
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

// end reports how the tunnel ended. It is called once, when both connections are
// closed.
func (t *Tunnel) end(s Summary) {
	s.Duration = t.proxy.forget(t)
	for t.runClosed(s) {
	}
	t.proxy.remove()
}

// runClosed calls the functions that are to be called at the end of the tunnel. It reports
// whether there may be more, which were given to OnClosed meanwhile.
func (t *Tunnel) runClosed(s Summary) (more bool) {
	t.mu.Lock()
	t.ended = true
	closed := t.opts.Closed
	t.opts.Closed = nil
	if closed == nil {
		t.summary = &s // from now on OnClosed calls its function itself
	}
	t.mu.Unlock()
	if closed != nil {
		closed(s)
	}
	return closed != nil
}

// OnClosed has f called when both connections are closed, after Closed of
// [ConnectOptions] and after functions that OnClosed was given before. If the
// connections are closed already, it calls f at once. The engine waits for f, so f
// should not block.
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

// A Summary tells how a tunnel went.
type Summary struct {
	By     Side   // the side that ended it
	Code   int    // of the first close frame, whether it passed or is the gateway's own; 1005 if the frame held none, 0 if there was no frame
	Reason string // the gateway's reason, and empty for a close frame of an end
	Err    error  // what broke the tunnel; nil if a close frame or Close ended it

	ToClient, ToBackend                 int64 // bytes behind the handshake
	MessagesToClient, MessagesToBackend int64 // whole messages of a WebSocket, including those of Send, without control frames
	Duration                            time.Duration
}

// A Side is one of the three that can end a tunnel.
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
