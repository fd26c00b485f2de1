package status_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/middleware/status"
)

// A message is one of an event stream.
type message struct{ event, id, data string }

// An eventStream is what an EventSource of a browser would have.
type eventStream struct {
	t    *testing.T
	res  *http.Response
	read *bufio.Reader
}

func (g *rig) stream(fields ...string) *eventStream {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), "GET", g.srv.URL+g.mount+"/api/events", nil)
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	tr := &http.Transport{}
	g.t.Cleanup(tr.CloseIdleConnections)
	res, err := tr.RoundTrip(req)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { res.Body.Close() })
	return &eventStream{g.t, res, bufio.NewReader(res.Body)}
}

// next returns the next message, or an error at the end of the stream.
func (s *eventStream) next() (m message, err error) {
	for {
		line, err := s.read.ReadString('\n')
		if err != nil {
			return m, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "event":
			m.event = value
		case "id":
			m.id = value
		case "data":
			m.data = value
		case "":
			if m.event != "" {
				return m, nil
			}
		}
	}
}

// await reads until ok is true of a message.
func (s *eventStream) await(what string, ok func(message) bool) message {
	s.t.Helper()
	timer := time.AfterFunc(patience, func() { s.res.Body.Close() })
	defer timer.Stop()
	for {
		m, err := s.next()
		if err != nil {
			s.t.Fatalf("waited for %s: %v", what, err)
		}
		if ok(m) {
			return m
		}
	}
}

// ended waits for the end of the stream.
func (s *eventStream) ended() {
	s.t.Helper()
	timer := time.AfterFunc(patience, func() { s.res.Body.Close() })
	defer timer.Stop()
	for {
		if _, err := s.next(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			s.t.Fatalf("the stream broke: %v", err)
		}
	}
}

func isState(m message) bool { return m.event == "state" }

func TestStream(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a b", &status.Options{Authorize: everybody, Who: named("alice")}, nil)
	s := g.stream()
	if kind := s.res.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("Content-Type %q", kind)
	}
	var first, second, third view
	for i, v := range []*view{&first, &second} {
		m := s.await("a state", isState)
		if err := json.Unmarshal([]byte(m.data), v); err != nil || len(v.Backends) != 2 || !v.Gateway.Steering || v.History != nil {
			t.Errorf("state %d: %v in %s", i, err, m.data)
		}
	}
	if gap := second.Time.Sub(first.Time); gap > 2*time.Second {
		t.Errorf("the second state came %v after the first", gap)
	}
	g.steer("backends/a/drain", "")
	m := s.await("the event", func(m message) bool { return m.event == "event" })
	var e eventView
	if err := json.Unmarshal([]byte(m.data), &e); err != nil || e.Kind != "drain" || e.Who != "alice" || m.id == "" {
		t.Errorf("%+v, %v", m, err)
	}
	_ = json.Unmarshal([]byte(s.await("a state", isState).data), &third)
	if third.Backends[0].State != "draining" {
		t.Errorf("the state behind the event: %+v", third.Backends[0])
	}
}

// A client that comes back gets the events that it has missed, and of another process all.
func TestStreamGoesOn(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a b", nil, nil)
	_ = g.pool.Drain("a", 0)
	seen := g.state("?history=1").Events[0].ID
	_ = g.pool.Undrain("a")
	_ = g.pool.Off("a")
	for name, tt := range map[string]struct {
		last string
		want []string
	}{
		"missed two":      {"%", []string{"serve", "off"}},
		"another process": {"999", []string{"gateway", "drain", "empty", "serve", "off"}},
	} {
		id := strings.ReplaceAll(tt.last, "%", strings.TrimSpace(jsonOf(seen)))
		s := g.stream("Last-Event-ID", id)
		for _, want := range tt.want {
			m := s.await("an event", func(m message) bool { return m.event == "event" })
			if !strings.Contains(m.data, `"kind":"`+want+`"`) {
				t.Errorf("%s: %s, want %s", name, m.data, want)
			}
		}
	}
}

func jsonOf(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
}

