package middleware_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// watcher keeps copies of the records that an observer gets.
type watcher struct {
	requests chan limpet.Record
	tunnels  chan limpet.TunnelRecord
}

type observable interface{ Observe(limpet.Observer) func() }

func watch(t *testing.T, o observable) *watcher {
	w := &watcher{make(chan limpet.Record, 100), make(chan limpet.TunnelRecord, 100)}
	t.Cleanup(o.Observe(limpet.Observer{
		Request: func(rec *limpet.Record) {
			kept := *rec
			kept.Attempts = append([]limpet.Attempt(nil), rec.Attempts...)
			w.requests <- kept
		},
		Closed: func(rec *limpet.TunnelRecord) { w.tunnels <- *rec },
	}))
	return w
}

func (w *watcher) next(t *testing.T) limpet.Record {
	t.Helper()
	select {
	case rec := <-w.requests:
		return rec
	case <-time.After(patience):
		t.Fatal("no record of the request")
		panic("unreachable")
	}
}

// badManners answers as its path says.
func badManners(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/ws":
		echo.ServeHTTP(w, r)
	case "/die":
		panic(http.ErrAbortHandler)
	case "/half":
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case "/hang":
		<-r.Context().Done()
	case "/endless":
		for r.Context().Err() == nil {
			io.WriteString(w, strings.Repeat("x", 32<<10))
		}
	default:
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, "got ", n)
	}
}

