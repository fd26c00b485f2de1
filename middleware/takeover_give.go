package middleware

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/limpet-go/limpet/internal/handover"
	"github.com/limpet-go/limpet/upgrade"
)

const (
	readyTime = 2 * time.Minute        // how long a successor may take to be ready; others wait meanwhile
	restPause = 100 * time.Millisecond // between two looks for tunnels that were opened since
	restTime  = time.Second            // how long the last look waits for tunnels that can't move for a moment
)

// serve waits for successors, one after another, until one has everything.
func (h *Handover) serve() {
	for {
		conn, err := h.door.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			h.gateway.router.log.Warn("takeover: nobody can be accepted", "err", err)
			time.Sleep(time.Second)
			continue
		}
		if err := handover.SameUser(conn); err != nil {
			h.gateway.router.log.Warn("takeover: refused", "err", err)
			conn.Close()
			continue
		}
		c := handover.NewConn(conn)
		since, err := h.serveOne(c)
		if err == nil {
			h.giveRest(c, since)
			return
		}
		c.Close()
		h.refuse()
		if !handover.Ended(err) && !errors.Is(err, net.ErrClosed) {
			h.gateway.router.log.Warn("takeover: the successor did not take over", "err", err)
		}
	}
}

// serveOne gives everything to one successor. Then it returns nil, and the time since when pins
// may have changed.
func (h *Handover) serveOne(c *handover.Conn) (since time.Time, err error) {
	if !h.admit(c) {
		return since, net.ErrClosed
	}
	items, err := h.welcome()
	if err == nil {
		err = c.Welcome(items)
	}
	for _, it := range items {
		handover.CloseAll(it.Files)
	}
	if err == nil {
		err = c.AwaitReady(readyTime)
	}
	if !h.commit() {
		return since, net.ErrClosed // a successor that reads the end goes on alone, with the door
	}
	if err != nil {
		return since, c.Abort(err)
	}
	since = time.Now()
	if err := h.sendPins(c, time.Time{}); err != nil {
		return since, c.Abort(err)
	}
	began := time.Now()
	frozen := h.gateway.upgrade.Freeze()
	if err := h.give(c, frozen, true); err != nil {
		return since, err
	}
	h.gateway.router.log.Info("handed over", "tunnels", len(frozen), "paused", time.Since(began).Round(time.Millisecond))
	h.unlink(false)
	h.door.Close()
	close(h.gone)
	return since, nil
}

// admit notes that a successor has come, and reports false if it is too late.
func (h *Handover) admit(c *handover.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left {
		return false
	}
	h.session, h.welcomed = c, true
	return true
}

// refuse notes that the successor has got nothing. If this process ends, it may have the door all
// the same.
func (h *Handover) refuse() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.session, h.welcomed = nil, h.left
}

// commit reports whether the successor may have everything now. From then on end waits for it.
func (h *Handover) commit() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.session = nil
	return !h.left
}

// sendPins sends the pins that were used at since or later.
func (h *Handover) sendPins(c *handover.Conn, since time.Time) error {
	for part, err := range h.gateway.pinParts(since) {
		if err != nil {
			return err
		}
		if err := c.SendState(part); err != nil {
			return err
		}
	}
	return nil
}

// lateTime is longer than what may be waited for before the successor decides.
const lateTime = 12 * time.Second

// give gives tunnels, and in the first offer the state of the gateway. After an error they all go
// on here.
func (h *Handover) give(c *handover.Conn, frozen []*upgrade.Frozen, first bool) error {
	items, notes := make([]handover.Item, len(frozen)), make([]tunnelNote, len(frozen))
	for i, f := range frozen {
		items[i] = handover.Item{Record: f.Record, Files: f.Files[:]}
		notes[i] = h.noteOf(f.Tunnel)
	}
	gone := false
	state, err := h.gateway.state(notes, first)
	if err != nil {
		c.Abort(err)
	} else {
		late := time.AfterFunc(lateTime, func() {
			h.gateway.router.log.Warn("takeover: all WebSockets wait, since the successor doesn't say whether it has them; end it, and they go on here")
		})
		gone, err = c.Give(state, items)
		late.Stop()
	}
	end := (*upgrade.Frozen).Resume
	if gone {
		end = (*upgrade.Frozen).Moved
	}
	for _, f := range frozen {
		end(f)
	}
	if gone {
		return nil
	}
	return fmt.Errorf("nothing was handed over: %w", err)
}

// giveOpened gives the tunnels that are here and can move now, if there are any.
func (h *Handover) giveOpened(c *handover.Conn) error {
	if h.gateway.upgrade.Movable() == 0 {
		return nil
	}
	frozen := h.gateway.upgrade.Freeze()
	if len(frozen) == 0 { // they can't move at the moment
		return nil
	}
	return h.give(c, frozen, false)
}

// giveRest gives the tunnels that are opened on connections which are still here, and the pins
// that have changed since: those of clients whose first request is answered here, and whose next
// one comes to the successor.
func (h *Handover) giveRest(c *handover.Conn, since time.Time) {
	defer c.Close()
	pause := time.NewTimer(restPause)
	defer pause.Stop()
	for leaving := false; !leaving; {
		select {
		case <-pause.C:
		case <-h.leave:
			leaving = true
		}
		if err := h.giveOpened(c); err != nil {
			h.gateway.router.log.Warn("takeover: the successor did not take the last tunnels", "err", err)
			return
		}
		began := time.Now()
		if !h.giveNewPins(c, since) {
			return
		}
		since = began.Add(-restPause)                 // a pin is in its place a moment after its time
		pause.Reset(restPause + 10*time.Since(began)) // all pins were looked through
	}
	for until := time.Now().Add(restTime); h.gateway.upgrade.Movable() > 0 && time.Now().Before(until); time.Sleep(restPause / 10) {
		if h.giveOpened(c) != nil {
			return
		}
	}
	h.giveNewPins(c, since)
}

// giveNewPins gives the pins that were used at since or later, and reports whether it could.
func (h *Handover) giveNewPins(c *handover.Conn, since time.Time) bool {
	err := h.sendPins(c, since)
	if err != nil && !handover.Ended(err) {
		h.gateway.router.log.Warn("takeover: the successor did not get the last pins", "err", err)
	}
	return err == nil
}
