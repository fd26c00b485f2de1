package upgrade

import (
	"errors"
	"net/http"
	"time"
)

// HandshakeError is the error of [Proxy.Connect] when the backend gave an answer
// of its own instead of 101. The answer's body is still to be read from the
// connection, and must be closed, which closes the connection.
type HandshakeError struct {
	Response *http.Response
}

func (e *HandshakeError) Error() string {
	return "upgrade: the backend answered " + e.Response.Status
}

// Tunnel is an upgraded connection from a client to a backend.
type Tunnel struct {
	opts Options
}

// Response returns the backend's 101. Its Header may be changed before Serve.
func (t *Tunnel) Response() *http.Response { return nil }

// Group returns the group given at Connect.
func (t *Tunnel) Group() string { return t.opts.Group }

// Serve answers the client with the 101 and hands both connections to the engine.
func (t *Tunnel) Serve(w http.ResponseWriter) error { return errors.ErrUnsupported }

// Close sends a close frame to both ends and closes the tunnel.
func (t *Tunnel) Close(code int, reason string) {}

// Side is one of the three that can end a tunnel.
type Side uint8

// The sides of a tunnel.
const (
	Gateway Side = iota
	Client
	Backend
)

// String returns "gateway", "client" or "backend".
func (s Side) String() string { return [...]string{"gateway", "client", "backend"}[s] }

// Summary tells how a tunnel went.
type Summary struct {
	By     Side   // who ended it
	Code   int    // the code of the first close frame that passed or was due, 1005 if it had none, 0 without one
	Reason string // the gateway's reason; not what a peer wrote into its close frame
	Err    error  // what broke the tunnel, nil if it ended in order

	ToClient, ToBackend                 int64 // bytes behind the handshake
	MessagesToClient, MessagesToBackend int64 // whole data messages, for WebSocket
	Duration                            time.Duration
}