// Each request is in one record, whatever becomes of it.
func TestRecord(t *testing.T) {
	t.Parallel()
	leave := func(t *testing.T, srv *httptest.Server, request string, after int) {
		conn, r := raw(t, srv, request)
		io.ReadFull(r, make([]byte, after))
		conn.Close()
	}
	send := func(method, path, body string) func(*testing.T, *httptest.Server) {
		return func(t *testing.T, srv *httptest.Server) {
			req, _ := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
			if res, err := newClient(t).Do(req); err == nil {
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		}
	}
	for _, tt := range []struct {
		name string
		opts limpet.Options
		send func(*testing.T, *httptest.Server)
		want string // status, source, broken, left, outcome, attempts, received, sent
	}{
		{"answered", limpet.Options{}, send("POST", "/", "hello"), "200 backend - - new 1 5 5"},
		{"an answer without a body", limpet.Options{}, send("HEAD", "/", ""), "200 backend - - new 1 0 0"},
		{"refused elsewhere", limpet.Options{}, func(t *testing.T, srv *httptest.Server) { send("GET", "/refused", "")(t, srv) }, "200 backend - - new 2 0 5"},
		{"dies before its answer", limpet.Options{Retry: limpet.Retry{Attempts: 2}}, send("GET", "/die", ""), "502 gateway - - - 2 0 12"},
		{"dies everywhere", limpet.Options{}, send("GET", "/die", ""), "502 gateway - - - 2 0 12"},
		{"an error of the user's own", limpet.Options{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(418)
			io.WriteString(w, "teapot")
		}}, send("POST", "/die", "x"), "418 gateway - - - 1 1 6"},
		{"breaks off", limpet.Options{}, send("GET", "/half", ""), "200 backend broken - new 1 0 4"},
		{"too long", limpet.Options{MaxBody: 3}, send("POST", "/", "hello"), "413 gateway - - - 0 0 25"},
		{"connect", limpet.Options{}, func(t *testing.T, srv *httptest.Server) {
			leave(t, srv, "CONNECT a:1 HTTP/1.1\nHost: a:1\n\n", 12)
		}, "501 gateway - - - 0 0 16"},
		{"malformed", limpet.Options{}, func(t *testing.T, srv *httptest.Server) {
			leave(t, srv, "GET x:y HTTP/1.1\nHost: a\n\n", 12)
		}, "400 gateway - - - 0 0 12"},
		{"no backend", limpet.Options{}, func(t *testing.T, srv *httptest.Server) { send("GET", "/none", "")(t, srv) }, "503 gateway - - - 0 0 20"},
		{"leaves before the answer", limpet.Options{}, func(t *testing.T, srv *httptest.Server) {
			leave(t, srv, "GET /hang HTTP/1.1\nHost: a\n\n", 0)
		}, "499 none - left - 1 0 0"},
		{"leaves within the answer", limpet.Options{}, func(t *testing.T, srv *httptest.Server) {
			leave(t, srv, "GET /endless HTTP/1.1\nHost: a\n\n", 100)
		}, "200 backend broken left new 1 0 any"},
		{"no Upgrade", limpet.Options{}, send("GET", "/ws", ""), "426 backend - - new 1 0 any"},
		{"changed to an error", limpet.Options{ModifyResponse: func(*http.Response) error { return errors.New("no") }}, send("GET", "/", ""), "502 gateway - - new 1 0 12"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool, _ := cluster(t, 2, http.HandlerFunc(badManners))
			gw := newGateway(t, pool, &tt.opts)
			w, other := watch(t, gw), watch(t, gw)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/none":
					pool.Off("a")
					pool.Off("b")
				case "/refused":
					gone, _ := balancer.NewBackend("gone", "http://127.0.0.1:1", 1000)
					pool.Add(gone)
				}
				gw.ServeHTTP(w, r)
			}))
			t.Cleanup(srv.Close)
			tt.send(t, srv)
			rec := w.next(t)
			word := func(yes bool, word string) string {
				if yes {
					return word
				}
				return "-"
			}
			sent := fmt.Sprint(rec.Sent)
			if strings.HasSuffix(tt.want, " any") {
				sent = "any"
			}
			got := fmt.Sprintf("%d %v %s %s %s %d %d %s", rec.Status, rec.Source, word(rec.Broken, "broken"), word(rec.Left, "left"),
				word(rec.Outcome != "", rec.Outcome), len(rec.Attempts), rec.Received, sent)
			if got != tt.want {
				t.Errorf("got  %s (%v)\nwant %s", got, rec.Err, tt.want)
			}
			if failed := rec.Source != limpet.SourceBackend || rec.Broken; (rec.Err != nil) != failed {
				t.Errorf("err %v", rec.Err)
			}
			if rec.Source == limpet.SourceBackend && (rec.Backend == nil || rec.Key == "" || rec.Picked <= 0 || rec.FirstByte < rec.Picked || rec.Duration < rec.FirstByte) {
				t.Errorf("backend %v, key %q, picked after %v, first byte after %v, end after %v", rec.Backend, rec.Key, rec.Picked, rec.FirstByte, rec.Duration)
			}
			if !rec.ClientIP.IsLoopback() || rec.Header == nil && rec.Status != 499 || rec.Tunnel {
				t.Errorf("client %v, header %v, tunnel %v", rec.ClientIP, rec.Header, rec.Tunnel)
			}
			for i, a := range rec.Attempts {
				if followed := i+1 < len(rec.Attempts); a.Again != followed {
					t.Errorf("attempt %d: again %t, followed by another %t", i, a.Again, followed)
				}
			}
			if second := other.next(t); second.Start != rec.Start {
				t.Error("two observers got different records")
			}
			if n := len(w.requests); n > 0 {
				t.Errorf("%d records more", n)
			}
		})
	}
}

