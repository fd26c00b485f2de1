package middleware

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/closecode"
	"github.com/limpet-go/limpet/internal/handover"
	"github.com/limpet-go/limpet/upgrade"
)

// offerTime is how long a predecessor may take to begin: it sends all pins first.
const offerTime = time.Minute

// Take takes everything from the predecessor, if there is one, and waits at the socket for a
// successor from then on. [Gateway.Serve] calls it. A service that doesn't use that calls Take
// when it is ready to serve: behind [NewGateway], and before [balancer.Pool.Run] and its servers
// begin. The listeners' queues fill meanwhile.
//
// If Take returns an error, the predecessor goes on, and this process should end. If the
// predecessor has died before it has given anything, that is no error. Further calls do
// nothing.
func (h *Handover) Take(ctx context.Context) error {
	h.mu.Lock()
	if h.gateway == nil {
		h.mu.Unlock()
		return errors.New("limpet: takeover: call NewGateway with Options.Handover first")
	}
	again, left := h.taken, h.left
	if !again && !left {
		h.before, h.rest, h.taken = nil, h.before, true
	}
	conn := h.rest
	h.mu.Unlock()
	switch {
	case again:
		return nil
	case left:
		return errShutDown
	}
	if conn != nil {
		stop := context.AfterFunc(ctx, func() { conn.Interrupt() })
		err := h.takeFirst(conn)
		stop()
		switch {
		case err == nil:
		case handover.Ended(err):
			conn.Close()
			conn = nil
			h.gateway.router.log.Warn("the predecessor has ended before it gave its tunnels")
		default:
			conn.Close()
			return fmt.Errorf("limpet: takeover at %s: %w", h.path, err)
		}
	}
	return h.begin(conn)
}

// begin has the process serve, when everything is here. conn is to a predecessor that may have
// more, or nil.
func (h *Handover) begin(conn *handover.Conn) error {
	h.unlink(true)
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, fd := range h.inherited {
		handover.CloseAll([]int{fd})
		delete(h.inherited, name)
		h.gateway.router.log.Info("takeover: nobody listens there any more", "listener", name)
	}
	h.owner = true
	if conn == nil {
		close(h.alone)
	}
	if h.left {
		if conn != nil {
			conn.Close()
		}
		return errShutDown
	}
	if conn != nil {
		h.serving.Go(func() { h.takeRest(conn) })
	}
	h.serving.Go(h.serve)
	return nil
}

var errShutDown = errors.New("limpet: takeover: the gateway was shut down")

// takeFirst takes what the predecessor has.
func (h *Handover) takeFirst(conn *handover.Conn) error {
	if err := conn.Ready(); err != nil {
		return err
	}
	return h.takeOffer(conn, true, offerTime)
}

// takeRest takes what the predecessor couldn't give at first, until that has ended.
func (h *Handover) takeRest(conn *handover.Conn) {
	defer close(h.alone)
	defer conn.Close()
	for {
		err := h.takeOffer(conn, false, 0)
		if err != nil {
			if !handover.Ended(err) {
				h.gateway.router.log.Warn("takeover: the last tunnels of the predecessor didn't come", "err", err)
			}
			return
		}
	}
}

// takeOffer takes one offer. What the predecessor knows counts in the first one only: later,
// people have decided here.
func (h *Handover) takeOffer(conn *handover.Conn, first bool, within time.Duration) error {
	g := h.gateway
	k := &taker{gateway: g}
	_, items, err := conn.Take(k, within)
	if err != nil {
		return err
	}
	if first {
		h.stopLater(g.restore(&k.state))
	}
	absent := make(map[string]int)
	for i, it := range items {
		g.adopt(k.records[i], [2]int(it.Files), k.note(i), absent)
	}
	if len(absent) > 0 {
		h.awaitBackends(absent)
	}
	if len(items) > 0 {
		g.router.log.Info("taken over", "tunnels", len(items))
	}
	return nil
}

// stopLater has end call stop, or does so itself if end was called already.
func (h *Handover) stopLater(stop func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopWish = stop; h.left {
		stop()
	}
}

// A taker reads what the predecessor sends.
type taker struct {
	gateway *Gateway
	state   takeoverState
	records []*upgrade.Record
}

// State implements [handover.Taker].
func (k *taker) State(part []byte) error {
	var pins []affinity.StoredPin
	if err := decode(part, &pins); err != nil {
		return err
	}
	for _, pin := range pins {
		affinity.InheritPin(k.gateway.router.affinity, pin)
	}
	return nil
}

// Room implements [handover.Taker].
func (k *taker) Room(files int) error { return handover.Room(files) }

// Check implements [handover.Taker].
func (k *taker) Check(state []byte, items []handover.Item) error {
	if err := decode(state, &k.state); err != nil {
		return err
	}
	for _, it := range items {
		r, err := upgrade.ParseRecord(it.Record)
		if err != nil {
			return err
		}
		if len(it.Files) != 2 {
			return fmt.Errorf("a tunnel came with %d sockets", len(it.Files))
		}
		k.records = append(k.records, r)
	}
	return nil
}

// note returns what was noted of the ith tunnel. Older builds note nothing.
func (k *taker) note(i int) *tunnelNote {
	n := &tunnelNote{}
	if i < len(k.state.Notes) {
		*n = k.state.Notes[i]
	}
	return n
}

// adopt goes on with a tunnel. If its backend isn't in the pool it counts that in absent.
func (g *Gateway) adopt(r *upgrade.Record, files [2]int, note *tunnelNote, absent map[string]int) {
	b := g.router.pool.Get(r.Group)
	opts := upgrade.ConnectOptions{Group: r.Group, Key: r.Key, Turn: r.Turn, Closed: g.router.doctor.tunnelEnded}
	if b == nil {
		absent[r.Group]++
	} else {
		b.BeginTunnel()
		opts.Heard = b.Heard()
		opts.Closed = func(s upgrade.Summary) {
			b.EndTunnel()
			g.router.doctor.tunnelEnded(s)
		}
	}
	tunnel, err := g.upgrade.Adopt(r, files, opts)
	if err != nil {
		if b != nil {
			b.EndTunnel()
		}
		g.router.log.Warn("takeover: a tunnel was lost", "err", err)
		return
	}
	g.countAdopted(tunnel, note)
	if b == nil {
		return
	}
	select {
	case <-b.Lost():
		tunnel.Close(closecode.ServiceRestart, "backend lost")
	default:
	}
}

// awaitBackends drains the tunnels of backends that aren't in the pool in a while, since nobody
// would notice if these ended. A source may need a moment to name them.
func (h *Handover) awaitBackends(absent map[string]int) {
	g := h.gateway
	h.mu.Lock()
	defer h.mu.Unlock()
	h.missing = time.AfterFunc(h.absentTime, func() {
		for id, n := range absent {
			if g.router.pool.Get(id) == nil {
				g.router.log.Info("takeover: tunnels of a backend that isn't in the pool are drained", "backend", id, "tunnels", n)
				g.upgrade.DrainGroup(id, closecode.ServiceRestart, "backend is gone", h.absentTurn)
			}
		}
	})
}
