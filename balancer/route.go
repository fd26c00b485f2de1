package balancer

import (
	"cmp"
	"context"
	"io"
	"net/http/httptrace"
	"sync"
	"time"
)

// A route is what a Transport keeps for one life of a backend.
type route struct {
	transport *Transport
	backend   *Backend
	life      *life
	idle      *idle

	mu    sync.Mutex
	conns map[*conn]struct{} // all that are open
}

// route returns the one to b, whose life at this moment is l.
func (t *Transport) route(b *Backend, l *life) *route {
	if r, ok := t.routes.Load(l); ok {
		return r.(*route)
	}
	r := &route{transport: t, backend: b, life: l, conns: make(map[*conn]struct{})}
	r.idle = newIdle(cmp.Or(t.MaxIdle, 256))
	if first, ok := t.routes.LoadOrStore(l, r); ok {
		return first.(*route)
	}
	context.AfterFunc(l, r.end)
	return r
}

// end closes all connections, at the end of the backend's life.
func (r *route) end() {
	r.transport.routes.Delete(r.life)
	r.mu.Lock()
	conns := r.conns
	r.conns = nil
	r.mu.Unlock()
	for c := range conns {
		c.abort()
	}
	r.idle.clear()
}

// get returns an idle connection or, if there is none or fresh asks for it, a new
// one, ready for a request. Whether it is fit for one is left to its ask, if that
// will be called.
func (r *route) get(ctx context.Context, trace *httptrace.ClientTrace, fresh, asks bool) (*conn, error) {
	if trace != nil && trace.GetConn != nil {
		trace.GetConn(r.backend.addr)
	}
	client := ""
	if r.transport.ProxyProtocol != 0 {
		client = string(proxyHeader(ctx, r.transport.ProxyProtocol))
	}
	info := httptrace.GotConnInfo{}
	var c *conn
	if !fresh {
		c = r.kept(client, asks)
	}
	if c != nil {
		info = httptrace.GotConnInfo{Reused: true, WasIdle: true, IdleTime: time.Since(c.since)}
	} else {
		var err error
		if c, err = r.open(ctx); err != nil {
			return nil, err
		}
		if c.client = client; !c.ready(asks) {
			return nil, io.EOF
		}
	}
	if trace != nil && trace.GotConn != nil {
		info.Conn = c.Conn
		trace.GotConn(info)
	}
	return c, nil
}

// kept returns an idle connection for this client that is still good, or nil.
func (r *route) kept(client string, asks bool) *conn {
	for {
		c := r.idle.pop(client)
		if c == nil {
			return nil
		}
		c.reused = true
		if !time.Now().Before(c.until) {
			c.close()
		} else if c.ready(asks) {
			return c
		}
	}
}

// open dials a connection. Its end of life is the backend's.
func (r *route) open(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.life, cancel)()
	raw, err := r.transport.connect(ctx, r.backend)
	if err != nil {
		return nil, err
	}
	c := newConn(raw, r)
	r.mu.Lock()
	lost := r.conns == nil
	if !lost {
		r.conns[c] = struct{}{}
	}
	r.mu.Unlock()
	if lost {
		raw.Close()
		return nil, ErrLost
	}
	return c, nil
}

// keep makes c idle, for as long as the Transport's user and the backend wish.
func (r *route) keep(c *conn, limit time.Duration) {
	c.since = time.Now()
	c.until = c.since.Add(limit)
	r.idle.push(c)
	if r.life.Err() != nil { // it may have ended before the push
		r.idle.clear()
	}
}

func (r *route) forget(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}
