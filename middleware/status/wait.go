package status

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// serveBackend answers with how a backend is, at once or when it may be stopped.
func (h *Handler) serveBackend(w http.ResponseWriter, r *http.Request, id string) error {
	b, err := h.backendOf(id)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	switch q.Get("wait") {
	case "":
	case "empty":
		timeout := time.Minute
		if text := q.Get("timeout"); text != "" {
			if timeout, err = time.ParseDuration(text); err != nil || timeout <= 0 {
				return failf(http.StatusBadRequest, `timeout is %q: want a time such as "90s" or "5m"`, text)
			}
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // that of the server's WriteTimeout
		if err := h.awaitEmpty(r, b, timeout); err != nil {
			return err
		}
	default:
		return failf(http.StatusBadRequest, "wait is %q: all there is to wait for is empty", q.Get("wait"))
	}
	return h.writeBackend(w, b)
}

const (
	// maxWait is how long a call may wait for an empty backend.
	maxWait = time.Hour
	// lookEvery is how often a waiting call looks again by itself, once the backend is
	// Down or empty for this gateway. There is no event for what other gateways tell, nor for
	// the end of a request that has begun after the backend was told to be empty.
	lookEvery = 200 * time.Millisecond
)

// awaitEmpty returns when the backend may be stopped: when it is empty for this gateway and
// for all others on the bus. It wakes at the pool's changes; one of these is that the last
// request or tunnel of a drained backend has ended.
func (h *Handler) awaitEmpty(r *http.Request, b *balancer.Backend, timeout time.Duration) error {
	if h.maySteer(r) {
		h.watchers.Add(1) // many who only look must not keep a deploy from waiting
	} else if !h.watch() {
		return errWatchers
	}
	defer h.watchers.Add(-1)
	ctx, cancel := context.WithTimeout(r.Context(), min(timeout, maxWait))
	defer cancel()
	ended := h.servers.of(r)
	for {
		_, _, changed := h.timeline.after(0)
		var look <-chan time.Time
		if empty(b) || b.State() == balancer.Down {
			look = time.After(lookEvery)
		}
		switch {
		case h.gateway.Pool().Get(b.ID()) != b:
			return failf(http.StatusNotFound, "%s was removed from the pool while you waited", b.ID())
		case b.Wanted().State == balancer.Up:
			return failf(http.StatusConflict, "%s serves, so that it never becomes empty: drain it, or turn it off", b.ID())
		case empty(b) && h.elsewhere(b) == "":
			return nil
		}
		select {
		case <-changed:
		case <-look:
		case <-ended:
			return failf(http.StatusServiceUnavailable, "this gateway is shutting down")
		case <-h.servers.ended:
			return failf(http.StatusServiceUnavailable, "this gateway is shutting down")
		case <-ctx.Done():
			left := fmt.Sprintf("%d requests and tunnels are left", b.InFlight())
			if empty(b) {
				left = h.elsewhere(b)
			}
			return failf(http.StatusGatewayTimeout, "%s isn't empty yet: %s", b.ID(), left)
		}
	}
}

// elsewhere says which other gateway on the bus may still use b, "" if none does.
func (h *Handler) elsewhere(b *balancer.Backend) string {
	noticed := h.drains.of(b).noticed
	forever := b.Wanted().State == balancer.Draining && b.Wanted().Within == 0
	for _, replica := range h.gateway.Stats().Replicas {
		for _, its := range replica.Backends {
			left := its.State == balancer.Down.String() || its.State == balancer.Draining.String() && forever
			switch {
			case its.ID != b.ID(), left && its.Requests+its.Tunnels == 0 && replica.Heard.After(noticed):
			case replica.Heard.After(noticed):
				return fmt.Sprintf("at the gateway %s it is %s, with %d requests and %d tunnels", replica.Name, its.State, its.Requests, its.Tunnels)
			default:
				return fmt.Sprintf("the gateway %s has told nothing since then", replica.Name)
			}
		}
	}
	return ""
}
