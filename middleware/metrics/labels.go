package metrics

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/closecode"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// The values of labels. There are no others, whatever clients and backends send.
var (
	classes    = [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"} // of a status; none: a hook has panicked
	sources    = [...]string{"none", "backend", "affinity", "gateway"}
	outcomes   = [...]string{"hit", "new", "moved", "expired", "forged", "unknown"}
	failures   = [...]string{"connect", "timeout", "lost", "broken"}
	aborters   = [...]string{"client", "backend"}
	directions = [...]string{"to_client", "to_backend"}
	states     = [...]string{"up", "draining", "down"}
	healths    = [...]string{"well", "sick", "dead"}
	wishes     = [...]string{"serve", "drain", "off"}
)

const (
	failedConnect = iota
	failedTimeout
	failedLost
	failedBroken
)

const (
	byClient = iota
	byBackend
)

const (
	toClient = iota
	toBackend
)

// sides is the number of sides that can end a tunnel.
const sides = upgrade.SideBackend + 1

// class returns the index of a status in classes.
func class(status int) int {
	if c := status / 100; 1 <= c && c < len(classes) {
		return c
	}
	return 0
}

// outcome returns the index of a record's outcome, or -1 if it has none.
func outcome(word string) int {
	for i, o := range outcomes {
		if o == word {
			return i
		}
	}
	return -1
}

// failure returns the index of the cause for which an attempt at a backend has failed, or
// -1 if the backend wasn't at fault.
func failure(err error) int {
	var failed *balancer.Error
	var wire net.Error
	switch {
	case limpet.StatusCode(err) < http.StatusBadGateway, errors.Is(err, upgrade.ErrClosed):
		return -1
	case errors.Is(err, balancer.ErrLost):
		return failedLost
	case errors.As(err, &failed) && !failed.Sent:
		return failedConnect
	case errors.As(err, &wire) && wire.Timeout():
		return failedTimeout
	}
	return failedBroken
}

// closeCodes are the codes of close frames (RFC 6455, section 7.4.1, and the registry of
// IANA) with an index of their own. Those that applications and libraries define, and
// all others, have one index for each range.
var closeCodes = [...]string{
	"none", "1000", "1001", "1002", "1003", "1005", "1007", "1008", "1009", "1010", "1011", "1012", "1013", "1014",
	"3xxx", "4xxx", "other",
}

// closeCode returns the index of the code of a tunnel's first close frame.
func closeCode(code int) int {
	const threes, fours, other = len(closeCodes) - 3, len(closeCodes) - 2, len(closeCodes) - 1
	switch {
	case code == 0:
		return 0
	case closecode.Normal <= code && code <= 1003:
		return 1 + code - closecode.Normal
	case code == closecode.NoStatus:
		return 5
	case closecode.InvalidPayload <= code && code <= 1014:
		return 6 + code - closecode.InvalidPayload
	case 3000 <= code && code < 4000:
		return threes
	case 4000 <= code && code < 5000:
		return fours
	}
	return other
}

// An ownCause is why the gateway has answered itself, together with the status. The first
// that fits a record counts.
type ownCause struct {
	cause string
	is    func(status int, err error) bool
}

// ownCauses are the causes of the gateway's own answers. The last one fits all.
var ownCauses = [...]ownCause{
	{"full", func(_ int, err error) bool { return errors.Is(err, balancer.ErrFull) }},
	{"no_backend", func(status int, err error) bool {
		return status == http.StatusServiceUnavailable && errors.Is(err, balancer.ErrNoBackend)
	}},
	{"shutdown", func(_ int, err error) bool { return errors.Is(err, upgrade.ErrClosed) }},
	{"home_gone", func(status int, _ error) bool { return status == http.StatusServiceUnavailable }},
	{"backend_lost", func(_ int, err error) bool { return errors.Is(err, balancer.ErrLost) }},
	{"timeout", func(status int, err error) bool {
		return errors.Is(err, context.DeadlineExceeded) || status == http.StatusGatewayTimeout && errors.Is(err, os.ErrDeadlineExceeded)
	}},
	{"backend_failed", func(status int, _ error) bool { return status == http.StatusBadGateway }},
	{"body_too_large", func(status int, _ error) bool { return status == http.StatusRequestEntityTooLarge }},
	{"bad_request", func(status int, _ error) bool {
		return 400 <= status && status < 500 || status == http.StatusNotImplemented // CONNECT
	}},
	{"internal", func(int, error) bool { return true }},
}

// ownAnswers counts the requests that no backend has answered.
type ownAnswers struct {
	requests [len(sources)][len(classes)]atomic.Int64
	causes   [len(ownCauses)]atomic.Int64
}

func (a *ownAnswers) count(rec *limpet.Record) {
	a.requests[int(rec.Source)%len(sources)][class(rec.Status)].Add(1)
	if rec.Source != limpet.SourceGateway {
		return
	}
	status := limpet.StatusCode(rec.Err) // an ErrorHandler may have written another one
	for i := range ownCauses {
		if ownCauses[i].is(status, rec.Err) {
			a.causes[i].Add(1)
			return
		}
	}
}
