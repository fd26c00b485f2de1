package middleware_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/process"
	limpet "github.com/limpet-go/limpet/middleware"
)

// An accessLine is a line of an access log in JSON.
type accessLine map[string]any

// accessLines sends each line that is written to it.
type accessLines chan accessLine

func (w accessLines) Write(p []byte) (int, error) {
	var line accessLine
	if err := json.Unmarshal(p, &line); err != nil {
		line = accessLine{"broken": string(p)}
	}
	w <- line
	return len(p), nil
}

// observeLines has the gateway write an access log, and returns its lines.
func observeLines(t *testing.T, g interface{ Observe(limpet.Observer) func() }, opts *limpet.AccessLogOptions) chan accessLine {
	t.Helper()
	lines := make(accessLines, 1000)
	stop := g.Observe(limpet.AccessLog(slog.New(slog.NewJSONHandler(lines, nil)), opts))
	t.Cleanup(stop)
	return lines
}

// nextLine returns the next line.
func nextLine(t *testing.T, lines chan accessLine) accessLine {
	t.Helper()
	select {
	case line := <-lines:
		return line
	case <-time.After(patience):
		t.Fatal("there is no line")
		return nil
	}
}

// A line has the attributes that the documentation promises, and no others.
func TestAccessLogLines(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, err := websocket.Accept(w, r, nil)
			if err == nil {
				defer conn.CloseNow()
				_, _, _ = conn.Read(t.Context())
				_ = conn.Write(t.Context(), websocket.MessageText, []byte("answer"))
				_, _, _ = conn.Read(t.Context())
			}
			return
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "answer")
	}))
	srv, gw := serve(t, pool, &limpet.Options{RequestID: "X-Request-Id"})
	plain := observeLines(t, gw, nil)
	full := observeLines(t, gw, &limpet.AccessLogOptions{Query: true, Header: []string{"user-agent", "Referer"}})
	ask := func(method, target, body string) {
		req, _ := http.NewRequestWithContext(t.Context(), method, srv.URL+target, strings.NewReader(body))
		req.Header.Set("X-Request-Id", "the-id")
		req.Header.Set("User-Agent", "limpet/1")
		req.Header.Set("Cookie", "session=secret")
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	ask("POST", "/a%2Fb%0A/%C3%A9?token=secret", "hello")
	host := srv.Listener.Addr().String()
	want := accessLine{
		"level": "INFO", "msg": "request", "id": "the-id", "client": "127.0.0.1", "method": "POST", "host": host,
		"path": "/a%2Fb%0A/%C3%A9", "proto": "HTTP/1.1", "status": 200.0, "source": "backend", "end": "--", "backend": "a",
		"pin": "new", "received": 5.0, "sent": 6.0,
	}
	check := func(line, want accessLine) {
		t.Helper()
		line = maps.Clone(line)
		if at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(line["time"])); err != nil || time.Since(at).Abs() > time.Minute {
			t.Errorf("the time is %v", line["time"])
		}
		delete(line, "time")
		for _, name := range []string{"picked_us", "first_byte_us", "duration_us"} {
			us, ok := line[name].(float64)
			if must := name == "duration_us" || name == "first_byte_us" && want["msg"] == "request"; !ok && must || us < 0 || us > 60_000_000 {
				t.Errorf("%s is %v", name, line[name])
			}
			delete(line, name)
		}
		if !reflect.DeepEqual(line, want) {
			t.Errorf("the line is\n%v, want\n%v", line, want)
		}
	}
	check(nextLine(t, plain), want)
	want["query"], want["header"] = "token=secret", map[string]any{"User-Agent": "limpet/1"}
	check(nextLine(t, full), want)

	conn, _, err := websocket.Dial(t.Context(), srv.URL+"/ws?token=secret", &websocket.DialOptions{HTTPHeader: http.Header{"X-Request-Id": {"a-tunnel"}}})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Write(t.Context(), websocket.MessageText, []byte("question"))
	_, _, _ = conn.Read(t.Context())
	_ = conn.Close(websocket.StatusNormalClosure, "")
	check(nextLine(t, plain), accessLine{
		"level": "INFO", "msg": "request", "id": "a-tunnel", "client": "127.0.0.1", "method": "GET", "host": host,
		"path": "/ws", "proto": "HTTP/1.1", "status": 101.0, "source": "backend", "end": "--", "backend": "a",
		"pin": "new", "sent": 0.0,
	})
	check(nextLine(t, plain), accessLine{
		"level": "INFO", "msg": "tunnel", "id": "a-tunnel", "client": "127.0.0.1", "path": "/ws", "backend": "a",
		"end": "--", "by": "client", "code": 1000.0, "received": 14 + 8.0, "sent": 8 + 4.0,
		"messages_received": 1.0, "messages_sent": 1.0,
	})
}

