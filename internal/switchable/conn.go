// Package switchable has a connection for below a [crypto/tls.Conn]. It can be taken away
// from under it, so that an event loop goes on with the socket itself.
package switchable

import (
	"errors"
	"io"
	"net"
	"time"
)

// A Conn passes everything on to another connection until Switch is called.
type Conn struct {
	net.Conn
	below io.ReadWriter // nil until Switch
}

// New returns a Conn above conn.
func New(conn net.Conn) *Conn { return &Conn{Conn: conn} }

// Switch has below read and written from now on. It forgets the connection, and neither
// closes nor changes it. Nobody may use c meanwhile.
func (c *Conn) Switch(below io.ReadWriter) { c.Conn, c.below = gone{}, below }

// NetConn returns the connection that c passes everything on to.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Read implements [net.Conn].
func (c *Conn) Read(b []byte) (int, error) {
	if c.below != nil {
		return c.below.Read(b)
	}
	return c.Conn.Read(b)
}

// Write implements [net.Conn].
func (c *Conn) Write(b []byte) (int, error) {
	if c.below != nil {
		return c.below.Write(b)
	}
	return c.Conn.Write(b)
}

// ReadFrom implements [io.ReaderFrom]. The connection that c passes everything on to may send a
// file by sendfile.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if from, ok := c.Conn.(io.ReaderFrom); ok && c.below == nil {
		return from.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c}, r)
}

// CloseWrite shuts down the writing of the connection that c passes everything on to, if that
// has such a method. [net/http] does that before it closes a connection.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Innermost returns the connection below conn and below all that its method NetConn leads
// to, such as TLS and a Conn; conn itself if it has none.
func Innermost(conn net.Conn) net.Conn {
	for {
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = outer.NetConn()
	}
}

// gone is the connection of a Conn that was switched. It takes deadlines, since a
// tls.Conn sets one when it writes close_notify.
type gone struct{}

func (gone) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (gone) Write([]byte) (int, error)        { return 0, net.ErrClosed }
func (gone) Close() error                     { return net.ErrClosed }
func (gone) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (gone) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (gone) SetDeadline(time.Time) error      { return nil }
func (gone) SetReadDeadline(time.Time) error  { return nil }
func (gone) SetWriteDeadline(time.Time) error { return nil }
