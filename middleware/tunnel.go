package middleware

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/upgrade"
)

// closeRestart is the WebSocket close code 1012, service restart: the client
// should come back, and finds a backend that serves it. It is registered with
// IANA beside RFC 6455 section 7.4.
const closeRestart = 1012

var errNoHijack = errors.New("the connection can't be taken over: a middleware hides the server's ResponseWriter (no Unwrap)")

// tunnel serves a request that asks for an upgrade.
func (g *Gateway) tunnel(w http.ResponseWriter, r *http.Request, pin affinity.Pin) {
	if !upgrade.CanHijack(w) {
		g.refuse(w, r, errNoHijack)
		return
	}
	out := g.outgoing(r, r.Context(), pin)
	// outgoing took the handshake's own fields off with the other hop-by-hop
	// ones; Connect reads what the client asked for from here.
	out.Header["Connection"] = []string{"Upgrade"}
	out.Header["Upgrade"] = r.Header["Upgrade"]

	var tunnel *upgrade.Tunnel
	t := &trip{in: r, pin: pin}
	t.try = func(b *balancer.Backend) (*http.Response, error) {
		ctx, cancel := context.WithCancelCause(balancer.NewContext(out.Context(), b))
		defer cancel(nil)
		defer b.OnLost(func() { cancel(balancer.ErrLost) })()

		end := b.Begin()
		var err error
		tunnel, err = g.upgrade.Connect(out.WithContext(ctx), upgrade.Options{
			Group: b.ID(),
			Turn:  turn(pin.Key),
			Closed: func(s upgrade.Summary) {
				end()
				g.router.trace.closed(b, s)
			},
		})
		if err == nil {
			return tunnel.Response(), nil
		}
		end()
		var refusal *upgrade.HandshakeError
		if errors.As(err, &refusal) {
			return refusal.Response, nil
		}
		if errors.Is(context.Cause(ctx), balancer.ErrLost) {
			err = &balancer.Error{Backend: b.ID(), Sent: true, Err: balancer.ErrLost}
		}
		return nil, err
	}
	res, err := g.router.send(t)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	defer t.end() // the tunnel has a count of its own
	if g.modify != nil {
		if err := g.modify(res); err != nil {
			if tunnel != nil {
				tunnel.Close(closeRestart, "")
			} else {
				res.Body.Close()
			}
			g.refuse(w, r, err)
			return
		}
	}
	if tunnel == nil {
		writeAnswer(w, r, res)
		return
	}
	tunnel.SetTurn(turn(t.pin.Key)) // it may have got its key just now
	if err := tunnel.Serve(w); err != nil {
		g.router.log.DebugContext(r.Context(), "tunnel not opened", "backend", t.backend.ID(), "err", err)
		return
	}
	g.router.trace.opened(r, t.backend, tunnel)
	select {
	case <-t.backend.Lost(): // before the tunnel was registered, perhaps
		tunnel.Close(closeRestart, "backend lost")
	default:
	}
}

// turn is a client's moment in a drain; one that nothing tells apart has any.
func turn(key string) float64 {
	if key == "" {
		return rand.Float64()
	}
	return balancer.Turn(key)
}

// watch follows the pool: tunnels of a lost backend are closed at once, those of
// a draining one each at its client's moment.
func (g *Gateway) watch(c balancer.Change) {
	if c.Lost {
		g.upgrade.CloseGroup(c.Backend.ID(), closeRestart, "backend lost", 0)
		return
	}
	g.drain(c.Backend)
}

func (g *Gateway) drain(b *balancer.Backend) {
	start, within, draining := b.DrainedSince()
	if !draining {
		g.upgrade.Reopen(b.ID())
		return
	}
	if left := time.Until(start.Add(within)); left > 0 {
		g.upgrade.CloseGroup(b.ID(), closeRestart, "backend is drained", left)
	}
}
