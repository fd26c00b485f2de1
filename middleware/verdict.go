package middleware

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/upgrade"
)

var (
	errRefused  = errors.New("the client's home is gone, and it may not move")
	errNoHijack = errors.New("the connection can't be taken over: a middleware hides the server's ResponseWriter (no Unwrap)")
)

// A verdict is what a failed attempt's error says. What is no fault of the request
// is one of the backend, or of the way to it, and told to health.
type verdict struct {
	fault   bool // of the request, or of this gateway; no backend does better
	sent    bool // bytes of the request may have reached the backend
	refused bool // the connection was refused
	slow    bool // it took all the time that it was given
	lost    bool // the backend was lost while the request waited for it
}

func judge(err error) verdict {
	var body *bodyError
	var failed *balancer.Error
	var wire net.Error
	v := verdict{
		fault:   errors.As(err, &body) || errors.Is(err, upgrade.ErrBadRequest) || errors.Is(err, upgrade.ErrClosed),
		sent:    true,
		refused: errors.Is(err, syscall.ECONNREFUSED),
		slow:    errors.As(err, &wire) && wire.Timeout(),
		lost:    errors.Is(err, balancer.ErrLost),
	}
	if errors.As(err, &failed) {
		v.fault, v.sent = v.fault || failed.Invalid, failed.Sent
	}
	return v
}

// StatusCode returns the status of the gateway's own answer to a request that
// failed with err, for an ErrorHandler: 503 when no backend could take it, 504
// when time ran out or the backend was lost while the request waited for it, 413,
// 408 or 400 when the request itself was at fault, 499 (nginx's) when the client
// went away, 500 when a middleware hides the connection that a tunnel needs or the
// request can't be sent as this process has made it (see Invalid of
// [balancer.Error]), and otherwise 502.
func StatusCode(err error) int {
	var tooLarge *http.MaxBytesError
	var body *bodyError
	var failed *balancer.Error
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.As(err, &body) && errors.Is(err, os.ErrDeadlineExceeded):
		return http.StatusRequestTimeout
	case errors.As(err, &body), errors.Is(err, upgrade.ErrBadRequest), errors.Is(err, errMalformed):
		return http.StatusBadRequest
	case errors.Is(err, errNoHijack):
		return http.StatusInternalServerError
	case errors.Is(err, context.Canceled):
		return 499
	case errors.Is(err, errRefused), errors.Is(err, upgrade.ErrClosed),
		errors.Is(err, balancer.ErrNoBackend) && !(errors.As(err, &failed) && failed.Sent):
		return http.StatusServiceUnavailable
	case errors.Is(err, balancer.ErrLost), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return http.StatusGatewayTimeout
	case errors.As(err, &failed) && failed.Invalid:
		// What is the client's fault was found above, or by the server that it
		// speaks to: a field that Rewrite has set, say, or the Transport's options.
		return http.StatusInternalServerError
	}
	return http.StatusBadGateway
}
