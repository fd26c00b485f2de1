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
	errConnect  = errors.New("CONNECT is for forward proxies")
	errNoHijack = errors.New("the connection can't be taken over: a middleware hides the server's ResponseWriter (no Unwrap)")
)

// A verdict is what the router makes of a failed attempt's error. A failure that isn't
// the request's fault is that of the backend, or of the network on the way to it, and is
// reported to the pool's health.
type verdict struct {
	fault   bool // the request or this gateway is at fault: no other backend would do better
	sent    bool // bytes of the request may have reached the backend
	refused bool // the connection was refused
	slow    bool // the attempt failed by a time limit
	lost    bool // the backend was lost while the request waited for it
}

// judge returns the verdict on an attempt that failed with err. Of an error that says
// nothing else, it assumes that bytes were sent.
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

// StatusCode returns the status for the gateway's own answer to a request that failed
// with err. An ErrorHandler, or that of an httputil.ReverseProxy over [Sticky], uses it:
//
//	400  the request is malformed, or its body could not be read
//	408  the client was too slow to send the body
//	413  the body is longer than MaxBody or another limit
//	499  the client went away (nginx's status, for logs: the client doesn't get it)
//	500  a middleware hides the connection, which a tunnel needs; or the request can't be
//	     sent as this process has made it, see Invalid of [balancer.Error]
//	501  the method is CONNECT: a gateway is no forward proxy
//	502  the backend failed
//	503  no backend could take the request or had room for it ([balancer.Limit]), its home
//	     is gone and GoneRefuse is set, or the gateway shuts down
//	504  a time limit ended the request, or its backend was lost while it waited
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
	case errors.Is(err, errConnect):
		return http.StatusNotImplemented
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
