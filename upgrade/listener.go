package upgrade

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/limpet-go/limpet/internal/switchable"
)

// A Listener has tunnels whose clients come over TLS run on event loops (see the
// package's documentation). It belongs below TLS:
//
//	server.ServeTLS(upgrade.Listener{Listener: l}, cert, key)
//	tls.NewListener(upgrade.Listener{Listener: l}, config)
//
// The gateway of package middleware has one by itself where its Serve serves TLS. A
// Listener changes nothing else: until a tunnel is served its connections do what those
// of the listener below do. But [crypto/tls.Conn.NetConn] returns a connection of this
// package, and no *net.TCPConn: that is what a method NetConn of it returns in turn.
type Listener struct {
	net.Listener
}

// Accept implements [net.Listener].
func (l Listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if _, ok := conn.(*switchable.Conn); ok { // of a Listener below
		return conn, nil
	}
	return switchable.New(conn), nil
}

// SetDeadline sets the time at which Accept gives up. It returns an error that wraps
// [errors.ErrUnsupported] if the listener below has no deadlines.
func (l Listener) SetDeadline(t time.Time) error {
	if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		return d.SetDeadline(t)
	}
	return fmt.Errorf("upgrade: deadline of %T: %w", l.Listener, errors.ErrUnsupported)
}
