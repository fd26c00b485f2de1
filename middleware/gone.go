package middleware

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/pause"
)

// Gone says what happens to a client whose home is gone, which means that it is Down or
// refuses connections. The clients of a home that was removed from the pool, or drained,
// always move: the former won't come back, and the latter is to be left.
type Gone int

const (
	// GoneMove gives the client a new home at once.
	GoneMove Gone = iota
	// GoneWait waits for the home to come back, as a process does that is restarted,
	// for WaitFor at most. Then it moves the client.
	GoneWait
	// GoneRefuse answers 503 until the home is back, and never sends the client's
	// requests to another backend. It is for backends with state that no other has.
	GoneRefuse
)

// waitStep is how long a waiting request sleeps before it looks again whether its home is
// back.
const waitStep = 50 * time.Millisecond

const (
	// judgeLeast and judgeMost bound for how long the request of a session waits for health to
	// judge its node, beside what the checks' settings say. A node that is gone is found so
	// by the check that the failure causes, within milliseconds; one that hangs has let the
	// check wait already.
	judgeLeast = 2 * time.Second
	judgeMost  = 15 * time.Second
	// judgeStep is how long such a request sleeps before it looks again.
	judgeStep = 10 * time.Millisecond
)

// errUnjudged asks for another check while a request waits for health's judgement. Nothing
// more is known than with the failure, which was reported.
var errUnjudged = errors.New("a request of a session has failed")

// losing waits until health has judged b after a request there has failed. It reports
// whether a session at b is gone, and otherwise whether b is well: then the failure was that
// of a single request. It may be neither, if health takes longer than the request may wait,
// or if nobody checks b any more.
//
// The session is gone if b is Down. It also is if b refuses a check that began after the
// failure, even if b isn't dead because it goes on serving its tunnels: no request can
// reach the session any more. Only a check that began after the failure can show that b is
// well.
func (r *router) losing(ctx context.Context, b *balancer.Backend, key string) (gone, well bool) {
	if _, answers := r.affinity.(affinity.GoneHandler); !answers {
		return false, false
	}
	failed := time.Now()
	limit := min(max(r.pool.JudgeWithin(), judgeLeast), judgeMost)
	for b.Keeps(key) {
		if s := b.Status(); s.Checked.Add(-s.CheckTook).After(failed) {
			if s.CheckErr == nil {
				return false, true
			}
			if errors.Is(s.CheckErr, syscall.ECONNREFUSED) {
				return true, false
			}
		}
		if !r.pool.Report(b, errUnjudged) || time.Since(failed) > limit || !pause.For(ctx, judgeStep) {
			return false, false
		}
	}
	return true, false
}

// isGone reports whether a home is Down for another reason than a drain.
func isGone(home *balancer.Backend) bool {
	return home.State() == balancer.Down && home.Wanted().State != balancer.Draining
}

// awaits reports whether the request should wait for b, its home, to come back. Its first
// call sets the end of the waiting.
func (r *router) awaits(t *trip, b *balancer.Backend) bool {
	if r.gone != GoneWait || b.ID() != t.home() || r.pool.Get(b.ID()) != b {
		return false
	}
	if t.until.IsZero() {
		t.until = time.Now().Add(r.wait)
	}
	return time.Now().Before(t.until)
}

// goneAnswer returns the affinity's own answer to a request whose pin is Fixed and whose
// home is gone, or from whose home the client was moved. If the affinity has no answer, the
// request may move.
func (r *router) goneAnswer(t *trip) *http.Response {
	handler, ok := r.affinity.(affinity.GoneHandler)
	if !ok || !t.pin.Fixed || t.pin.Backend == "" {
		return nil
	}
	if home := r.pool.Get(t.pin.Backend); home != nil && home.Keeps(t.turn()) && t.move == nil && !t.lost {
		return nil
	}
	t.stays = false
	res := handler.Gone(t.in, t.pin)
	t.pin.Fixed = res != nil
	if res != nil {
		t.backend = nil
		t.rec.answered(SourceAffinity, res.StatusCode, res.Header)
	}
	return res
}

// yield takes those fields off an answer of the affinity's that middlewares in front of the
// gateway have set: they know better, and browsers refuse doubled fields of CORS. Only Vary
// stays, as all that stands in any of its lines counts.
func yield(answer, set http.Header) {
	for name, values := range answer {
		if len(set[name]) > 0 && (name != "Vary" || slices.Equal(values, set[name])) {
			delete(answer, name)
		}
	}
}