// What a client sends can't make lines of its own, or reach a terminal.
func TestAccessLogInjection(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, nil)
	srv, gw := serve(t, pool, &limpet.Options{RequestID: "X-Request-Id"})
	opts := &limpet.AccessLogOptions{Query: true, Header: []string{"User-Agent"}}
	var logs [2]strings.Builder
	ended := make(chan struct{}, 10)
	defer gw.Observe(limpet.AccessLog(slog.New(slog.NewJSONHandler(&logs[0], nil)), opts))()
	defer gw.Observe(limpet.AccessLog(slog.New(slog.NewTextHandler(&logs[1], nil)), opts))()
	defer gw.Observe(limpet.Observer{Request: func(*limpet.Record) { ended <- struct{}{} }})()
	long := strings.Repeat("long", 10_000)
	for _, request := range []string{
		"GET /a%0A%1b[31m%C2%9B HTTP/1.1\nHost: a\nConnection: close\n\n",
		"GET /\u009b\u202e?\u009b\u2028\xff HTTP/1.1\nHost: a\nConnection: close\n\n",
		"GET / HTTP/1.1\nHost: a\nUser-Agent: x\" level=ERROR msg=\"\u009b31m\u202e\xff\xc2\nConnection: close\n\n",
		"GET / HTTP/1.1\nHost: a\nX-Request-Id: x\u009by\nConnection: close\n\n",
		"GET / HTTP/1.1\nHost: a\nX-Request-Id: x\"}{\"y\nConnection: close\n\n",
		"GET /" + long + "?" + long + " HTTP/1.1\nHost: a\nUser-Agent: " + long + "\nConnection: close\n\n",
	} {
		_, r := raw(t, srv, request)
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
		within(t, ended)
		for i := range logs {
			line := logs[i].String()
			logs[i].Reset()
			if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") || len(line) > 5000 {
				t.Errorf("there aren't one line and 5000 bytes at most in %q", line)
			}
			for _, c := range strings.TrimSuffix(line, "\n") {
				if !unicode.IsPrint(c) {
					t.Errorf("%U is in %q", c, line)
				}
			}
			if i == 0 && !json.Valid([]byte(line)) {
				t.Errorf("no JSON: %q", line)
			}
			if strings.Contains(line, " level=ERROR msg=") && !strings.Contains(line, `x\" level=ERROR msg=\"`) {
				t.Errorf("an attribute of the client's own is in %q", line)
			}
		}
	}
}

// A sample has a request together with its tunnel, and all that went wrong.
func TestAccessLogSample(t *testing.T) {
	t.Parallel()
	for _, field := range []string{"", "X-Request-Id"} {
		t.Run("identified by "+field, func(t *testing.T) {
			t.Parallel()
			s := newEndScene(t, &limpet.Options{RequestID: field}, nil)
			sampled := observeLines(t, s.gateway, &limpet.AccessLogOptions{Sample: 0.5})
			rare := observeLines(t, s.gateway, &limpet.AccessLogOptions{Sample: 1e-18})
			const n = 200
			for range n {
				_ = s.dial(t).Close(websocket.StatusNormalClosure, "")
				if line := s.line(t); line["msg"] != "tunnel" {
					t.Errorf("a line of a tunnel is %v", line)
				}
			}
			last := "none"
			s.ask(t.Context(), "GET", "/break", "")
			requests, tunnels := 0, 0
			for last != "SD" {
				line := nextLine(t, sampled)
				switch last = fmt.Sprint(line["end"]); line["msg"] {
				case "request":
					requests++
				case "tunnel":
					tunnels++
				}
			}
			if requests--; requests != tunnels || requests < n/4 || requests > n*3/4 {
				t.Errorf("%d requests of %d are there, and %d tunnels", requests, n, tunnels)
			}
			if line := nextLine(t, rare); line["end"] != "SD" || len(rare) > 0 {
				t.Errorf("the request that broke off isn't the only line, but %v", line)
			}
		})
	}
}

