package status

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// stateEvery is how often a stream sends the state if nothing changes.
	stateEvery = time.Second
	// stateSpace is the least time between two states of a stream. One decision may change
	// many backends.
	stateSpace = 200 * time.Millisecond
)

// serveEvents is an event stream (HTML Living Standard, section 9.2). It needs no
// heartbeat, since there is a message each second.
//
// The stream ends when the client leaves, when it takes too long to read, when the Handler
// is closed, and when the server is shut down.
func (h *Handler) serveEvents(w http.ResponseWriter, r *http.Request, _ string) error {
	if !h.watch() {
		return errWatchers
	}
	defer h.watchers.Add(-1)
	header := w.Header()
	setHeader(w)
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no") // for nginx
	if r.Method == http.MethodHead {
		return nil
	}
	s := stream{w: w, rc: http.NewResponseController(w)}
	if errors.Is(s.rc.Flush(), http.ErrNotSupported) {
		return failf(http.StatusInternalServerError, "a handler in front of this one hides the server's ResponseWriter, so that nothing can be streamed: its ResponseWriter needs a method Unwrap")
	}
	defer s.rc.SetWriteDeadline(time.Time{}) // the connection may serve another request
	ended := h.servers.of(r)
	steers := h.maySteer(r)
	events, seen, changed := h.missed(r)
	s.buf.WriteString("retry: 1000\n\n")
	timer := time.NewTimer(0)
	defer timer.Stop()
	var sent time.Time // the last state
	due := true
	for {
		for _, e := range events {
			s.event(e, steers)
		}
		if due {
			s.state(h.streams.latest(h, steers))
			sent, due = time.Now(), false
			timer.Reset(untilNext(h.census.began))
		}
		if s.flush() != nil {
			return nil
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-ended:
			return nil
		case <-h.servers.ended:
			return nil
		case <-timer.C:
			due = true
		case <-changed:
			if wait := stateSpace - time.Since(sent); wait > 0 {
				timer.Reset(wait)
			} else {
				due = true
			}
		}
		events, seen, changed = h.timeline.after(seen)
	}
}

var errWatchers = failf(http.StatusServiceUnavailable, "%d viewers are watching already", maxWatchers)

// watch counts a watcher, and reports false if there are too many.
func (h *Handler) watch() bool {
	if h.watchers.Add(1) > maxWatchers {
		h.watchers.Add(-1)
		return false
	}
	return true
}

// untilNext returns the time to the next whole second since began. All streams send their
// states then, so that one state serves all.
func untilNext(began time.Time) time.Duration {
	return stateEvery - time.Since(began)%stateEvery
}

// missed returns the events that a client has missed which comes back. A new client has
// got none yet, but finds them in api/state.
func (h *Handler) missed(r *http.Request) (events []event, last int64, changed <-chan struct{}) {
	seen, err := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64)
	events, last, changed = h.timeline.after(seen)
	switch {
	case err != nil:
		return nil, last, changed
	case seen > last: // another process has given this ID
		return h.timeline.after(0)
	}
	return events, last, changed
}

// A stream writes the messages of one event stream.
type stream struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	buf bytes.Buffer
}

func (s *stream) event(e event, steers bool) {
	if !steers {
		e.Who = ""
	}
	data, _ := json.Marshal(e) // can't fail
	fmt.Fprintf(&s.buf, "event: event\nid: %d\ndata: %s\n\n", e.ID, data)
}

func (s *stream) state(data []byte) {
	fmt.Fprintf(&s.buf, "event: state\ndata: %s\n\n", data)
}

// flush writes what was added. It fails if the client doesn't read it in time.
func (s *stream) flush() error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := s.w.Write(s.buf.Bytes()); err != nil {
		return err
	}
	s.buf.Reset()
	return s.rc.Flush()
}

// streams share one state, so that many viewers cost little more than one.
type streams struct {
	mu     sync.Mutex
	at     time.Time
	state  *state
	byView map[bool][]byte // the state as JSON, for those who may steer and for others
}

// latest returns a state that is at most half of stateSpace old, as JSON.
func (s *streams) latest(h *Handler, steers bool) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, last, _ := h.timeline.after(0); s.state == nil || last != s.state.last || time.Since(s.at) > stateSpace/2 {
		s.state, s.at = h.state(), time.Now()
		s.byView = make(map[bool][]byte)
	}
	if s.byView[steers] == nil {
		s.byView[steers], _ = json.Marshal(h.view(s.state, steers)) // can't fail
	}
	return s.byView[steers]
}

// servers know which http.Servers have requests to a Handler. Shutdown of such a server
// waits for event streams to end, and doesn't end their contexts.
type servers struct {
	mu    sync.Mutex
	all   []*server
	ended chan struct{} // closed by close
	over  bool
}

type server struct {
	*http.Server
	ended chan struct{} // closed when the server is shut down
	once  sync.Once     // Shutdown may be called twice
}

// of returns a channel that is closed when the server of r is shut down. It must have been
// called before that: for this reason it is called with the first request of each server,
// which is mostly none of an event stream.
func (s *servers) of(r *http.Request) <-chan struct{} {
	srv, _ := r.Context().Value(http.ServerContextKey).(*http.Server)
	if srv == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, known := range s.all {
		if known.Server == srv {
			return known.ended
		}
	}
	known := &server{Server: srv, ended: make(chan struct{})}
	s.all = append(s.all, known)
	srv.RegisterOnShutdown(func() { known.once.Do(func() { close(known.ended) }) })
	return known.ended
}

func (s *servers) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.over = true
		close(s.ended)
	}
}
