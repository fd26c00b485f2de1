package http1

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"time"
)

// A Client sends requests to one origin and keeps connections to it. Its methods
// may be called concurrently.
type Client struct {
	origin Origin
	idle   *idleConns

	mu    sync.Mutex
	conns map[*conn]struct{} // all that are open; nil after End
}

// NewClient returns a client of o. Whoever makes it calls its End when o.Life has
// ended.
func NewClient(o Origin) *Client {
	return &Client{origin: o, idle: newIdleConns(o.MaxIdle), conns: make(map[*conn]struct{})}
}

// End closes all connections, at the end of the origin's life.
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

// RoundTrip sends a request and returns the answer, as balancer.Transport.RoundTripTo
// says. Errors are made by [Origin.Error].
func (c *Client) RoundTrip(req *http.Request, informed func(code int, header textproto.MIMEHeader) error) (*http.Response, error) {
	res, failed := c.send(req, informed, false)
	if failed != nil && failed.stale {
		if again := rewound(req); again != nil {
			sent := failed.sent
			if res, failed = c.send(again, informed, true); failed == nil {
				res.Request = req
			} else {
				failed.sent = failed.sent || sent
			}
		}
	}
	if failed != nil {
		return nil, c.origin.Error(failed.sent, failed.invalid, failed.err)
	}
	return res, nil
}

// rewound returns req as it was before it was sent, or nil.
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

// get returns an idle connection or, if there is none or fresh asks for it, a new
// one, ready for a request. Whether it is fit for one is left to its ask, if that
// will be called.
func (c *Client) get(ctx context.Context, trace *httptrace.ClientTrace, fresh, byRead bool) (*conn, error) {
	if trace != nil && trace.GetConn != nil {
		trace.GetConn(c.origin.Addr)
	}
	key := ""
	if c.origin.Key != nil {
		key = c.origin.Key(ctx)
	}
	info := httptrace.GotConnInfo{}
	var conn *conn
	if !fresh {
		conn = c.kept(key, byRead)
	}
	if conn != nil {
		info = httptrace.GotConnInfo{Reused: true, WasIdle: true, IdleTime: time.Since(conn.since)}
	} else {
		var err error
		if conn, err = c.open(ctx); err != nil {
			return nil, err
		}
		if conn.key = key; !conn.ready(byRead) {
			return nil, io.EOF
		}
	}
	if trace != nil && trace.GotConn != nil {
		info.Conn = conn.Conn
		trace.GotConn(info)
	}
	return conn, nil
}

// kept returns an idle connection for this key that is still good, or nil.
func (c *Client) kept(key string, byRead bool) *conn {
	for {
		conn := c.idle.pop(key)
		if conn == nil {
			return nil
		}
		conn.reused = true
		if !time.Now().Before(conn.until) {
			conn.close()
		} else if conn.ready(byRead) {
			return conn
		}
	}
}

// open dials a connection. Its end of life is the origin's.
func (c *Client) open(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.origin.Life, cancel)()
	raw, err := c.origin.Dial(ctx)
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

// keep makes conn idle, for as long as the owner of c and the origin wish.
func (c *Client) keep(conn *conn, limit time.Duration) {
	conn.since = time.Now()
	conn.until = conn.since.Add(limit)
	c.idle.push(conn)
	if c.origin.Life.Err() != nil { // it may have ended before the push
		c.idle.clear()
	}
}

func (c *Client) forget(conn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}
