package middleware

import (
	"errors"
	"net/http"
	"os"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/closecode"
	"github.com/limpet-go/limpet/upgrade"
)

// requestEnd returns how a request ended, in the two letters of [AccessLog].
func requestEnd(rec *Record) string {
	switch {
	case rec.Status == 0:
		return "I-"
	case rec.Broken && rec.Left:
		return "CD"
	case rec.Broken:
		return whoFailed(rec.Err) + "D"
	case rec.Source == SourceBackend:
		return inOrder
	case rec.Source == SourceAffinity:
		return "LR"
	case rec.Source == SourceNone && rec.body != nil && !rec.body.complete():
		return "CD" // the failure to read the body is another sign of the same
	case rec.Source == SourceNone:
		return "C" + waitedFor(rec)
	}
	return refusalEnd(rec)
}

// refusalEnd is requestEnd for a request that the gateway has answered.
func refusalEnd(rec *Record) string {
	var tooLarge *http.MaxBytesError
	var body *bodyError
	var failed *balancer.Error
	err := rec.Err
	switch {
	case errors.As(err, &tooLarge), errors.Is(err, errMalformed), errors.Is(err, upgrade.ErrBadRequest), errors.Is(err, errConnect):
		return "PR"
	case errors.As(err, &body):
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "cD"
		}
		return "CD"
	case errors.Is(err, upgrade.ErrClosed), errors.Is(err, errNoHijack), errors.As(err, &failed) && failed.Invalid:
		return "PC"
	case errors.Is(err, balancer.ErrFull):
		return "sQ"
	case errors.Is(err, errRefused), len(rec.Attempts) == 0 && errors.Is(err, balancer.ErrNoBackend):
		return "SC"
	case len(rec.Attempts) > 0 && rec.Attempts[len(rec.Attempts)-1].Err == nil:
		return "PH"
	}
	return whoFailed(err) + waitedFor(rec)
}

// whoFailed returns the first letter for an error that isn't the client's.
func whoFailed(err error) string {
	switch v := judge(err); {
	case v.lost:
		return "D"
	case v.slow:
		return "s"
	}
	return "S"
}

// waitedFor returns the second letter for a request that ended before there was an answer:
// what it waited for.
func waitedFor(rec *Record) string {
	switch n := len(rec.Attempts); {
	case n > 0 && judge(rec.Attempts[n-1].Err).sent:
		return "H"
	case n > 0:
		return "C"
	case rec.Pin.Backend != "":
		return "Q"
	}
	return "R"
}

// tunnelEnd returns how a tunnel ended, in the two letters of [AccessLog].
func tunnelEnd(rec *TunnelRecord) string {
	switch {
	case rec.By == upgrade.SideClient && rec.Err != nil:
		return "CD"
	case rec.By == upgrade.SideBackend && rec.Err != nil:
		return "SD"
	case rec.By != upgrade.SideGateway:
		return inOrder
	case rec.Summary == upgrade.Summary{Duration: rec.Summary.Duration}:
		return inOrder // as far as a Sticky knows
	case rec.Reason == "backend lost":
		return "DD"
	case rec.Code == closecode.GoingAway && rec.Reason == "idle", rec.Err != nil:
		return "cD"
	case rec.Code == closecode.MessageTooBig, rec.Code == closecode.ProtocolError:
		return "PD"
	}
	return "KD"
}
