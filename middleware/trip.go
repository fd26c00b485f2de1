package middleware

import (
	"cmp"
	"net/http"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
)

// A trip is one request's way to a backend and back.
type trip struct {
	in   *http.Request // what the affinity sees: the client's request
	pin  affinity.Pin
	body *replay // nil for a request without a body

	// try sends the request to b. An answer of any status is a success; an
	// error means that there was none.
	try func(b *balancer.Backend) (*http.Response, error)

	backend *balancer.Backend // who answered
	counted bool              // the backend counts this request, until end

	tried   []*balancer.Backend
	first   [4]*balancer.Backend // room for tried
	refused bool                 // the home refused the connection
	until   time.Time            // with GoneWait: when the client moves
}

// end ends the backend's count of the request. Calls after the first do nothing.
func (t *trip) end() {
	if t.counted {
		t.counted = false
		t.backend.End()
	}
}

// request returns out as it goes to b: with the backend in its context, the
// backend's address in its URL, and a body of its own.
func (t *trip) request(out *http.Request, b *balancer.Backend) (*http.Request, error) {
	r := out.WithContext(balancer.WithBackend(out.Context(), b))
	u := *out.URL
	u.Scheme, u.Host = b.URL().Scheme, cmp.Or(b.URL().Host, "localhost") // which a Unix socket goes by
	r.URL = &u
	return r, t.reopen(r)
}

// reopen gives out a body of its own for one more attempt.
func (t *trip) reopen(out *http.Request) (err error) {
	if t.body != nil {
		out.Body, err = t.body.open()
		out.GetBody = t.body.open
	}
	return err
}
