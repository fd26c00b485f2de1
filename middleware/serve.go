package middleware

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/limpet-go/limpet/internal/closecode"
	"github.com/limpet-go/limpet/internal/sockets"
	"github.com/limpet-go/limpet/upgrade"
)

// Serve runs a service until ctx ends. It runs the pool's health checks and the gateway
// (see [Gateway.Run]), and serves l with server, whose Handler must be the gateway or a
// handler in front of it. If server has a TLSConfig it serves TLS.
//
// When ctx ends, [Gateway.Ready] returns an error from then on, and Serve goes on as before
// for the time Options.LameDuck: it accepts connections and tunnels, so that nobody is
// turned away before load balancers have noticed. If ctx has ended before Serve is called,
// nobody was told to come, and that time is left out.
//
// Then Serve drains the service within the time drain, or within one second if that is
// shorter, since close frames would not arrive otherwise. It accepts the connections that
// wait already and then no more, closes tunnels as [Gateway.Shutdown] does, and lets
// requests be answered to their end. For two seconds, or a quarter of drain if that is
// shorter, kept connections stay open for a last request each, while there are any. A
// handshake on one is served too, and its tunnel closed with 1012 at its moment of the
// drain: a client that is refused would try again much later than one that learns of a
// restart. Health checks go on meanwhile. Serve then cuts what is left, and logs that, but
// returns no error for it.
//
// With Options.Handover, Serve takes everything from the predecessor before it accepts the first
// connection. When a successor has taken everything, Serve returns once nothing is left here, as
// [Takeover] says. If ctx ends meanwhile, that is over within the time drain.
//
// On Linux, Serve accepts connections from a *net.TCPListener or *net.UnixListener as an
// [upgrade.Listener] does. They are no *net.TCPConn then. Serve sets server.ConnState, and
// calls the function that was there before.
//
// Serve returns nil after a drain or a hand-over, or the error with which server failed to serve. It
// logs a warning if server has a WriteTimeout, which would end long polls and streams, or
// a ReadTimeout, which would end uploads. ReadHeaderTimeout and IdleTimeout do no harm.
func (g *Gateway) Serve(ctx context.Context, server *http.Server, l net.Listener, drain time.Duration) error {
	if server == nil || l == nil {
		return errors.New("limpet: Serve needs a server and a listener")
	}
	if drain > 0 && drain < time.Millisecond {
		return fmt.Errorf("limpet: Serve is to drain within %v: a number without a unit counts nanoseconds; want 30*time.Second, say", drain)
	}
	lameDuck := g.lameDuck
	if ctx.Err() != nil {
		lameDuck = 0
	}
	if g.handover != nil {
		if err := g.handover.Take(ctx); err != nil {
			return err
		}
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var beside sync.WaitGroup
	for _, run := range []func(context.Context) error{g.router.pool.Run, g.Run} {
		beside.Go(func() {
			if err := run(running); err != nil { // the service has called it too, which is fine
				g.router.log.Info("Serve leaves to the service what that runs itself", "err", err)
			}
		})
	}
	g.checkServer(server)
	defer func() {
		stop()
		beside.Wait()
	}()

	conns := countConns(server)
	last := &endingListener{Listener: sockets.Listen(l)}
	failed := make(chan error, 1)
	go func() { // ends when last is, or server is shut down or closed
		if server.TLSConfig != nil {
			failed <- server.ServeTLS(&upgrade.Listener{Listener: last}, "", "") // so that tunnels run on event loops
		} else {
			failed <- server.Serve(last)
		}
	}()
	var gone <-chan struct{} // nil without a Handover
	if g.handover != nil {
		gone = g.handover.Gone()
	}
	select {
	case err := <-failed:
		return err
	case <-gone:
		last.Close() // the successor accepts those who wait
		<-failed
		return g.serveRest(ctx, server, conns, drain)
	case <-ctx.Done():
	}
	g.Leave()
	if lameDuck > 0 {
		g.router.log.Info("shutting down: not ready any more, but still serving", "for", lameDuck)
		select {
		case err := <-failed:
			return err
		case <-time.After(lameDuck):
		}
	}
	g.router.log.Info("draining", "within", drain)

	// The server knows nothing of tunnels, and the gateway nothing of the server's
	// connections. Tunnels begin to leave now, and new ones are refused only when no
	// connection is left on which a client could ask for one.
	drain = max(drain, time.Second)
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	g.upgrade.DrainAll(closecode.ServiceRestart, "shutting down", drain-min(closingTime, drain/2))
	most := min(lastRequests, drain/4)
	last.end(most)
	select {
	case <-failed: // no connection is accepted any more
	case <-leaving.Done():
	}
	conns.wait(leaving, most)
	err := errors.Join(server.Shutdown(leaving), g.Shutdown(leaving))
	if errors.Is(err, context.DeadlineExceeded) {
		g.router.log.Warn("some connections outlasted the drain and were cut")
		err = server.Close()
	}
	return err
}
