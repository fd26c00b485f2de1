package upgrade

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Connect asks the backend for the upgrade that out asks for. out is the request
// as it should arrive, as for an [http.RoundTripper]: URL, Host and end-to-end
// header fields. It is not changed. Connect removes hop-by-hop fields and asks
// for one protocol, as [Proxy.Protocol] says; a handshake has no body.
//
// out's context ends the dialling and the handshake at any moment, and has no
// hold over the tunnel. There is no time limit beside it.
//
// The error is a [*HandshakeError] if the backend gave another answer than 101,
// and wraps [ErrBadRequest], [ErrClosed], what Dial returned or the cause of the
// context's end. A 101 for another protocol or with a wrong Sec-WebSocket-Accept
// is an error too, and so are a wrong field, see [Proxy.Validate], and a Turn that
// isn't one.
//
// The tunnel returned must be served or closed.
func (p *Proxy) Connect(out *http.Request, opts ConnectOptions) (*Tunnel, error) {
	if p.closed.Load() {
		return nil, fmt.Errorf("upgrade: connect: %w", ErrClosed)
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if turn := opts.Turn; !(turn >= 0 && turn < 1) { // NaN too
		return nil, fmt.Errorf("upgrade: ConnectOptions.Turn is %v; want at least 0 and less than 1", turn)
	}
	req, err := p.handshake(out)
	if err != nil {
		return nil, err
	}
	ctx := out.Context()
	dial := p.Dial
	if dial == nil {
		dial = dialURL
	}
	conn, err := dial(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("upgrade: dial %s: %w", out.URL.Host, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(past) })
	res, early, err := exchange(conn, req)
	if err == nil && res.StatusCode != http.StatusSwitchingProtocols {
		res.Request = out
		res.Body = &refusal{ReadCloser: res.Body, conn: conn, ctx: ctx, stop: stop}
		return nil, &HandshakeError{Response: res}
	}
	if err == nil {
		err = verify(res, req)
	}
	// Once stopped, the context can't reach the connection any more; if it is too
	// late for that, the deadline may come at any moment and the tunnel is void.
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("upgrade: handshake with %s: %w", out.URL.Host, err)
	}
	conn.SetDeadline(time.Time{})

	res.Request = out
	removeHop(res.Header)
	setUpgrade(res.Header, req.Header.Get("Upgrade"))
	t := &Tunnel{proxy: p, opts: opts, opening: &opening{res: res, backend: conn, early: early}}
	if !p.add(t) {
		conn.Close()
		return nil, fmt.Errorf("upgrade: connect: %w", ErrClosed)
	}
	return t, nil
}

// past is a deadline that ends what is under way at once.
var past = time.Unix(1, 0)

// dialURL is the default of [Proxy.Dial].
func dialURL(ctx context.Context, out *http.Request) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	switch out.URL.Scheme {
	case "http", "ws":
		return dialer.DialContext(ctx, "tcp", hostPort(out.URL, "80"))
	case "https", "wss":
		secure := tls.Dialer{NetDialer: dialer, Config: &tls.Config{NextProtos: []string{"http/1.1"}}}
		return secure.DialContext(ctx, "tcp", hostPort(out.URL, "443"))
	}
	return nil, fmt.Errorf("scheme %q is not one of http, https, ws, wss", out.URL.Scheme)
}

func hostPort(u *url.URL, port string) string {
	if p := u.Port(); p != "" {
		port = p
	}
	return net.JoinHostPort(u.Hostname(), port)
}
