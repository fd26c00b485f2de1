package middleware

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve is the life of a service with a gateway in it: it runs the pool's health
// checks and the gateway itself (see Run), and serves l with server, whose Handler
// is the gateway or leads to it, until ctx ends. Then it drains, for drain at most
// (one second at least, or close frames would not arrive): no new connections and
// tunnels, tunnels closed as [Gateway.Shutdown] does it, requests answered to
// their end, health checked all the while. What is left then is cut, which is no
// error.
//
// With a TLSConfig server serves TLS. Its WriteTimeout would end long polls and
// streams and its ReadTimeout uploads, of which a warning tells; ReadHeaderTimeout
// and IdleTimeout do no harm. Serve returns nil after a drain, or why server could
// not serve.
func (g *Gateway) Serve(ctx context.Context, server *http.Server, l net.Listener, drain time.Duration) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var beside sync.WaitGroup
	for _, run := range []func(context.Context) error{g.router.pool.Run, g.Run} {
		beside.Go(func() {
			if err := run(running); err != nil { // it runs already, which does as well
				g.router.log.Info("Serve leaves to the service what that runs itself", "err", err)
			}
		})
	}
	g.checkServer(server)
	defer func() {
		stop()
		beside.Wait()
	}()

	failed := make(chan error, 1)
	go func() { // ends with the server
		if server.TLSConfig != nil {
			failed <- server.ServeTLS(l, "", "")
		} else {
			failed <- server.Serve(l)
		}
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}

	// The server knows nothing of tunnels, and the gateway nothing of the
	// server's connections: both are drained side by side.
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(drain, time.Second))
	defer cancel()
	tunnels := make(chan error, 1)
	go func() { tunnels <- g.Shutdown(leaving) }()
	err := errors.Join(server.Shutdown(leaving), <-tunnels)
	if errors.Is(err, context.DeadlineExceeded) {
		g.router.log.Warn("some connections outlasted the drain and were cut")
		err = server.Close()
	}
	return err
}
