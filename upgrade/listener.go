package upgrade

import (
	"crypto/tls"
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
// The gateway of package middleware has one by itself where its Serve serves TLS. Below TLS
// a Listener changes nothing else: until a tunnel is served its connections do what those
// of the listener below do. But [crypto/tls.Conn.NetConn] returns a connection of this
// package, and no *net.TCPConn: that is what a method NetConn of it returns in turn.
//
// Elsewhere it is of no use. Without TLS tunnels run on event loops as they are, and
// [net/http] loses what it does with a *net.TCPConn only: it finds another connection in
// ConnContext, sends no file by sendfile, and doesn't shut down the writing before it closes
// a connection. Above TLS a Listener returns each *tls.Conn as it is, and its tunnel runs on
// no event loop.
type Listener struct {
	net.Listener
}

// Accept implements [net.Listener].
func (l Listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	switch conn.(type) {
	case *switchable.Conn, *tls.Conn: // of a Listener below, or of TLS, which net/http has to see
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
