package middleware

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
)

const (
	// restDrain is how long requests have at least when a successor serves. A long poll of
	// Engine.IO waits for 25 s, by default.
	restDrain = 30 * time.Second
	// pollTime is how long clients whose sessions were ended have for their answers, and how
	// long requests have after that.
	pollTime = 2 * time.Second
)

// serveRest serves what is left when a successor has everything, and nothing is accepted here any
// more:
//
//	rest        requests and handshakes on connections that are there are served, each answer
//	            ends its connection, and tunnels follow the others
//	last polls  the nodes of clients that still poll are told that these sessions are over, so
//	            that they answer
//	shutdown    as that of Serve
//
// The first ends when there are no connections, no tunnels that can't move, and no predecessor
// any more, or when its time is over. The end of ctx leaves the time drain for all three.
func (g *Gateway) serveRest(ctx context.Context, server *http.Server, conns *connCount, drain time.Duration) error {
	g.Leave()
	g.upgrade.DrainStuck(closecode.ServiceRestart, "shutting down", max(drain-min(closingTime, drain/2), 0))
	resting, done := context.WithTimeout(context.WithoutCancel(ctx), max(drain, restDrain))
	defer done()
	drain = max(drain, time.Second)                     // as Serve has it
	last, short := 2*pollTime, min(2*pollTime, drain/2) // for the last two steps
	defer context.AfterFunc(ctx, func() {               // told to end, too
		time.AfterFunc(drain-short, done)
	})()

	conns.wait(resting, max(drain, restDrain))
	select {
	case <-g.handover.alone:
	case <-resting.Done():
	}
	for g.upgrade.Open() > 0 && resting.Err() == nil {
		time.Sleep(restPause)
	}
	if ctx.Err() != nil {
		last = short
	}
	all, cancel := context.WithTimeout(context.WithoutCancel(ctx), last)
	defer cancel()
	for until := time.Now().Add(last / 2); conns.open.Load() > 0 && time.Now().Before(until); conns.wait(all, restPause) {
		g.polls.each(func(p *poll) bool {
			g.endPoll(p)
			return g.polls.ending.room() // the rest has its turn in the next round
		})
	}
	err := errors.Join(server.Shutdown(all), g.Shutdown(all))
	if errors.Is(err, context.DeadlineExceeded) {
		g.router.log.Warn("some connections outlasted the hand-over and were cut")
		err = server.Close()
	}
	return err
}
