package upgrade

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy connects clients to backends and keeps the tunnels. The zero value is
// ready; its fields may not change once it is in use. All methods may be called
// concurrently. [http.Server.Shutdown] knows nothing of tunnels: call Shutdown
// here too.
type Proxy struct {
	// Dial opens the connection to the backend of out, TLS done if there is
	// any. nil dials out.URL: TCP, and TLS for https and wss.
	Dial func(ctx context.Context, out *http.Request) (net.Conn, error)

	// Protocols may be upgraded to beside "websocket", by the name in the
	// Upgrade field. "h2c" is refused even if named: it would carry requests
	// that nobody checks. Frames are followed for "websocket" only.
	Protocols []string

	// Unwrap returns the connection below a wrapper that passes all bytes on as
	// they are, and any other connection as it is: on Linux a plain TCP or Unix
	// connection costs far less than what hides one. It is called once for each
	// end of a tunnel. If the engine can do with what it returns, the wrapper is
	// read until a deadline in the past stops that, for what it may have read
	// ahead, and closed then, long before the tunnel ends. nil unwraps nothing.
	Unwrap func(conn net.Conn) net.Conn

	// IdleTimeout ends a tunnel with 1001 (Going Away) when no byte has come
	// from either end for so long. 0: never.
	IdleTimeout time.Duration

	// MaxAge ends a tunnel with 1012 (Service Restart) after at most so long,
	// up to a tenth earlier by chance, so that tunnels opened together don't
	// end together. 0: never.
	MaxAge time.Duration

	// MessageLimit ends a WebSocket with 1009 (Message Too Big) before a message
	// of more bytes, counted as they are on the wire, passes in either
	// direction. With a limit nothing passes that can't be counted: a frame that
	// breaks the protocol (RFC 6455, section 5.2) ends the tunnel with 1002
	// (Protocol Error), and what an end sends behind its close frame is dropped.
	// Only pieces of a header that came by themselves have passed before its end
	// is known to be bad; then no close frame can follow in that direction. Other
	// protocols have no messages to limit. 0: no limit, and whatever the ends
	// send passes.
	MessageLimit int64

	// NoEventLoop gives each tunnel two goroutines on Linux too, which costs ten
	// times the memory of an idle one. It is for systems where epoll or the
	// system calls of the loops don't do as they should (see the package's
	// documentation), for profiles that show each tunnel, and to find out whether
	// the loops are to blame for something.
	NoEventLoop bool

	loops loops

	mu       sync.Mutex
	epoch    time.Time        // all times are since then; see now
	first    *Tunnel          // of a list of all, from Connect to the end
	open     int              // tunnels, those included whose end is still being told
	drains   map[string]drain // by group, what DrainGroup spreads
	shutdown *drain           // what Shutdown spreads
	timer    *time.Timer      // calls look
	alarm    time.Duration    // when it does so, 0 for not at all
	gone     chan struct{}    // made by Shutdown, closed when there are no tunnels left

	closed atomic.Bool // Shutdown has begun; set under mu
}

// Validate refuses negative limits and protocols that no Upgrade field can name.
// A gateway calls it in its constructor, and Connect fails with its error.
func (p *Proxy) Validate() error {
	switch {
	case p.IdleTimeout < 0:
		return fmt.Errorf("upgrade: IdleTimeout %v is negative; 0 means never", p.IdleTimeout)
	case p.MaxAge < 0:
		return fmt.Errorf("upgrade: MaxAge %v is negative; 0 means never", p.MaxAge)
	case p.MessageLimit < 0:
		return fmt.Errorf("upgrade: MessageLimit %d is negative; 0 means no limit", p.MessageLimit)
	}
	for _, name := range p.Protocols {
		if name == "" || strings.ContainsAny(name, " \t,") {
			return fmt.Errorf("upgrade: Protocols has %q: want one protocol in each entry, as \"websocket\" is one", name)
		}
	}
	return nil
}

// ConnectOptions tell [Proxy.Connect] about one tunnel.
type ConnectOptions struct {
	// Group is what [Proxy.DrainGroup] and [Proxy.CloseGroup] name; the gateway's is the backend.
	Group string

	// Key tells the client apart from others. The tunnel only keeps it, for
	// whom [Proxy.Tunnels] shall find it by its client.
	Key string

	// Turn in [0,1) is this tunnel's moment when DrainGroup or Shutdown spread
	// the closing over some time.
	Turn float64

	// Closed, if not nil, is called once when both connections are closed, also
	// if Serve failed or was never called; not if Connect failed. The engine
	// waits for it, so it should not block.
	Closed func(Summary)
}

// ErrClosed is wrapped by the errors of Connect after [Proxy.Shutdown], of Serve
// on a tunnel that was closed before and of Send on one that ends.
var ErrClosed = errors.New("closed")

// ErrBadRequest is wrapped by the error of Connect if the request is no
// handshake that may pass. No backend was dialled for it; the client is owed a 400.
var ErrBadRequest = errors.New("bad upgrade request")
