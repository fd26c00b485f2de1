package middleware

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/closecode"
	"github.com/limpet-go/limpet/internal/stay"
	"github.com/limpet-go/limpet/upgrade"
)

// tunnel serves a request that asks for an upgrade. It follows the same steps as proxy.
// The client's connection isn't touched before a backend has answered with 101: until
// then any answer can still be given. Then the tunnel's engine takes over both
// connections, and the handler returns.
func (g *Gateway) tunnel(w http.ResponseWriter, r *http.Request, rec *Record, id string) {
	if !upgrade.CanHijack(w) {
		g.refuse(w, r, rec, errNoHijack)
		return
	}
	deepen(0)
	if r.ContentLength != 0 {
		// A handshake must not have a body: Connect refuses it. The answer isn't
		// delayed until the body was read.
		body := &replay{src: r.Body, rc: http.NewResponseController(w)}
		body.answerEarly(w, r)
		defer body.join()
	}
	t := &trip{in: r, rec: rec, pin: g.router.find(r), tunnel: true}
	rec.found(t.pin)
	found, key := t.pin, t.pin.Key
	var kept []*keptPin
	t.keep = func(store affinity.Toucher, key, backend string) {
		kept = append(kept, &keptPin{store: store, key: key, backend: backend})
	}
	moved := g.router.moves.of(key)
	var o outgoing
	if err := g.prepare(&o, r, t.pin, id); err != nil {
		g.refuse(w, r, rec, err)
		return
	}
	out := &o.Request
	// prepare has removed the fields that ask for the upgrade, since they are
	// hop-by-hop. Connect reads them.
	out.Header["Connection"] = []string{"Upgrade"}
	out.Header["Upgrade"] = r.Header["Upgrade"]

	var tunnel *upgrade.Tunnel
	served := false
	defer func() {
		if tunnel != nil && !served { // also if a hook has panicked
			tunnel.Close(closecode.ServiceRestart, "")
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
		g.refuse(w, r, rec, err)
		return
	}
	if tunnel == nil {
		defer t.end()
		g.answer(w, t, res)
		return
	}
	if g.requestID != "" {
		delete(res.Header, g.requestID)
	}
	if err := g.modifyResponse(rec, res); err != nil {
		g.refuse(w, r, rec, err)
		return
	}
	tunnel.SetClient(t.pin.Key, turn(t.pin.Key)) // a new client has got its key by the answer
	rec.opened(tunnel)
	g.rebalancer.opened(tunnel, found)
	g.noteTunnel(tunnel, r, found, kept)
	if err := tunnel.Serve(w); err != nil {
		if !errors.Is(err, upgrade.ErrClosed) {
			err = fmt.Errorf("%w: %w", errNoHijack, err)
		}
		g.refuse(w, r, rec, err) // nothing was written to the client
		return
	}
	served = true
	g.keeper.keep(kept, tunnel, false)
	if release := stay.Hold(r.Context()); release != nil {
		tunnel.OnClosed(func(upgrade.Summary) { release() })
	}
	if rec != nil {
		rec.Tunnel, rec.Status = true, http.StatusSwitchingProtocols // whatever ModifyResponse has set
	}
	// What closes tunnels may have missed this one, which wasn't registered yet.
	if m := g.router.moves.of(key); m != nil && m != moved && m.to != tunnel.Group() {
		tunnel.Close(closecode.ServiceRestart, "moved")
	}
	select {
	case <-t.backend.Lost():
		tunnel.Close(closecode.ServiceRestart, "backend lost")
	default:
	}
}

// deepen makes the goroutine's stack grow to what a handshake needs, while there is
// little on it. It would grow twice otherwise, the second time deep within package net,
// and copying the frames is a twentieth of what it costs to open a tunnel.
//
//go:noinline
func deepen(at int) byte {
	var room [8 << 10]byte
	return room[at]
}

// connect opens a tunnel at b. When it succeeds, the tunnel counts as b's request until it
// is closed, in place of t. If b refuses the upgrade, the context of the handshake lives
// until the body of the refusal is closed. The context is cancelled when b is lost.
func (g *Gateway) connect(t *trip, out *http.Request, b *balancer.Backend) (*upgrade.Tunnel, error) {
	ctx, cancel := context.WithCancelCause(balancer.WithBackend(out.Context(), b))
	var hurried *haste
	if t.patience.Begin > 0 || t.patience.Connect > 0 {
		hurried = &haste{Patience: t.patience, budget: t.budget, giveUp: cancel}
		ctx = context.WithValue(ctx, hasteKey{}, hurried)
	}
	unhook := b.OnLost(func() { cancel(balancer.ErrLost) })
	release := func() {
		unhook()
		cancel(nil)
	}
	req, err := t.request(ctx, out, b)
	if err != nil {
		release()
		return nil, err
	}
	tunnel, err := g.upgrade.Connect(req, upgrade.ConnectOptions{
		Group: b.ID(),
		Key:   t.pin.Key,
		Turn:  turn(t.pin.Key),
		Heard: b.Heard(),
		Closed: func(s upgrade.Summary) {
			b.EndTunnel()
			g.router.doctor.tunnelEnded(s)
		},
	})
	t.paid = hurried.stop()
	var refusal *upgrade.HandshakeError
	if errors.As(err, &refusal) {
		refusal.Response.Body = onClose(refusal.Response.Body, release)
		if !t.paid {
			return nil, err
		}
		refusal.Response.Body.Close() // it was given up at the moment when it came
		err = context.DeadlineExceeded
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
	case !errors.As(err, &known) && !judge(err).fault: // the error is that of a connection which was made
		err = &balancer.Error{Backend: b.ID(), Sent: true, Err: err}
	}
	return nil, err
}

// turn returns the moment within a drain, from 0 to 1, at which a client's tunnels are
// closed. It follows from the client's key, and is random without one.
func turn(key string) float64 {
	if key == "" {
		return rand.Float64()
	}
	return balancer.Turn(key)
}

// watch is called at each change in the pool. It closes the tunnels of a lost backend at
// once and those of a draining one each at its client's turn. It tells the replicas'
// goroutine that the operator may have decided something.
func (g *Gateway) watch(c balancer.Change) {
	if g.replicas != nil {
		g.replicas.poolChanged()
	}
	if g.rebalancer != nil {
		g.rebalancer.poolChanged(c)
	}
	if c.Lost {
		g.upgrade.CloseGroup(c.Backend.ID(), closecode.ServiceRestart, "backend lost")
		return
	}
	if c.To == balancer.Down && c.Backend.Health() == balancer.Dead {
		g.release() // it isn't lost
	}
	if c.From == c.To && c.Was.SameState(c.Backend.Wanted()) {
		return // a drain goes on: tunnels that have a turn keep it
	}
	g.drain(c.Backend)
}

// signs tells health of the signs of life that b gives on its tunnels.
func (g *Gateway) signs(b *balancer.Backend) balancer.Signs {
	waiting, heard := g.upgrade.Heard(b.ID())
	return balancer.Signs{Waiting: waiting, Heard: heard}
}

// drain closes b's tunnels by the end of its drain, or stops that if b isn't drained.
func (g *Gateway) drain(b *balancer.Backend) {
	w := b.Wanted()
	if w.State != balancer.Draining || w.Within == 0 {
		g.upgrade.UndrainGroup(b.ID())
		return
	}
	// A drain that begins later by another machine's clock began now by this one's.
	if left := min(w.Within, time.Until(w.Since.Add(w.Within))); left > 0 {
		g.upgrade.DrainGroup(b.ID(), closecode.ServiceRestart, "backend is drained", left)
		g.scans.schedule(0, g.endLeaving)
	}
}
