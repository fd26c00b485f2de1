package upgrade

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
	"github.com/limpet-go/limpet/internal/switchable"
	"github.com/limpet-go/limpet/internal/within"
)

// Connect asks a backend for the upgrade that out asks for. out is the request as the
// backend should get it, as for an [http.RoundTripper]: with URL, Host and end-to-end
// header fields. Connect doesn't change out. In what it sends it removes hop-by-hop
// fields and asks for one protocol, the one that [Proxy.Protocol] returns. out must
// not have a body.
//
// The end of out's context ends the dialling and the handshake at any moment. It has
// no effect on the tunnel. [Proxy].HandshakeTimeout limits how long the backend may
// take to answer, and Dial limits the dialling.
//
// The error is a [*HandshakeError] if the backend gave an answer other than 101. Otherwise
// it wraps [ErrBadRequest], [ErrClosed], the error of Dial, the cause of the context's end,
// or [os.ErrDeadlineExceeded] if the backend took too long. It is an error too if the 101
// is for another protocol or has a wrong Sec-WebSocket-Accept, if a field of p is wrong
// (see [Proxy.Validate]), and if Turn is not in [0,1).
//
// The tunnel that Connect returns must be served or closed.
func (p *Proxy) Connect(out *http.Request, opts ConnectOptions) (t *Tunnel, err error) {
	if !p.begin() {
		return nil, fmt.Errorf("upgrade: connect: %w", ErrClosed)
	}
	defer func() {
		if t == nil { // also if Dial has panicked
			p.remove()
		}
	}()
	return p.connect(out, opts)
}

func (p *Proxy) connect(out *http.Request, opts ConnectOptions) (*Tunnel, error) {
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
	conn.SetDeadline(time.Now().Add(cmp.Or(p.HandshakeTimeout, 10*time.Second)))
	interrupt := func() { conn.SetDeadline(past) }
	stop := context.AfterFunc(ctx, interrupt)
	res, early, err := exchange(conn, req)
	if err == nil && res.StatusCode != http.StatusSwitchingProtocols {
		if stop() { // the time limit ends with the header
			conn.SetDeadline(time.Time{})
			stop = context.AfterFunc(ctx, interrupt)
		}
		res.Request = out
		res.Body = &refusal{ReadCloser: res.Body, conn: conn, ctx: ctx, stop: stop}
		return nil, &HandshakeError{Response: res}
	}
	if err == nil {
		err = verify(res, req)
	}
	// After stop the context can't reach the connection any more. If stop came too
	// late, the deadline may be set at any moment, and the tunnel can't be used.
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("upgrade: handshake with %s: %w", out.URL.Host, err)
	}
	conn.SetDeadline(time.Time{})

	res.Request = out
	keepUpgrade(res.Header, req.Header.Get("Upgrade"))
	t := &Tunnel{proxy: p, opts: opts, opening: &opening{res: res, backend: conn, early: early}}
	if !p.add(t) {
		conn.Close()
		return nil, fmt.Errorf("upgrade: connect: %w", ErrClosed)
	}
	return t, nil
}

// past is a deadline that interrupts reads and writes at once.
var past = time.Unix(1, 0)

// dialURL is the default of [Proxy].Dial.
func dialURL(ctx context.Context, out *http.Request) (net.Conn, error) {
	limited, cancel := within.Deadline(ctx, time.Now().Add(10*time.Second))
	defer cancel()
	switch out.URL.Scheme {
	case "http", "ws":
		return sockets.Dial(limited, &net.Dialer{}, "tcp", hostPort(out.URL, "80"))
	case "https", "wss":
		conn, err := sockets.Dial(limited, &net.Dialer{}, "tcp", hostPort(out.URL, "443"))
		if err != nil {
			return nil, err
		}
		return secure(ctx, conn, &tls.Config{NextProtos: []string{"http/1.1"}, ServerName: out.URL.Hostname()})
	}
	return nil, fmt.Errorf("scheme %q is not one of http, https, ws, wss", out.URL.Scheme)
}

// secure has a connection to a backend secured, in such a way that a tunnel can run on an
// event loop. Like the dialling, the handshake may take 10 seconds.
func secure(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	secured := tls.Client(switchable.New(conn), config)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// hostPort returns the address of u, with port if u has none.
func hostPort(u *url.URL, port string) string {
	if p := u.Port(); p != "" {
		port = p
	}
	return net.JoinHostPort(u.Hostname(), port)
}
