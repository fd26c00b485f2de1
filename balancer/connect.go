package balancer

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/internal/switchable"
	"github.com/limpet-go/limpet/internal/within"
)

// connect opens a connection to b within DialTimeout, and secures it if the URL is
// https.
func (t *Transport) connect(ctx context.Context, b *Backend) (net.Conn, error) {
	began := time.Now()
	until := began.Add(cmp.Or(t.DialTimeout, 2*time.Second))
	if sooner, ok := ctx.Deadline(); !ok || sooner.After(until) {
		limited, cancel := within.Deadline(ctx, until)
		defer cancel()
		ctx = limited
	}
	conn, err := t.open(ctx, b)
	if err != nil {
		return nil, err
	}
	if b.url.Scheme == "https" {
		secured, err := handshake(ctx, conn, b, t.TLS)
		if err != nil {
			conn.Close()
			return nil, err
		}
		conn = secured
	}
	b.connects.note(time.Since(began))
	return conn, nil
}

// open dials b, and sends the header of the PROXY protocol if there is to be one.
func (t *Transport) open(ctx context.Context, b *Backend) (net.Conn, error) {
	dial := t.Dial
	if dial == nil {
		dial = (&Dialer{}).DialContext
	}
	conn, err := dial(ctx, b.network, b.addr)
	if err != nil {
		if b.network == "unix" && errors.Is(err, fs.ErrNotExist) {
			// A server that has stopped has often removed its socket.
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

// handshake secures a connection to b. It offers HTTP/1.1 only, since the caller speaks
// nothing else.
func handshake(ctx context.Context, raw net.Conn, b *Backend, config *tls.Config) (net.Conn, error) {
	if config == nil {
		config = &tls.Config{}
	}
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	config.ServerName = cmp.Or(config.ServerName, b.url.Hostname())
	if config.Renegotiation == tls.RenegotiateNever { // else crypto/tls waits within a read
		raw = switchable.New(raw) // so that a tunnel can run on an event loop
	}
	secured := tls.Client(raw, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake with %s: %w", b.addr, err)
	}
	return secured, nil
}
