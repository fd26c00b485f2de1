package balancer

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// connect opens a connection to b and secures it if its URL is https.
func (t *Transport) connect(ctx context.Context, b *Backend) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(t.DialTimeout, 2*time.Second))
	defer cancel()
	raw, err := t.open(ctx, b)
	if err != nil || b.url.Scheme != "https" {
		return raw, err
	}
	secured, err := handshake(ctx, raw, b, t.TLS)
	if err != nil {
		raw.Close()
		return nil, err
	}
	return secured, nil
}

// open dials b and says who is calling if ProxyProtocol wants it.
func (t *Transport) open(ctx context.Context, b *Backend) (net.Conn, error) {
	if err := t.valid(); err != nil {
		return nil, err
	}
	dial := t.Dial
	if dial == nil {
		dial = (&Dialer{}).DialContext
	}
	conn, err := dial(ctx, b.network, b.addr)
	if err != nil {
		if b.network == "unix" && errors.Is(err, fs.ErrNotExist) {
			// A server that isn't there has often removed its socket.
			err = fmt.Errorf("%w, taken for %w", err, syscall.ECONNREFUSED)
		}
		return nil, err
	}
	if t.ProxyProtocol == 0 {
		return conn, nil
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetWriteDeadline(deadline)
	}
	if _, err = conn.Write(proxyHeader(ctx, t.ProxyProtocol)); err == nil {
		err = conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("PROXY header to %s: %w", b.addr, err)
	}
	return conn, nil
}

func (t *Transport) valid() error {
	if t.ProxyProtocol < 0 || t.ProxyProtocol > 2 {
		return fmt.Errorf("balancer: ProxyProtocol %d: want version 1 or 2, or 0 for none", t.ProxyProtocol)
	}
	return nil
}

// handshake secures a connection to b. HTTP/1.1 is all it offers: what follows
// speaks nothing else.
func handshake(ctx context.Context, raw net.Conn, b *Backend, config *tls.Config) (net.Conn, error) {
	if config == nil {
		config = &tls.Config{}
	}
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	config.ServerName = cmp.Or(config.ServerName, b.url.Hostname())
	secured := tls.Client(raw, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake with %s: %w", b.addr, err)
	}
	return secured, nil
}

// A conn knows whether bytes of the present request may have gone out on it.
type conn struct {
	net.Conn
	writes atomic.Int64         // that began and didn't fail whole; sealed: none may begin
	call   atomic.Pointer[call] // to be told when reading fails, or nil
	ended  atomic.Bool          // the backend has closed it
}

const sealed = -1

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		if err == io.EOF {
			c.ended.Store(true)
		}
		if call := c.call.Load(); call != nil {
			call.broke(err)
		}
	}
	return n, err
}

// Write implements [net.Conn].
func (c *conn) Write(p []byte) (int, error) {
	var before int64
	for {
		n := c.writes.Load()
		before = n
		if n == sealed || n == 0 && peerClosed(c.Conn) {
			return 0, net.ErrClosed
		}
		if c.writes.CompareAndSwap(n, n+1) {
			break
		}
	}
	n, err := c.Conn.Write(p)
	if n == 0 && err != nil {
		c.writes.Add(-1)
	}
	if before > 0 && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		// The backend wants no more of the body. What it said before that, an
		// answer as 413 perhaps, is still to be read, and if it said nothing
		// the reading tells.
		return len(p), nil
	}
	return n, err
}

// fresh begins a new request.
func (c *conn) fresh() { c.writes.Store(0) }

// seal ends a request that failed, and the connection with it. It reports
// whether surely no byte of the request was written, nor will be: net/http's
// writing goroutine may come late.
func (c *conn) seal() (unsent bool) {
	unsent = c.writes.CompareAndSwap(0, sealed)
	c.Close()
	return unsent
}

// CloseWrite ends one direction of an upgraded connection.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("balancer: half-close of a %T: %w", c.Conn, errors.ErrUnsupported)
}
