package upgrade

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
	"github.com/limpet-go/limpet/internal/switchable"
)

// A Listener makes connections, and tunnels above all, cheaper on Linux. It belongs directly
// above a *net.TCPListener or *net.UnixListener, below TLS and all else:
//
//	server.Serve(&upgrade.Listener{Listener: l})
//	server.ServeTLS(&upgrade.Listener{Listener: l}, cert, key)
//	tls.NewListener(&upgrade.Listener{Listener: l}, config)
//
// The Serve of package middleware's gateway has one by itself.
//
// The connections of a Listener need fewer system calls than those of package net, and a
// tunnel takes their sockets over as they are. Tunnels whose clients come over TLS run on
// event loops only if there is a Listener below (see the package's documentation).
//
// Its connections have the addresses, errors and socket options of those of the listener
// below, but are of another type than *net.TCPConn: ConnContext of [net/http.Server] gets
// that, [crypto/tls.Conn.NetConn] returns it, and [net.Buffers.WriteTo] writes one buffer after
// the other. They have a method CloseWrite, and a method NetConn that returns the socket itself,
// a [syscall.Conn]. One that nobody closes stays open.
//
// Above another listener, and on other systems, a Listener only lets tunnels with TLS run on
// event loops, if there are such. NetConn of a connection then returns that of the listener
// below. Above TLS a Listener returns each *tls.Conn as it is, and its tunnel runs on no event
// loop.
//
// A Listener must not be copied. Whoever closes the listener below instead has a call of
// Accept return within a second.
type Listener struct {
	net.Listener

	once  sync.Once
	lower net.Listener // that which takes the place of the one below
}

// below returns the listener that accepts the connections.
func (l *Listener) below() net.Listener {
	l.once.Do(func() { l.lower = sockets.Listen(l.Listener) })
	return l.lower
}

// Accept implements [net.Listener].
func (l *Listener) Accept() (net.Conn, error) {
	conn, err := l.below().Accept()
	if err != nil {
		return nil, err
	}
	switch conn.(type) {
	case *switchable.Conn, *tls.Conn: // of a Listener below, or of TLS, which net/http has to see
		return conn, nil
	}
	return switchable.New(conn), nil
}

// Close implements [net.Listener].
func (l *Listener) Close() error { return l.below().Close() }

// SetDeadline sets the time at which Accept gives up. It returns an error that wraps
// [errors.ErrUnsupported] if the listener below has no deadlines.
func (l *Listener) SetDeadline(t time.Time) error {
	if d, ok := l.below().(interface{ SetDeadline(time.Time) error }); ok {
		return d.SetDeadline(t)
	}
	return fmt.Errorf("upgrade: deadline of %T: %w", l.Listener, errors.ErrUnsupported)
}