// A tunnel is in a record of the request that has opened it, and in one of its end.
func TestTunnelRecord(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(badManners))
	srv, gw := serve(t, pool, &limpet.Options{RequestID: "X-Request-ID"})
	w := watch(t, gw)
	var opened string
	gw.Observe(limpet.Observer{Opened: func(rec *limpet.Record, tunnel *upgrade.Tunnel) {
		opened = fmt.Sprint(rec.ID, rec.Backend.ID(), tunnel.Group(), rec.Key == tunnel.Key())
	}})
	conn, res, err := websocket.Dial(t.Context(), srv.URL+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	rec := w.next(t)
	id := res.Header.Get("X-Request-Id")
	if !rec.Tunnel || rec.Status != 101 || rec.Source != limpet.SourceBackend || rec.ID != id || id == "" || opened != id+"aatrue" {
		t.Errorf("status %d of the %v, tunnel %v, ID %q (the client's %q), opened %q", rec.Status, rec.Source, rec.Tunnel, rec.ID, id, opened)
	}
	if s := gw.Stats(); s.Tunnels != 1 || s.Requests != 0 || s.Backends[0].Tunnels != 1 || s.Backends[0].Requests != 0 {
		t.Errorf("stats %+v", s)
	}
	if len(w.tunnels) != 0 {
		t.Error("its end is told before it has ended")
	}
	conn.Close(websocket.StatusNormalClosure, "")
	end := <-w.tunnels
	if end.ID != id || end.Backend.ID() != "a" || end.Path != "/ws" || end.Code != 1000 || end.By != upgrade.SideClient || end.Key != rec.Key || end.Start != rec.Start || !end.ClientIP.IsLoopback() {
		t.Errorf("%+v", end)
	}
}

// Sticky tells the same of requests below a proxy of the service's own.
func TestStickyRecord(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, path, want string }{
		{"answered", "/", "200 backend false false 5"},
		{"breaks off", "/half", "200 backend true false 4"},
		{"dies", "/die", "502 gateway false false 0"},
		{"tunnel", "/ws", "101 backend false false 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool, _ := cluster(t, 1, http.HandlerFunc(badManners))
			sticky := &limpet.Sticky{Pool: pool, Affinity: &affinity.Cookie{Secrets: testKeys}, Logger: slog.New(slog.DiscardHandler)}
			w := watch(t, sticky)
			srv := httptest.NewServer(&httputil.ReverseProxy{
				Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme = "http" }, Transport: sticky, ErrorLog: log.New(io.Discard, "", 0),
			})
			t.Cleanup(srv.Close)
			if tt.path == "/ws" {
				conn, _, err := websocket.Dial(t.Context(), srv.URL+tt.path, nil)
				if err != nil {
					t.Fatal(err)
				}
				conn.CloseNow()
				if end := <-w.tunnels; end.Backend.ID() != "a" || end.Duration <= 0 {
					t.Errorf("%+v", end)
				}
			} else if res, err := newClient(t).Get(srv.URL + tt.path); err == nil {
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			rec := w.next(t)
			if got := fmt.Sprint(rec.Status, " ", rec.Source, " ", rec.Broken, rec.Left, " ", rec.Sent); got != tt.want {
				t.Errorf("got %s (%v), want %s", got, rec.Err, tt.want)
			}
		})
	}
}

// A request's ID is the client's or a new one. The backend gets it, and the answer has it
// once, whoever answers.
func TestRequestID(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/die" {
			panic(http.ErrAbortHandler)
		}
		w.Header()["X-Request-Id"] = r.Header["X-Request-Id"] // as many frameworks do
		w.Header().Set("Seen", strings.Join(r.Header["X-Request-Id"], ","))
	}))
	srv, gw := serve(t, pool, &limpet.Options{RequestID: "x-request-id"})
	w := watch(t, gw)
	for _, tt := range []struct {
		path, given string
		kept        bool
	}{
		{"/", "", false},
		{"/", "abc-123", true},
		{"/", strings.Repeat("x", 128), true},
		{"/", strings.Repeat("x", 129), false},
		{"/", "two words", false},
		{"/", "caf\u00e9", false},
		{"/die", "abc-123", true},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", srv.URL+tt.path, nil)
		if tt.given != "" {
			req.Header.Set("X-Request-Id", tt.given)
		}
		res, err := newClient(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		ids := res.Header["X-Request-Id"]
		if len(ids) != 1 || (ids[0] == tt.given) != tt.kept || !tt.kept && len(ids[0]) != 26 {
			t.Errorf("%.20q: the answer has %q", tt.given, ids)
			continue
		}
		if rec := w.next(t); rec.ID != ids[0] || tt.path == "/" && res.Header.Get("Seen") != ids[0] {
			t.Errorf("the record has %q, the backend %q, the client %q", rec.ID, res.Header.Get("Seen"), ids[0])
		}
	}
	if _, err := limpet.NewGateway(pool, &limpet.Options{RequestID: "Content-Length"}); err == nil {
		t.Error("RequestID may be Content-Length")
	}
}