// A reader's stream doesn't say who steers.
func TestStreamOfAReader(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", &status.Options{Who: named("alice"), Authorize: func(r *http.Request) bool { return r.Method == "POST" }}, nil)
	s := g.stream()
	if m := s.await("a state", isState); !strings.Contains(m.data, `"steering":false,"steering_refused":true`) {
		t.Errorf("state %s", m.data)
	}
	g.steer("backends/a/drain", "")
	if m := s.await("the event", func(m message) bool { return m.event == "event" }); strings.Contains(m.data, "alice") {
		t.Errorf("event %s", m.data)
	}
}

// Shutdown of the server waits for its streams, so they must end by themselves.
func TestStreamEndsWithTheServer(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", nil, nil)
	s := g.stream()
	s.await("a state", isState)
	waits := g.pool.Drain("a", time.Hour) == nil
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := g.srv.Config.Shutdown(ctx); err != nil || !waits {
		t.Errorf("Shutdown: %v", err)
	}
	s.ended()
}

func TestStreamEndsWithClose(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", nil, nil)
	s := g.stream()
	s.await("a state", isState)
	g.status.Close()
	s.ended()
}

func TestTooManyWatchers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		authorize func(*http.Request) bool
		wait      int
	}{
		"readers":   {nil, 503},
		"operators": {everybody, 409}, // it isn't drained: they may wait nevertheless
	} {
		t.Run(name, func(t *testing.T) { tooManyWatchers(t, tt.authorize, tt.wait) })
	}
}

func tooManyWatchers(t *testing.T, authorize func(*http.Request) bool, wait int) {
	g := newRig(t, "a", &status.Options{Authorize: authorize}, nil)
	for range 64 {
		s := g.stream()
		s.await("a state", isState)
	}
	if a := g.call("GET", "backends/a?wait=empty", ""); a.status != wait {
		t.Errorf("wait: %d %s, want %d", a.status, a.body, wait)
	}
	if a := g.call("GET", "events", ""); a.status != 503 || !strings.Contains(a.body, "64 viewers") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.call("GET", "state", ""); a.status != 200 {
		t.Errorf("state: %d", a.status)
	}
}

// A client that doesn't read is dropped.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", nil, nil)
	w := &stuckWriter{header: http.Header{}}
	g.status.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/api/events", nil))
	if left := time.Until(w.stuck); left <= 0 || left > time.Minute {
		t.Errorf("a write may take %v", left)
	}
}

// A stuckWriter is one whose client doesn't read: each write ends at its deadline.
type stuckWriter struct {
	header   http.Header
	deadline time.Time
	stuck    time.Time // the deadline of the last Write
}

func (w *stuckWriter) Header() http.Header                       { return w.header }
func (w *stuckWriter) WriteHeader(int)                           {}
func (w *stuckWriter) Flush()                                    {}
func (w *stuckWriter) SetWriteDeadline(deadline time.Time) error { w.deadline = deadline; return nil }
func (w *stuckWriter) Write([]byte) (int, error) {
	w.stuck = w.deadline
	return 0, os.ErrDeadlineExceeded
}

// The server's timeouts are meant for requests, and don't end a stream.
func TestStreamOutlivesTimeouts(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", nil, nil)
	srv := httptest.NewUnstartedServer(g.status)
	srv.Config.ReadTimeout, srv.Config.WriteTimeout = 500*time.Millisecond, 500*time.Millisecond
	srv.Start()
	t.Cleanup(srv.Close)
	g.srv.URL, g.mount = srv.URL, ""
	s := g.stream()
	for range 3 { // one is sent each second
		s.await("a state", isState)
	}
}

// A handler that hides the server's writer is named, rather than a stream that says nothing.
func TestStreamBehindAHiddenWriter(t *testing.T) {
	t.Parallel()
	g := newRig(t, "a", nil, nil)
	w := httptest.NewRecorder()
	g.status.ServeHTTP(struct{ http.ResponseWriter }{w}, httptest.NewRequestWithContext(t.Context(), "GET", "/api/events", nil))
	if w.Code != 500 || !strings.Contains(w.Body.String(), "Unwrap") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
