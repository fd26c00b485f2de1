package middleware

import (
	"cmp"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// Retry limits how often failed requests are sent again, for each request and for the
// gateway as a whole. Without limits, retries would multiply the load of a cluster that
// fails because it is overloaded.
//
// A request is sent again only if the backend surely got nothing of it, or if repeating
// it does no harm: its method is idempotent (RFC 9110 section 9.2.2), or it has the field
// Idempotency-Key or X-Idempotency-Key. No more than Body bytes of its body may have been
// read, and no byte of an answer may have reached the client.
//
// A connection that can't be made costs no budget, since nothing was sent. It isn't
// counted as an attempt either, unless it failed by a time limit. A request that waited
// for a backend which was then lost costs no budget.
type Retry struct {
	// Attempts is how many backends a request is sent to at most, the first
	// included. Default 3; 1 means never again.
	Attempts int
	// Budget is the share of requests that may be sent again, from 0 to 1. Up to 1,000
	// retries that aren't used are saved. Default 0.2.
	Budget float64
	// Floor is how many requests a second may be sent again beside the budget.
	// Default 10.
	Floor int
	// Body is how many bytes of a request's body are kept for sending them
	// again. Default 64 KiB.
	Body int
}

func (r Retry) withDefaults() Retry {
	return Retry{
		Attempts: cmp.Or(r.Attempts, 3), Budget: cmp.Or(r.Budget, 0.2), Floor: cmp.Or(r.Floor, 10), Body: cmp.Or(r.Body, 64<<10),
	}
}

func (r Retry) validate() error {
	switch {
	case r.Attempts < 0 || r.Floor < 0 || r.Body < 0:
		return fmt.Errorf("limpet: Retry has a negative limit (Attempts %d, Floor %d, Body %d); 0 is the default, and Attempts: 1 means never again", r.Attempts, r.Floor, r.Body)
	case !(r.Budget >= 0 && r.Budget <= 1): // NaN too
		return fmt.Errorf("limpet: Retry.Budget is %v; want a share of the requests, from 0 for the default to 1", r.Budget)
	}
	return nil
}

// A budget holds what may be spent on retries. It is a token bucket that every
// request fills a little, beside an allowance for each second.
type budget struct {
	share, full int64 // in thousandths of a retry
	floor       int64
	tokens      atomic.Int64
	second      atomic.Int64 // the Unix time that spent belongs to
	spent       atomic.Int64
}

// budgetBurst is how many retries the bucket holds. All requests that wait for a backend
// may fail at once when it dies, and this many of them may be sent again.
const budgetBurst = 1000

func newBudget(r Retry) *budget {
	return &budget{
		share: int64(r.Budget * 1000),
		full:  budgetBurst * 1000,
		floor: int64(r.Floor),
	}
}

// earn is called once for each request.
func (b *budget) earn() {
	if b.tokens.Load() < b.full {
		b.tokens.Add(b.share)
	}
}

// spend reports whether one more retry may be made, and counts it.
func (b *budget) spend() bool {
	now := time.Now().Unix()
	if then := b.second.Load(); then != now && b.second.CompareAndSwap(then, now) {
		b.spent.Store(0)
	}
	if b.spent.Add(1) <= b.floor {
		return true
	}
	if b.tokens.Add(-1000) >= 0 {
		return true
	}
	b.tokens.Add(1000)
	return false
}

// idempotent reports whether r may be sent twice, because of its method or because its
// sender says so. net/http's Transport looks at the same two fields.
func idempotent(r *http.Request) bool {
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return r.Header["Idempotency-Key"] != nil || r.Header["X-Idempotency-Key"] != nil
}
