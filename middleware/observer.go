package middleware

import (
	"slices"
	"sync/atomic"

	"github.com/limpet-go/limpet/upgrade"
)

// An Observer is told what has become of requests and tunnels. Metrics, the status page
// and [AccessLog] are observers, and a service may add its own with [Gateway.Observe].
// They don't know of each other.
//
// Each hook may be nil. Hooks are called concurrently for different requests, on
// goroutines that serve clients, and must return quickly. If nobody observes, nothing is
// recorded.
type Observer struct {
	// Request is called once for each request, when its answer is written or has
	// broken off, or when its connection has become a tunnel. The record is reused
	// after Request has returned.
	Request func(rec *Record)

	// Opened is called right before a tunnel begins to carry messages. What the record
	// tells of the end isn't known yet. t.Send waits until the tunnel carries messages,
	// so Opened must not call Send itself, but on another goroutine. If the client's
	// connection can't be taken over after that, the record that Request gets is one
	// without Tunnel, and there is no Closed; t.OnClosed tells of that end, too. A
	// [Sticky] never calls Opened, as it has no upgrade.Tunnel.
	Opened func(rec *Record, t *upgrade.Tunnel)

	// Closed is called once for each record with Tunnel set, when both connections of
	// the tunnel are closed, and after Request has returned. All observers get the same
	// record, and none may change it. The tunnel's engine waits for Closed.
	Closed func(rec *TunnelRecord)
}

// observers are those of a router. The list is replaced and never changed.
type observers struct{ list atomic.Pointer[[]*Observer] }

// add adds o until stop is called. Further calls of stop do nothing.
func (s *observers) add(o Observer) (stop func()) {
	s.change(func(all []*Observer) []*Observer { return append(all, &o) })
	return func() {
		s.change(func(all []*Observer) []*Observer {
			return slices.DeleteFunc(all, func(other *Observer) bool { return other == &o })
		})
	}
}

// change replaces the list by what f makes of a copy of it.
func (s *observers) change(f func([]*Observer) []*Observer) {
	for {
		old := s.list.Load()
		var all []*Observer
		if old != nil {
			all = slices.Clone(*old)
		}
		all = f(all)
		next := &all
		if len(all) == 0 {
			next = nil // so that requests see at once that nobody observes
		}
		if s.list.CompareAndSwap(old, next) {
			return
		}
	}
}
