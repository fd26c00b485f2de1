package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"time"
)

// A Client sends requests to one origin and keeps connections to it. Its methods may
// be called concurrently.
type Client struct {
	origin Origin
	idle   *idleConns

	mu    sync.Mutex
	conns map[*conn]struct{} // all that are open, idle or in use; nil after End
}

// NewClient returns a client of o. The caller must call End once o.Life has ended.
func NewClient(o Origin) *Client {
	return &Client{origin: o, idle: newIdleConns(o.MaxIdle), conns: make(map[*conn]struct{})}
}

// End closes all connections, those in use too. It must not be called before the
// origin's life has ended, since requests fail with the cause of that.
func (c *Client) End() {
	c.mu.Lock()
	conns := c.conns
	c.conns = nil
	c.mu.Unlock()
	for conn := range conns {
		conn.abort()
	}
	c.idle.clear()
}

// CloseIdle closes the idle connections.
func (c *Client) CloseIdle() { c.idle.clear() }

// RoundTrip sends a request and returns the answer, as the documentation of
// balancer.Transport.RoundTripTo says. Its errors, and those of the answer's body,
// come from [Origin.Error].
func (c *Client) RoundTrip(req *http.Request, informed func(code int, header textproto.MIMEHeader) error, p Patience) (*http.Response, error) {
	res, failed := c.send(req, informed, p, false)
	if failed == nil {
		return res, nil
	}
	return c.afresh(req, informed, p, failed)
}

// afresh is the rest of RoundTrip after an attempt that has failed.
func (c *Client) afresh(req *http.Request, informed func(code int, header textproto.MIMEHeader) error, p Patience, failed *failure) (*http.Response, error) {
	if failed.stale {
		if again := rewound(req); again != nil {
			res, failedAgain := c.send(again, informed, p, true)
			if failedAgain == nil {
				res.Request = req
				return res, nil
			}
			failedAgain.sent = failedAgain.sent || failed.sent
			failed = failedAgain
		}
	}
	return nil, c.origin.Error(failed.sent, failed.invalid, failed.err)
}

// rewound returns a request like req whose body begins anew, or nil if the body can't
// be read again.
func rewound(req *http.Request) *http.Request {
	if !hasBody(req) {
		return req
	}
	if req.GetBody == nil {
		return nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil
	}
	again := req.WithContext(req.Context())
	again.Body = body
	return again
}

// get returns a connection that is ready for a request: an idle one or, if there is
// none or fresh is true, a new one. With byAwait the request will be written by the
// connection's await, which then finds out itself whether the connection is fit.
func (c *Client) get(ctx context.Context, trace *httptrace.ClientTrace, within time.Duration, fresh, byAwait bool) (*conn, error) {
	if trace != nil && trace.GetConn != nil {
		trace.GetConn(c.origin.Addr)
	}
	key := ""
	if c.origin.Key != nil {
		key = c.origin.Key(ctx)
	}
	var conn *conn
	if !fresh {
		conn = c.kept(key, byAwait)
	}
	if conn == nil {
		var err error
		if conn, err = c.open(ctx, within); err != nil {
			return nil, err
		}
		if conn.key = key; !conn.ready(byAwait) {
			return nil, io.EOF
		}
	}
	if trace != nil && trace.GotConn != nil {
		info := httptrace.GotConnInfo{Conn: conn.Conn, Reused: conn.reused, WasIdle: conn.reused}
		if conn.reused {
			info.IdleTime = time.Since(conn.since)
		}
		trace.GotConn(info)
	}
	return conn, nil
}

// kept returns an idle connection with this key that is still fit, or nil. It closes
// those that aren't.
func (c *Client) kept(key string, byAwait bool) *conn {
	for {
		conn := c.idle.pop(key)
		if conn == nil {
			return nil
		}
		conn.reused = true
		if !time.Now().Before(conn.until) {
			conn.close()
		} else if conn.ready(byAwait) {
			return conn
		}
	}
}

// open dials a connection, which End will close. A time of 0 sets no limit of its own.
func (c *Client) open(ctx context.Context, within time.Duration) (*conn, error) {
	var cancel context.CancelFunc
	if within > 0 {
		ctx, cancel = context.WithTimeout(ctx, within)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	defer cancel()
	defer context.AfterFunc(c.origin.Life, cancel)()
	raw, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	conn := newConn(raw, c)
	c.mu.Lock()
	lost := c.conns == nil
	if !lost {
		c.conns[conn] = struct{}{}
	}
	c.mu.Unlock()
	if lost {
		raw.Close()
		return nil, c.origin.lost()
	}
	return conn, nil
}

// dial calls Origin.Dial in a goroutine of its own. Package net needs a stack of 16 KiB, and
// that of the caller would stay so large while a long poll waits for its answer. If Dial
// panics so does dial.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	d := &dialing{err: errors.New("http1: Dial has ended its goroutine"), done: make(chan struct{})}
	go d.run(ctx, c.origin.Dial) // it ends when Dial returns, which ctx sees to
	<-d.done
	if d.panicked != nil {
		panic(d.panicked)
	}
	return d.conn, d.err
}

// A dialing is a call of Origin.Dial.
type dialing struct {
	conn     net.Conn
	err      error
	panicked any
	done     chan struct{}
}

func (d *dialing) run(ctx context.Context, dial func(context.Context) (net.Conn, error)) {
	defer close(d.done)
	defer func() { d.panicked = recover() }()
	d.conn, d.err = dial(ctx)
}

// keep makes conn idle. It is closed if nobody has used it within limit.
func (c *Client) keep(conn *conn, limit time.Duration) {
	conn.since = time.Now()
	conn.until = conn.since.Add(limit)
	c.idle.push(conn)
	if c.origin.Life.Err() != nil { // End may have cleared the idle connections before the push
		c.idle.clear()
	}
}

// forget takes conn, which is about to be closed, off the list of open connections.
func (c *Client) forget(conn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}
