package middleware

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/upgrade"
)

// closeRestart is the WebSocket close code 1012, service restart: the client
// should come back, and finds a backend that serves it. It is registered with
// IANA beside RFC 6455 section 7.4.
const closeRestart = 1012

// tunnel serves a request that asks for an upgrade.
func (g *Gateway) tunnel(w http.ResponseWriter, r *http.Request) {
	if !upgrade.CanHijack(w) {
		g.refuse(w, r, errNoHijack)
		return
	}
	deepen(0)
	if r.ContentLength != 0 {
		// A handshake has no body. The answer doesn't wait for it.
		body := &replay{src: r.Body, rc: http.NewResponseController(w)}
		body.answerEarly(w, r)
		defer body.join()
	}
	t := &trip{in: r, pin: g.router.find(r)}
	var o outgoing
	if err := g.prepare(&o, r, t.pin); err != nil {
		g.refuse(w, r, err)
		return
	}
	out := &o.Request
	// prepare took the handshake's own fields off with the other hop-by-hop
	// ones; Connect reads what the client asked for from here.
	out.Header["Connection"] = []string{"Upgrade"}
	out.Header["Upgrade"] = r.Header["Upgrade"]

	var tunnel *upgrade.Tunnel
	served := false
	defer func() {
		if tunnel != nil && !served { // a panic of a hook among the reasons
			tunnel.Close(closeRestart, "")
		}
	}()
	t.try = func(b *balancer.Backend) (_ *http.Response, err error) {
		tunnel, err = g.connect(t, out, b)
		var refusal *upgrade.HandshakeError
		switch {
		case err == nil:
			return tunnel.Response(), nil
		case errors.As(err, &refusal):
			return final(refusal.Response, b)
		}
		return nil, err
	}
	res, err := g.router.send(t)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	if tunnel == nil {
		defer t.end()
		g.answer(w, t, res)
		return
	}
	if g.modify != nil {
		if err := g.modify(res); err != nil {
			g.refuse(w, r, err)
			return
		}
	}
	tunnel.SetClient(t.pin.Key, turn(t.pin.Key)) // it may have got its key just now
	g.router.trace.Opened(r, t.backend, tunnel)
	if b, closed := t.backend, g.router.trace.Closed; closed != nil {
		tunnel.OnClosed(func(s upgrade.Summary) { closed(b, s) })
	}
	if err := tunnel.Serve(w); err != nil {
		if !errors.Is(err, upgrade.ErrClosed) {
			err = fmt.Errorf("%w: %w", errNoHijack, err)
		}
		g.refuse(w, r, err) // nothing was written to the client
		return
	}
	served = true
	select {
	case <-t.backend.Lost(): // before the tunnel was registered, perhaps
		tunnel.Close(closeRestart, "backend lost")
	default:
	}
}

// deepen has the goroutine's stack grow while it is shallow, to what a handshake
// needs. It would grow twice otherwise, the last time in the depths of package net,
// and to move all that is on it is a twentieth of what a tunnel's opening costs.
//
//go:noinline
func deepen(at int) byte {
	var room [8 << 10]byte
	return room[at]
}

// connect asks b for a tunnel. The tunnel takes over the backend's count of the
// request. The context of the handshake lives until a refusal has been read, and
// ends when the backend is lost.
func (g *Gateway) connect(t *trip, out *http.Request, b *balancer.Backend) (*upgrade.Tunnel, error) {
	req, err := t.request(out, b)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	unhook := b.OnLost(func() { cancel(balancer.ErrLost) })
	release := func() {
		unhook()
		cancel(nil)
	}
	tunnel, err := g.upgrade.Connect(req.WithContext(ctx), upgrade.ConnectOptions{
		Group:  b.ID(),
		Key:    t.pin.Key,
		Turn:   turn(t.pin.Key),
		Closed: func(upgrade.Summary) { b.End() },
	})
	var refusal *upgrade.HandshakeError
	if errors.As(err, &refusal) {
		refusal.Response.Body = onClose(refusal.Response.Body, release)
		return nil, err
	}
	lost := errors.Is(context.Cause(ctx), balancer.ErrLost)
	release()
	var known *balancer.Error
	switch {
	case err == nil:
		t.counted = false
		return tunnel, nil
	case lost:
		err = &balancer.Error{Backend: b.ID(), Sent: true, Err: balancer.ErrLost}
	case !errors.As(err, &known) && !judge(err).fault: // the connection was made
		err = &balancer.Error{Backend: b.ID(), Sent: true, Err: err}
	}
	return nil, err
}

// turn is a client's moment in a drain; one that nothing tells apart has any.
func turn(key string) float64 {
	if key == "" {
		return rand.Float64()
	}
	return balancer.Turn(key)
}

// watch follows the pool: tunnels of a lost backend are closed at once, those of
// a draining one each at its client's moment. Replicas hear of the operator's
// decisions.
func (g *Gateway) watch(c balancer.Change) {
	if g.replicas != nil {
		g.replicas.poolChanged()
	}
	if c.Lost {
		g.upgrade.CloseGroup(c.Backend.ID(), closeRestart, "backend lost")
		return
	}
	g.drain(c.Backend)
}

func (g *Gateway) drain(b *balancer.Backend) {
	w := b.Wish()
	if w.State != balancer.Draining || w.Within == 0 {
		g.upgrade.UndrainGroup(b.ID())
		return
	}
	// A drain that begins later by another machine's clock began now by this one's.
	if left := min(w.Within, time.Until(w.Since.Add(w.Within))); left > 0 {
		g.upgrade.DrainGroup(b.ID(), closeRestart, "backend is drained", left)
	}
}
