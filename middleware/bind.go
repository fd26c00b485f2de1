package middleware

import (
	"net/http"

	"github.com/limpet-go/limpet/affinity"
)

// bind ties the client to its home on the answer. The home is the backend that
// answered, unless that one only stood in: a home that failed a single request,
// but is neither Down nor refusing connections, keeps its client. Otherwise the
// requests that a client has under way at the same time would end up on two
// backends.
func (r *router) bind(t *trip, res *http.Response) {
	from, home := t.home(), t.backend.ID()
	if from != "" && from != home && !t.refused {
		if b := r.pool.Get(from); b != nil && b.Keeps(t.pin.Key) {
			home = from
		}
	}
	a := affinity.Answer{Response: res, Request: t.in, Found: t.pin, Home: home}
	if home != t.backend.ID() {
		a.StandIn = t.backend.ID()
	}
	if res.StatusCode == http.StatusBadRequest { // no other answer is worth allocating the function
		a.UnknownSession = func(pin affinity.Pin) {
			t.unknown = true
			r.unknownSession(t, pin)
		}
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		a.Keep = t.keep
	}
	if t.move != nil {
		t.move.bound(t.pin, home)
	}
	if t.led != nil {
		r.arrivals.arrived(t.led)
		t.led = nil
	}
	key, err := r.affinity.Bind(a)
	if err != nil {
		r.warn(t.in.Context(), "affinity could not bind a client", "backend", home, "err", err)
	}
	if r.header != "" || t.rec != nil {
		word := outcome(t.pin, home)
		t.rec.bound(word, key)
		if r.header != "" {
			res.Header.Set(r.header, word)
		}
	}
	found := t.pin
	t.pin.Key = key
	r.answered(t, res, found, t.unknown)
}

// outcome returns the value of PinHeader for a pin that is now bound to home.
func outcome(found affinity.Pin, home string) string {
	switch {
	case found.Backend == home:
		return affinity.Hit.String()
	case found.Backend != "":
		return "moved"
	case found.Status == affinity.None:
		return "new"
	}
	return found.Status.String()
}
