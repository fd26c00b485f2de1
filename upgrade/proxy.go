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

// A Proxy connects clients to backends and keeps their tunnels. The zero value is
// ready to use. The fields must not change once it is in use. All methods may be
// called concurrently. [http.Server.Shutdown] doesn't know about tunnels: call
// [Proxy.Shutdown] too.
type Proxy struct {
	// Dial opens the connection to the backend of out, including TLS if there is any.
	// It must not change out. nil dials out.URL: by TCP, and with TLS for https and wss.
	Dial func(ctx context.Context, out *http.Request) (net.Conn, error)

	// Protocols are those that may be upgraded to beside "websocket", by their name in
	// the Upgrade field. "h2c" is refused even if it is named: it would carry requests
	// that nobody checks. Frames are tracked for "websocket" only.
	Protocols []string

	// Unwrap returns the connection below a wrapper that passes all bytes on
	// unchanged, and any other connection as it is. nil unwraps nothing. On Linux a
	// plain TCP or Unix connection costs far less than one that is hidden in a
	// wrapper.
	//
	// Unwrap is called once for each end of a tunnel. The end of a client that came over TLS
	// through a Listener is the connection below that. If an event loop can carry what Unwrap
	// returns, the wrapper is read until a deadline in the past stops that, to get the bytes
	// that it has read ahead. Then the wrapper is closed, long before the tunnel ends.
	Unwrap func(conn net.Conn) net.Conn

	// HandshakeTimeout is how long a backend may take to answer a handshake, once it
	// was dialled. A backend may accept connections and never answer. 0 means 10 s;
	// time for more can be given to backends that decide about a client at length.
	HandshakeTimeout time.Duration

	// IdleTimeout ends a tunnel with 1001 (Going Away) when no byte has come from
	// either end for that long. 0 means never.
	IdleTimeout time.Duration

	// StallTimeout ends a tunnel with 1013 (Try Again Later) when its client has taken no
	// byte for that long while some wait for it. Until then they fill the buffers of the
	// gateway and the sockets, and then the backend has to keep what it sends. The close
	// frame stands behind the bytes that wait, so such a client most often sees the end of
	// the connection only. On an event loop each byte that the client's socket takes counts,
	// otherwise each 32 KiB. 0 means never. A time below some seconds ends tunnels of clients
	// whose network pauses.
	StallTimeout time.Duration

	// MaxAge ends a tunnel with 1012 (Service Restart) when it is that old, or up to a
	// tenth earlier, at random, so that tunnels that were opened together don't end
	// together. They are closed as by [Tunnel.CloseGracefully]. 0 means never.
	MaxAge time.Duration

	// MessageLimit ends a WebSocket with 1009 (Message Too Big) before a longer
	// message passes in either direction. It counts bytes as they are on the wire. 0
	// means no limit, and then whatever the ends send passes.
	//
	// With a limit nothing passes that can't be counted. A frame that breaks the
	// protocol (RFC 6455, section 5.2) ends the tunnel with 1002 (Protocol Error), and
	// what an end sends behind its close frame is dropped. Only when a header arrives
	// in pieces, the first pieces may have passed before it is known to be bad; then
	// no close frame can follow in that direction. Protocols other than WebSocket have
	// no messages to limit.
	MessageLimit int64

	// MessageRate ends a WebSocket with 1008 (Policy Violation) when its client sends more
	// messages a second than that. Control frames such as pings count, and each fragment
	// of a message. 0 means no limit. With a rate nothing of the client passes that can't
	// be counted, as with a MessageLimit.
	MessageRate int

	// MessageBurst is how many messages may come at once. 0 means those of 10 seconds: when
	// a network or a backend has paused, all that a client has sent meanwhile comes at
	// once, and such a client must not lose its tunnel.
	MessageBurst int

	// NoEventLoop gives each tunnel two goroutines on Linux too, which costs ten times
	// the memory of an idle tunnel. Use it on systems where epoll or the loops' system
	// calls don't work as they should (see the package's documentation), for profiles
	// that show each tunnel, and to find out whether the loops cause a problem.
	NoEventLoop bool

	loops loops

	mu      sync.Mutex
	epoch   time.Time        // all times are counted from here, see now
	next    time.Duration    // the earliest time at which the next tunnel can begin, so that no two begin at the same time
	adopted time.Duration    // number of calls of adopt
	first   *Tunnel          // of a list of all tunnels between Connect and their end
	open    int              // number of calls of Connect under way and of tunnels, including those whose Closed is running
	drains  map[string]drain // by group
	all     *drain           // of all groups, nil if there is none
	timer   *time.Timer      // calls closeDue
	alarm   time.Duration    // when the timer fires, 0 if it isn't set
	gone    chan struct{}    // made by Shutdown, closed when no tunnel is left

	closed bool // Shutdown has begun: no Connect begins
	over   bool // Shutdown has cut the tunnels that were left: no Connect succeeds
}