// A record tells what the client was sent, and not what ModifyResponse was given.
func TestRecordOfAModifiedAnswer(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, nil)
	srv, gw := serve(t, pool, &limpet.Options{ModifyResponse: func(res *http.Response) error {
		if res.Request.URL.Path == "/panic" {
			panic(http.ErrAbortHandler)
		}
		res.StatusCode, res.Header = http.StatusTeapot, http.Header{"Tea": {"yes"}}
		return nil
	}})
	w := watch(t, gw)
	get(t, newClient(t), srv.URL)
	if rec := w.next(t); rec.Status != http.StatusTeapot || rec.Header.Get("Tea") != "yes" || rec.Source != limpet.SourceBackend {
		t.Errorf("status %d, header %v, of %v", rec.Status, rec.Header, rec.Source)
	}
	if _, err := newClient(t).Get(srv.URL + "/panic"); err == nil {
		t.Error("an answer, although a hook has panicked")
	}
	if rec := w.next(t); rec.Status != 0 {
		t.Errorf("status %d, although a hook has panicked", rec.Status)
	}
}

// Nothing follows the last attempt, even if it might have been repeated at another backend.
func TestRecordOfTheLastAttempt(t *testing.T) {
	t.Parallel()
	srv, gw := serve(t, balancer.Static("a=http://127.0.0.1:1"), nil)
	w := watch(t, gw)
	res, err := newClient(t).Head(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	rec := w.next(t)
	if rec.Status != http.StatusServiceUnavailable || len(rec.Attempts) != 1 || rec.Attempts[0].Err == nil || rec.Attempts[0].Again {
		t.Errorf("status %d, attempts %+v", rec.Status, rec.Attempts)
	}
	if rec.Sent != 0 {
		t.Errorf("%d bytes were sent to a HEAD", rec.Sent)
	}
}

// An observer that has stopped is told nothing more, and without any there is no record.
func TestObserveStops(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, nil)
	srv, gw := serve(t, pool, nil)
	var told [2]int
	stop := gw.Observe(limpet.Observer{Request: func(*limpet.Record) { told[0]++ }})
	stopOther := gw.Observe(limpet.Observer{Request: func(*limpet.Record) { told[1]++ }})
	c := newClient(t)
	for _, f := range []func(){func() {}, stop, stop, stopOther} {
		f()
		get(t, c, srv.URL)
	}
	if told != [2]int{1, 3} {
		t.Errorf("told %v times", told)
	}
}

// What is there now: requests and tunnels apart.
func TestStats(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	began := make(chan struct{}, 1)
	url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			began <- struct{}{}
			<-release
			io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	})
	srv, gw := serve(t, balancer.Static("a="+url), &limpet.Options{Name: "one"})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		get(t, newClient(t), srv.URL)
	}()
	<-began
	if s := gw.Stats(); s.Name != "one" || s.Requests != 1 || s.Tunnels != 0 || len(s.Backends) != 1 || s.Backends[0].Requests != 1 || s.Since.IsZero() {
		t.Errorf("%+v", s)
	}
	close(release)
	<-ended
	eventually(t, "the end of the request", func() bool { return gw.Stats().Requests == 0 })
	pin, b := gw.FindPin(httptest.NewRequestWithContext(context.Background(), "GET", "/", nil))
	if b == nil || b.ID() != "a" || pin.Backend != "" {
		t.Errorf("found %+v, %v", pin, b)
	}
}