// What isn't a share samples nothing, and what doesn't go well is always logged.
func TestAccessLogAlways(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		sample float64
		rec    limpet.Record
		want   bool
	}{
		{"all", 0, limpet.Record{Status: 200, Source: limpet.SourceBackend}, true},
		{"more than all", 2, limpet.Record{Status: 200, Source: limpet.SourceBackend}, true},
		{"less than none", -1, limpet.Record{Status: 200, Source: limpet.SourceBackend}, true},
		{"no number", math.NaN(), limpet.Record{Status: 200, Source: limpet.SourceBackend}, true},
		{"in order", 1e-18, limpet.Record{Status: 404, Source: limpet.SourceBackend, Attempts: make([]limpet.Attempt, 1)}, false},
		{"a backend's own failure", 1e-18, limpet.Record{Status: 500, Source: limpet.SourceBackend}, true},
		{"two attempts", 1e-18, limpet.Record{Status: 200, Source: limpet.SourceBackend, Attempts: make([]limpet.Attempt, 2)}, true},
		{"an unknown session", 1e-18, limpet.Record{Status: 400, Source: limpet.SourceBackend, UnknownSession: true}, true},
		{"a client that left", 1e-18, limpet.Record{Status: 499}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var text strings.Builder
			log := limpet.AccessLog(slog.New(slog.NewTextHandler(&text, nil)), &limpet.AccessLogOptions{Sample: tt.sample})
			tt.rec.Request = httptest.NewRequest("GET", "/", nil)
			log.Request(&tt.rec)
			if got := text.Len() > 0; got != tt.want {
				t.Errorf("it wrote %q", text.String())
			}
		})
	}
}

// There is room for all attributes at once.
func TestAccessLogAll(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("GET", "/path?query", nil)
	r.Header.Set("User-Agent", "x")
	backend, _ := balancer.NewBackend("a", "http://127.0.0.1:1", 1)
	var text strings.Builder
	limpet.AccessLog(slog.New(slog.NewJSONHandler(&text, nil)), &limpet.AccessLogOptions{Query: true, Header: []string{"User-Agent"}}).Request(&limpet.Record{
		ID: "x", Request: r, ClientIP: netip.MustParseAddr("192.0.2.1"), Start: time.Now(), Status: 200, Source: limpet.SourceBackend,
		Err: io.ErrUnexpectedEOF, Broken: true, Outcome: "hit", Backend: backend, UnknownSession: true, Received: 1, Sent: 1, Picked: time.Second,
	})
	var line accessLine
	if err := json.Unmarshal([]byte(text.String()), &line); err != nil || len(line) != 3+21 {
		t.Errorf("%v in a line of %d attributes: %v", err, len(line), line)
	}
}

// A logger that doesn't log at level Info gets no lines, and one with attributes adds them.
func TestAccessLogLogger(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	handler := slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelWarn})
	rec := &limpet.Record{Request: httptest.NewRequest("GET", "/", nil), Status: 200, Source: limpet.SourceBackend}
	limpet.AccessLog(slog.New(handler), nil).Request(rec)
	if text.Len() > 0 {
		t.Errorf("it wrote %q", text.String())
	}
	limpet.AccessLog(slog.New(slog.NewTextHandler(&text, nil)).With("gateway", "g1").WithGroup("http"), nil).Request(rec)
	if !strings.Contains(text.String(), " gateway=g1 ") || !strings.Contains(text.String(), " http.status=200 ") {
		t.Errorf("it wrote %q", text.String())
	}
}

// keeper is a handler that keeps what it gets.
type keeper struct {
	slog.Handler
	records []slog.Record
}

