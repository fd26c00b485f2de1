package middleware

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/limpet-go/limpet/balancer"
)

var (
	errLeaving   = errors.New("limpet: the gateway is shutting down")
	errEmptyPool = fmt.Errorf("%w: the pool has none yet", balancer.ErrNoBackend)
	errJoining   = errors.New("limpet: the gateway has just started, and waits for its replicas to say what is drained")
)

// Ready returns nil if this gateway takes new clients, and otherwise an error that says why
// a load balancer should send them to another one: the gateway is shutting down, or no
// backend would take them ([balancer.ErrNoBackend]), as in a pool that has none yet. A backend
// takes new clients if it is Up, or, when no other is left, if it is sick and isn't drained.
func (g *Gateway) Ready() error {
	if g.leaving.Load() {
		return errLeaving
	}
	if g.replicas != nil && g.replicas.joining() {
		return errJoining
	}
	for b := range g.router.pool.All() {
		if s := b.State(); s == balancer.Up || s == balancer.Draining && b.Wanted().State == balancer.Up {
			return nil
		}
	}
	if g.router.pool.Len() == 0 {
		return errEmptyPool
	}
	return balancer.ErrNoBackend
}

// Leave makes [Gateway.Ready] return an error from now on, for good. The gateway goes on
// serving, but asks for a new connection for each next request, which a load balancer then
// opens elsewhere: its answers have "Connection: close" over HTTP/1, and over HTTP/2 the
// server sends GOAWAY. Tunnels aren't touched.
//
// A service that doesn't use [Gateway.Serve] calls Leave when it is told to end, waits until
// load balancers have noticed, and then calls [Gateway.Shutdown].
func (g *Gateway) Leave() { g.leaving.Store(true) }

// endKeepAlive makes the answer that w is about to write the last one of its connection, if
// the gateway is leaving. The server closes the connection in order behind the answer.
// [http.Server.SetKeepAlivesEnabled] would close idle connections too, while a request may
// be on its way on one.
func (g *Gateway) endKeepAlive(w http.ResponseWriter) {
	if g.leaving.Load() {
		w.Header().Set("Connection", "close")
	}
}

// Livez answers 200 to everybody who can reach this process. It is for a liveness probe,
// which has the process restarted when it fails. A restart brings no backend back, so
// that Livez doesn't ask about backends.
func (g *Gateway) Livez(w http.ResponseWriter, _ *http.Request) {
	writeHealth(w, nil)
}

// Readyz answers 200 while [Gateway.Ready] returns nil, and 503 with its error as text
// otherwise. It is for a readiness probe or the health check of a load balancer.
func (g *Gateway) Readyz(w http.ResponseWriter, _ *http.Request) {
	writeHealth(w, g.Ready())
}

// writeHealth writes an answer of Livez or Readyz as plain text.
func writeHealth(w http.ResponseWriter, err error) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	text := "ok\n"
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		text = err.Error() + "\n"
	}
	_, _ = io.WriteString(w, text)
}
