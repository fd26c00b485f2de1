package middleware

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// What net/http's Server does when it is shut down loses requests. It closes its listener,
// and with that the connections in the kernel's queue that nobody has accepted. It closes
// kept connections while a request is on its way on them. And it drops requests that it
// reads after that on connections which it has accepted. Serve therefore stops in three
// steps, and shuts the server down in the last:
//
//	lame duck       everything is served, and each answer ends its connection
//	last requests   nothing is accepted any more; requests and handshakes on connections
//	                that are there are served, and each answer ends its connection
//	shutdown        idle connections are closed, requests under way are answered

const (
	closingTime  = 2 * time.Second       // what the last tunnel needs for its close frame
	lastRequests = 2 * time.Second       // how long connections in the queue are accepted, and those that are there have for a last request
	acceptPause  = 50 * time.Millisecond // nobody has connected for so long: the queue is empty
)

// An endingListener accepts the connections that are in its queue before it closes, if it is
// told to end.
type endingListener struct {
	net.Listener
	until atomic.Int64 // when it closes at the latest, in Unix nanoseconds; 0: it wasn't told to end
}

// end has Accept close the listener as soon as its queue is empty, within most at the latest.
// A listener without deadlines is closed at once.
func (l *endingListener) end(most time.Duration) {
	l.until.Store(time.Now().Add(most).UnixNano())
	if !l.await() {
		l.Listener.Close()
	}
}

// await sets the time at which an Accept that finds nobody ends, and reports whether that
// is possible.
func (l *endingListener) await() bool {
	d, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	return ok && d.SetDeadline(time.Now().Add(acceptPause)) == nil
}

// Accept implements [net.Listener].
func (l *endingListener) Accept() (net.Conn, error) {
	until := l.until.Load()
	if until != 0 && (time.Now().UnixNano() > until || !l.await()) {
		l.Listener.Close()
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if !errors.Is(err, os.ErrDeadlineExceeded) || l.until.Load() == 0 {
		return conn, err
	}
	if until == 0 { // this call had begun before end
		return l.Accept()
	}
	l.Listener.Close()
	return nil, net.ErrClosed
}

// A connCount counts a server's connections, without those that were hijacked.
type connCount struct {
	open atomic.Int64
	none chan struct{} // has a value if open was 0 a moment ago
}

// countConns counts the connections of a server that doesn't serve yet.
func countConns(server *http.Server) *connCount {
	c := &connCount{none: make(chan struct{}, 1)}
	before := server.ConnState
	server.ConnState = func(conn net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			c.open.Add(1)
		case http.StateHijacked, http.StateClosed:
			if c.open.Add(-1) == 0 {
				select {
				case c.none <- struct{}{}:
				default:
				}
			}
		}
		if before != nil {
			before(conn, state)
		}
	}
	return c
}

// wait returns when no connection is open, when most has passed, or when ctx ends.
func (c *connCount) wait(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for c.open.Load() > 0 {
		select {
		case <-c.none:
		case <-ctx.Done():
			return
		}
	}
}
