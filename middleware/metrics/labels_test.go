package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"testing"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

func TestCauses(t *testing.T) {
	t.Parallel()
	unsent := &balancer.Error{Backend: "a", Err: syscall.ECONNREFUSED}
	sent := &balancer.Error{Backend: "a", Sent: true, Err: errors.New("EOF")}
	slow := &balancer.Error{Backend: "a", Sent: true, Err: context.DeadlineExceeded}
	lost := &balancer.Error{Backend: "a", Sent: true, Err: balancer.ErrLost}
	for _, tt := range []struct {
		name    string
		err     error
		cause   string // of the gateway's answer
		failure string // of the attempt, "" if the backend isn't at fault
	}{
		{"nothing up", balancer.ErrNoBackend, "no_backend", "broken"},
		{"nobody takes it", fmt.Errorf("%w; the last attempt: %w", balancer.ErrNoBackend, unsent), "no_backend", "connect"},
		{"refused", unsent, "backend_failed", "connect"},
		{"broke", sent, "backend_failed", "broken"},
		{"too slow", slow, "timeout", "timeout"},
		{"lost", lost, "backend_lost", "lost"},
		{"shutdown", fmt.Errorf("serve: %w", upgrade.ErrClosed), "shutdown", ""},
		{"too long", &http.MaxBytesError{Limit: 1}, "body_too_large", ""},
		{"bad handshake", upgrade.ErrBadRequest, "bad_request", ""},
		{"impossible request", &balancer.Error{Invalid: true, Err: errors.New("no such field")}, "internal", ""},
		{"client left", context.Canceled, "bad_request", ""}, // has another source, so isn't counted as an answer
	} {
		var own ownAnswers
		own.count(&limpet.Record{Source: limpet.SourceGateway, Status: limpet.StatusCode(tt.err), Err: tt.err})
		for i := range own.causes {
			if n, is := own.causes[i].Load(), ownCauses[i].cause == tt.cause; (n == 1) != is {
				t.Errorf("%s: %d for the cause %s, want %s", tt.name, n, ownCauses[i].cause, tt.cause)
			}
		}
		got := ""
		if i := failure(tt.err); i >= 0 {
			got = failures[i]
		}
		if got != tt.failure {
			t.Errorf("%s: failed by %q, want %q", tt.name, got, tt.failure)
		}
	}
}

func TestCloseCodes(t *testing.T) {
	t.Parallel()
	for code := range 6000 {
		want := "other"
		switch {
		case code == 0:
			want = "none"
		case 1000 <= code && code <= 1014 && code != 1004 && code != 1006:
			want = fmt.Sprint(code)
		case 3000 <= code && code < 5000:
			want = fmt.Sprint(code/1000) + "xxx"
		}
		if got := closeCodes[closeCode(code)]; got != want {
			t.Errorf("code %d is %s, want %s", code, got, want)
		}
	}
}
