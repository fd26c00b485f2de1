package balancer

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// connect dials b and secures the connection if its URL is https.
func (t *Transport) connect(ctx context.Context, b *Backend) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(t.DialTimeout, 2*time.Second))
	defer cancel()
	dial := t.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	raw, err := dial(ctx, "tcp", b.addr)
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
	writes atomic.Int64 // that began and didn't fail whole; sealed: none may begin
}

const sealed = -1

// Write implements [net.Conn].
func (c *conn) Write(p []byte) (int, error) {
	for {
		n := c.writes.Load()
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
