package middleware

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/pause"
)

const (
	// tellWithin is how long it may take at most to tell a node that a session is over.
	tellWithin = 2 * time.Second
	// tellClientWithin is how long a client waits at most for its node to be told. A node
	// that is well answers within a few milliseconds.
	tellClientWithin = 250 * time.Millisecond
	// postStep is how long telling a node sleeps before it looks again whether the client's
	// data has arrived.
	postStep = 5 * time.Millisecond

	endingsAtOnce = 64          // how many nodes are told at the same time
	endingFor     = time.Minute // how long a session that was ended is remembered
	endingsMax    = 10_000      // how many are remembered
)

// endPolling tells the node of a polling session that the session is over, in the way in
// which the client itself would have ended it: for the node, its client has left, and a
// later session of the client may be given what this one has missed. If a poll of the
// session waits at the node, the node answers it, so that the client comes back at once.
//
// It is for clients that have to leave a node which lives: whose turn in a drain has come,
// which are moved or closed, or whose node the operator has put off. The node is told once
// for each session. out is the request as prepared for the node, and found the pin of that
// request. endPolling doesn't keep out, and doesn't wait. It returns a channel that is closed
// when the node has been told, or nil if there is nothing to tell: the node is dead or
// removed, or the session is none that polls.
func (g *Gateway) endPolling(out *http.Request, found affinity.Pin) (told <-chan struct{}) {
	ender, ok := g.router.affinity.(affinity.SessionEnder)
	home := g.router.pool.Get(found.Backend)
	if !ok || home == nil || home.Health() == balancer.Dead {
		return nil
	}
	u := *out.URL
	req := (&http.Request{
		Method: out.Method, URL: &u, Host: out.Host, Header: out.Header.Clone(),
	}).WithContext(context.WithoutCancel(out.Context()))
	session := ender.EndSession(req, found)
	if session == "" {
		return nil
	}
	done, first := g.polls.ending.begin(session)
	if first {
		go func() {
			defer g.polls.ending.over(done)
			g.tellNode(home, req, found.Key)
		}()
	}
	return done
}

// tellNode sends the request that ends a session. Data that the client is sending comes
// first: Engine.IO refuses two requests with data at a time, and would drop it.
func (g *Gateway) tellNode(home *balancer.Backend, req *http.Request, key string) {
	ctx, cancel := context.WithTimeout(req.Context(), tellWithin)
	defer cancel()
	home.Begin()
	defer home.End()
	for g.polls.posting(key) && pause.For(ctx, postStep) {
	}
	if !g.polls.ending.enter(ctx) {
		return
	}
	defer g.polls.ending.leave()
	status, err := g.transport.Tell(ctx, home, req)
	g.router.log.LogAttrs(ctx, slog.LevelDebug, "polling session ended", slog.String("backend", home.ID()), slog.Int("status", status), slog.Any("err", err))
}

// endings are the sessions that were ended lately, so that each is ended once however many
// requests it has.
type endings struct {
	mu    sync.Mutex
	once  sync.Once
	all   map[string]chan struct{}
	order []ending // the oldest first
	open  int      // that have begun and aren't over
	slots chan struct{}
}

type ending struct {
	session string
	begun   time.Time
}

func (e *endings) init() {
	e.all, e.slots = make(map[string]chan struct{}), make(chan struct{}, endingsAtOnce)
}

// begin returns the channel of a session that ends. If this call is the first one for the
// session, the caller ends it and then calls over.
func (e *endings) begin(session string) (done chan struct{}, first bool) {
	e.once.Do(e.init)
	e.mu.Lock()
	defer e.mu.Unlock()
	if done, ok := e.all[session]; ok {
		return done, false
	}
	done = make(chan struct{})
	e.all[session] = done
	e.open++
	e.order = append(e.order, ending{session, time.Now()})
	for len(e.order) > endingsMax || time.Since(e.order[0].begun) > endingFor {
		delete(e.all, e.order[0].session)
		e.order = e.order[1:]
	}
	return done, true
}

// over closes the channel of a session that was ended.
func (e *endings) over(done chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open--
	close(done)
}

// enter waits for a slot, which leave gives back.
func (e *endings) enter(ctx context.Context) bool {
	select {
	case e.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (e *endings) leave() { <-e.slots }

// room reports whether a session that is ended now gets a slot at once.
func (e *endings) room() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open < endingsAtOnce
}
