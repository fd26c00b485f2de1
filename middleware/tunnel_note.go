package middleware

import (
	"net/http"
	"net/netip"
	"reflect"
	"strings"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/upgrade"
)

// A tunnelNote is what the gateway knows of a tunnel beside the record that package upgrade makes
// of it. In a takeover it goes along with the tunnel. Builds that hand over to each other may have
// different fields: package gob leaves out those that only one of them has.
type tunnelNote struct {
	Client  netip.Addr // as ClientIP finds it
	Movable bool       // Options.Rebalance may move the client
	Pins    []notedPin // those that are touched while the tunnel is open
}

// A notedPin is a pin in a store.
type notedPin struct{ Place, Key, Backend string }

// noteTunnel notes what a successor has to know of a tunnel that is about to be served. found is
// the pin that the request has brought, and kept are those that are to be touched.
func (g *Gateway) noteTunnel(t *upgrade.Tunnel, r *http.Request, found affinity.Pin, kept []*keptPin) {
	if g.handover == nil {
		return
	}
	n := &tunnelNote{Client: g.client.Addr(r), Movable: g.router.mayMove(found)}
	for _, p := range kept {
		if place := g.placeOf(p.store); place != "" {
			n.Pins = append(n.Pins, notedPin{Place: place, Key: strings.Clone(p.key), Backend: p.backend})
		}
	}
	g.handover.note(t, n)
}

// placeOf returns the place of a store within the affinity, "" if it isn't known.
func (g *Gateway) placeOf(store affinity.Toucher) string {
	if !reflect.ValueOf(store).Comparable() {
		return "" // a store of the user's own that isn't a pointer
	}
	for place, s := range affinity.Touchers(g.router.affinity) {
		if s == store {
			return place
		}
	}
	return ""
}

// countAdopted has all that counts tunnels, or does something for them, know of one that was
// taken over.
func (g *Gateway) countAdopted(t *upgrade.Tunnel, n *tunnelNote) {
	if n.Movable {
		g.rebalancer.add(t)
	}
	var kept []*keptPin
	for _, p := range n.Pins {
		for place, store := range affinity.Touchers(g.router.affinity) {
			if place == p.Place {
				kept = append(kept, &keptPin{store: store, key: p.Key, backend: p.Backend})
				break
			}
		}
	}
	g.keeper.keep(kept, t, true)
	for _, l := range g.handover.inFront() {
		s := l.adopt(n.Client)
		t.OnClosed(func(upgrade.Summary) { s.End() })
	}
	g.handover.note(t, n)
}

// note notes n until the tunnel has ended.
func (h *Handover) note(t *upgrade.Tunnel, n *tunnelNote) {
	h.notes.Store(t, n)
	t.OnClosed(func(upgrade.Summary) { h.notes.Delete(t) })
}

// limit has l count the tunnels that are taken over from now on.
func (h *Handover) limit(l *Limit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.limits = append(h.limits, l)
}

// inFront returns the limits in front of the gateway.
func (h *Handover) inFront() []*Limit {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.limits
}

// noteOf returns what was noted of a tunnel, which may be nothing.
func (h *Handover) noteOf(t *upgrade.Tunnel) (n tunnelNote) {
	if noted, ok := h.notes.Load(t); ok {
		n = *noted.(*tunnelNote)
	}
	return n
}