// Validate returns an error if a limit is negative or a time below a millisecond, or if Protocols has an entry that
// no Upgrade field can name. Connect fails with the same error; a gateway calls
// Validate in its constructor to fail earlier.
func (p *Proxy) Validate() error {
	switch {
	case tiny(p.HandshakeTimeout):
		return fmt.Errorf("upgrade: HandshakeTimeout is %v: a number without a unit counts nanoseconds; want 10*time.Second, say, or 0 for that", p.HandshakeTimeout)
	case p.HandshakeTimeout < 0:
		return fmt.Errorf("upgrade: HandshakeTimeout %v is negative; 0 means 10 s", p.HandshakeTimeout)
	case tiny(p.IdleTimeout):
		return fmt.Errorf("upgrade: IdleTimeout is %v: a number without a unit counts nanoseconds; want 30*time.Minute, say, or 0 for never", p.IdleTimeout)
	case tiny(p.StallTimeout):
		return fmt.Errorf("upgrade: StallTimeout is %v: a number without a unit counts nanoseconds; want 30*time.Second, say, or 0 for never", p.StallTimeout)
	case p.StallTimeout < 0:
		return fmt.Errorf("upgrade: StallTimeout %v is negative; 0 means never", p.StallTimeout)
	case tiny(p.MaxAge):
		return fmt.Errorf("upgrade: MaxAge is %v: a number without a unit counts nanoseconds; want 12*time.Hour, say, or 0 for never", p.MaxAge)
	case p.IdleTimeout < 0:
		return fmt.Errorf("upgrade: IdleTimeout %v is negative; 0 means never", p.IdleTimeout)
	case p.MaxAge < 0:
		return fmt.Errorf("upgrade: MaxAge %v is negative; 0 means never", p.MaxAge)
	case p.MessageLimit < 0:
		return fmt.Errorf("upgrade: MessageLimit %d is negative; 0 means no limit", p.MessageLimit)
	case p.MessageRate < 0, p.MessageBurst < 0:
		return fmt.Errorf("upgrade: MessageRate %d or MessageBurst %d is negative; 0 means no limit, and a burst of 10 seconds", p.MessageRate, p.MessageBurst)
	case p.MessageRate > 1e6, p.MessageBurst > 1e9:
		return fmt.Errorf("upgrade: MessageRate %d with MessageBurst %d is no limit: want up to 1,000,000 messages a second, or 0 for no limit", p.MessageRate, p.MessageBurst)
	case p.MessageBurst > 0 && p.MessageRate == 0:
		return fmt.Errorf("upgrade: MessageBurst is %d, but there is no MessageRate", p.MessageBurst)
	}
	for _, name := range p.Protocols {
		if name == "" || strings.ContainsAny(name, " \t,") {
			return fmt.Errorf("upgrade: Protocols has %q: want one protocol in each entry, as \"websocket\" is one", name)
		}
	}
	return nil
}

// tiny reports whether d is so short that its unit must have been forgotten.
func tiny(d time.Duration) bool { return 0 < d && d < time.Millisecond }

// ConnectOptions tell [Proxy.Connect] about one tunnel.
type ConnectOptions struct {
	// Group is the name by which [Proxy.CloseGroup] and [Proxy.DrainGroup] find the
	// tunnel. The gateway of package middleware uses the backend's ID.
	Group string

	// Key tells the client apart from others. The tunnel only keeps it, for callers
	// that look for a client's tunnels among [Proxy.Tunnels].
	Key string

	// Turn, in [0,1), is this tunnel's moment when [Proxy.DrainGroup] or
	// [Proxy.Shutdown] spread the closing of tunnels over a time.
	Turn float64

	// Heard, if not nil, counts the reads that have brought bytes which the backend may have
	// just sent: not those that had to wait for a client that reads too slowly. The tunnels
	// of one backend may share it, as Heard of balancer.Backend.
	Heard *atomic.Int64

	// Closed, if not nil, is called once when both connections are closed. It is
	// called too if Serve failed or was never called, but not if Connect failed. The
	// engine waits for it, so it should not block.
	Closed func(Summary)
}

// ErrClosed is wrapped by the errors of [Proxy.Connect] after [Proxy.Shutdown], of
// [Tunnel.Serve] on a tunnel that was closed before, and of [Tunnel.Send] on a tunnel
// that is ending.
var ErrClosed = errors.New("closed")

// ErrBadRequest is wrapped by the error of [Proxy.Connect] if the request is no
// handshake that may pass. No backend was dialled for it. The client should get a 400.
var ErrBadRequest = errors.New("bad upgrade request")
