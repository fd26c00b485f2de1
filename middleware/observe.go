package middleware

import (
	"net/http"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// try sends the request to b, for a limited time if it may stray. It tells passive health what
// has become of that if the pool asks for it.
func (r *router) try(t *trip, b *balancer.Backend) (res *http.Response, err error) {
	began := time.Time{}
	if r.pool.Observes() {
		began = time.Now()
	}
	if t.strays {
		res, err = r.timed(t, b)
	} else {
		res, err = t.try(b)
	}
	if began.IsZero() {
		return res, err
	}
	if err == nil {
		result := balancer.Result{Status: res.StatusCode}
		if t.body == nil && res.StatusCode != http.StatusSwitchingProtocols && !isPoll(t.in) && !isStream(res.Header) {
			result.Begin = time.Since(began)
		}
		r.pool.Observe(b, result)
		return res, nil
	}
	// That a request which was sent has waited for too long may be its own fault, and that it
	// ended with its client says nothing. A connection that patience has given up early makes
	// b slow: see gaveUp.
	if v := judge(err); !v.fault && !v.lost && !(v.slow && (v.sent || t.patience.Connect > 0)) && t.in.Context().Err() == nil {
		r.pool.Observe(b, balancer.Result{Err: err})
	}
	return nil, err
}