func (k *keeper) Enabled(context.Context, slog.Level) bool { return true }
func (k *keeper) Handle(_ context.Context, r slog.Record) error {
	k.records = append(k.records, r.Clone())
	return nil
}

// Records that a handler keeps stay as they were.
func TestAccessLogKept(t *testing.T) {
	t.Parallel()
	k := &keeper{}
	log := limpet.AccessLog(slog.New(k), nil)
	for i := range 10 {
		log.Request(&limpet.Record{Request: httptest.NewRequest("GET", fmt.Sprint("/", i), nil), Status: 200 + i, Source: limpet.SourceBackend})
	}
	for i, r := range k.records {
		var text strings.Builder
		r.Attrs(func(a slog.Attr) bool {
			fmt.Fprint(&text, a, " ")
			return true
		})
		if want := fmt.Sprintf(" path=/%d proto=HTTP/1.1 status=%d ", i, 200+i); !strings.Contains(text.String(), want) {
			t.Errorf("record %d is %s", i, text.String())
		}
	}
}

// The transport in somebody else's proxy reports the same, apart from tunnels' messages.
func TestAccessLogOfSticky(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, nil)
	sticky := &limpet.Sticky{Pool: pool, Affinity: &affinity.Cookie{Secrets: testKeys}, Logger: slog.New(slog.DiscardHandler)}
	lines := observeLines(t, sticky, nil)
	srv := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetXForwarded() }, Transport: sticky})
	t.Cleanup(srv.Close)
	get(t, newClient(t), srv.URL+"/path")
	if line := nextLine(t, lines); line["status"] != 200.0 || line["end"] != "--" || line["path"] != "/path" || line["backend"] != "a" {
		t.Errorf("the line is %v", line)
	}
}

// A line costs one allocation, for the client's address.
func BenchmarkAccessLog(b *testing.B) {
	r := httptest.NewRequest("GET", "/socket.io/?EIO=4&transport=polling", nil)
	backend, _ := balancer.NewBackend("a", "http://127.0.0.1:1", 1)
	rec := &limpet.Record{
		ID: "6GQ3VZPLNT0A8YHW2F5XKD7RBC", Request: r, ClientIP: netip.MustParseAddr("192.0.2.1"), Start: time.Now(),
		Status: 200, Source: limpet.SourceBackend, Backend: backend, Outcome: "hit", Attempts: make([]limpet.Attempt, 1),
		Sent: 1234, Picked: 1234, FirstByte: 1234567, Duration: 1345678,
	}
	for _, bb := range []struct {
		name    string
		handler slog.Handler
		opts    *limpet.AccessLogOptions
	}{
		{"JSON", slog.NewJSONHandler(io.Discard, nil), nil},
		{"text", slog.NewTextHandler(io.Discard, nil), nil},
		{"sampled", slog.NewJSONHandler(io.Discard, nil), &limpet.AccessLogOptions{Sample: 0.01}},
		{"none", slog.DiscardHandler, nil},
	} {
		b.Run(bb.name, func(b *testing.B) {
			log := limpet.AccessLog(slog.New(bb.handler), bb.opts)
			b.ReportAllocs()
			before := process.CPU()
			for b.Loop() {
				log.Request(rec)
			}
			b.ReportMetric(float64(process.CPU()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// A line costs no memory but the text of the client's address.
func TestAccessLogAllocations(t *testing.T) {
	if raceDetector() {
		t.Skip("with the race detector, a sync.Pool drops some of what it is given")
	}
	rec := &limpet.Record{
		ID: "x", Request: httptest.NewRequest("GET", "/path", nil), ClientIP: netip.MustParseAddr("192.0.2.1"), Start: time.Now(),
		Status: 200, Source: limpet.SourceBackend, Outcome: "hit", Attempts: make([]limpet.Attempt, 1),
	}
	log := limpet.AccessLog(slog.New(slog.NewJSONHandler(io.Discard, nil)), nil)
	if n := testing.AllocsPerRun(1000, func() { log.Request(rec) }); n > 1 {
		t.Errorf("%v allocations, want 1 at most", n)
	}
}
