package middleware_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// An endScene is what a case of TestRequestEnds has: a gateway in front of the backends a
// and b, which do what the path says.
type endScene struct {
	*httptest.Server
	pool     *balancer.Pool
	gateway  *limpet.Gateway
	reached  chan struct{}   // gets a value when a backend has a request and waits
	answered chan struct{}   // the same within its answer
	dialling chan struct{}   // the same when a connection to a backend is made by a dialer that hangs
	lines    chan accessLine // of the access log
	affinity *seenAffinity
}

// seenAffinity tells when a request has been looked at.
type seenAffinity struct {
	affinity.Affinity
	found chan struct{}
}

func (a *seenAffinity) Find(r *http.Request) (affinity.Pin, error) {
	pin, err := a.Affinity.Find(r)
	if pin.Backend != "" {
		select {
		case a.found <- struct{}{}:
		default:
		}
	}
	return pin, err
}

// newEndScene starts a gateway. around is what is in front of it, nil for nothing.
func newEndScene(t *testing.T, opts *limpet.Options, around func(http.Handler) http.Handler) *endScene {
	t.Helper()
	s := &endScene{reached: make(chan struct{}, 10), answered: make(chan struct{}, 10), dialling: make(chan struct{}, 10)}
	pool, _ := cluster(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/die":
			panic(http.ErrAbortHandler)
		case "/wait":
			s.reached <- struct{}{}
			<-r.Context().Done()
		case "/begin":
			io.WriteString(w, "a beginning")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/break":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "a beginning")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/read":
			s.reached <- struct{}{}
			_, _ = io.Copy(io.Discard, r.Body)
		case "/ws":
			conn, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer conn.CloseNow()
			for {
				kind, data, err := conn.Read(context.WithoutCancel(r.Context()))
				switch {
				case err != nil:
					return
				case string(data) == "die":
					return
				case string(data) == "close":
					_ = conn.Close(websocket.StatusNormalClosure, "")
					return
				}
				_ = conn.Write(context.WithoutCancel(r.Context()), kind, data)
			}
		}
	}))
	s.pool = pool
	if opts.Affinity == nil {
		opts.Affinity = &affinity.Cookie{Secrets: testKeys}
	}
	s.affinity = &seenAffinity{opts.Affinity, make(chan struct{}, 1)}
	if _, ok := opts.Affinity.(affinity.GoneHandler); !ok {
		opts.Affinity = s.affinity
	}
	s.gateway = newGateway(t, pool, opts)
	s.lines = observeLines(t, s.gateway, nil)
	var h http.Handler = s.gateway
	if around != nil {
		h = around(h)
	}
	s.Server = httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// ask sends a request and reads the answer, whatever becomes of it.
func (s *endScene) ask(ctx context.Context, method, path, body string) {
	req, _ := http.NewRequestWithContext(ctx, method, s.URL+path, strings.NewReader(body))
	if res, err := s.Client().Do(req); err == nil {
		s.answered <- struct{}{}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}

// leave sends a request and goes away after the event.
func (s *endScene) leave(t *testing.T, path string, event chan struct{}) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ask(ctx, "GET", path, "")
	}()
	within(t, event)
	cancel()
	<-done
}

// dial opens a WebSocket.
func (s *endScene) dial(t *testing.T) *websocket.Conn {
	conn, _, err := websocket.Dial(t.Context(), s.URL+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	if line := s.line(t); line["msg"] != "request" || line["status"] != 101.0 || line["end"] != "--" {
		t.Errorf("the line of the handshake is %v", line)
	}
	return conn
}

// send sends a message, and waits for the end of the tunnel.
func sendLast(t *testing.T, conn *websocket.Conn, message string) {
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
		t.Error(err)
	}
	for {
		if _, _, err := conn.Read(t.Context()); err != nil {
			return
		}
	}
}

func (s *endScene) line(t *testing.T) accessLine {
	t.Helper()
	select {
	case line := <-s.lines:
		return line
	case <-time.After(patience):
		t.Fatal("there is no line")
		return nil
	}
}

// within waits for an event.
func within(t *testing.T, event chan struct{}) {
	t.Helper()
	select {
	case <-event:
	case <-time.After(patience):
		t.Error("waited in vain for an event")
	}
}

// deadline ends the request's context after an event.
func deadline(event func(s *endScene) chan struct{}, s **endScene) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancelCause(r.Context())
			defer cancel(nil)
			go func() {
				select {
				case <-event(*s):
					cancel(context.DeadlineExceeded)
				case <-ctx.Done():
				}
			}()
			next.ServeHTTP(w, r.WithContext(deadlineContext{ctx}))
		})
	}
}

// deadlineContext is a context that says that its time is over when it was cancelled, as
// one does that has a deadline.
type deadlineContext struct{ context.Context }

func (c deadlineContext) Err() error {
	if c.Context.Err() == nil {
		return nil
	}
	return context.Cause(c.Context)
}

// hide hides the server's writer from the gateway.
func hide(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(hiding{w}, r)
	})
}

// Each way in which a request or a tunnel can end has its two letters.
func TestRequestEnds(t *testing.T) {
	t.Parallel()
	dialer := func(s **endScene, err error) *balancer.Transport {
		return &balancer.Transport{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			(*s).dialling <- struct{}{}
			if err != nil {
				return nil, err
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}}
	}
	// pinned gives the client a home, which is then turned off.
	pinned := func(t *testing.T, s *endScene) {
		s.Client().Jar = newClient(t).Jar
		s.ask(t.Context(), "GET", "/", "")
		if err := s.pool.Off(s.line(t)["backend"].(string)); err != nil {
			t.Error(err)
		}
	}
	for _, tt := range []struct {
		end, name string
		opts      func(s **endScene) *limpet.Options
		around    func(s **endScene) func(http.Handler) http.Handler
		act       func(t *testing.T, s *endScene)
		status    float64 // of the request; 0 for the line of a tunnel
		source    string  // "" if it may differ, and the status and the error too
		by        string  // of a tunnel
		err       string  // what the error says
	}{
		{end: "--", name: "an answer", status: 200, source: "backend",
			act: func(t *testing.T, s *endScene) { s.ask(t.Context(), "GET", "/", "") }},
		{end: "PR", name: "a CONNECT", status: 501, source: "gateway", err: "CONNECT",
			act: func(t *testing.T, s *endScene) { raw(t, s.Server, "CONNECT a:1 HTTP/1.1\nHost: a:1\n\n") }},
		{end: "PR", name: "a malformed target", status: 400, source: "gateway", err: "malformed",
			act: func(t *testing.T, s *endScene) { raw(t, s.Server, "GET x:a HTTP/1.1\nHost: a\n\n") }},
		{end: "PR", name: "a body that is too large", status: 413, source: "gateway", err: "too large",
			opts: func(**endScene) *limpet.Options { return &limpet.Options{MaxBody: 3} },
			act:  func(t *testing.T, s *endScene) { s.ask(t.Context(), "POST", "/read", "long") }},
		{end: "PR", name: "a bad handshake", status: 400, source: "gateway", err: "bad upgrade request",
			act: func(t *testing.T, s *endScene) {
				raw(t, s.Server, "GET /ws HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: short\n\n")
			}},
		{end: "PC", name: "a middleware hides the connection", status: 500, source: "gateway", err: "Unwrap",
			around: func(**endScene) func(http.Handler) http.Handler { return hide },
			act: func(t *testing.T, s *endScene) {
				_, _, _ = websocket.Dial(t.Context(), s.URL+"/ws", nil)
			}},
		{end: "PC", name: "the gateway shuts down", status: 503, source: "gateway", err: "closed",
			act: func(t *testing.T, s *endScene) {
				_ = s.gateway.Shutdown(t.Context())
				_, _, _ = websocket.Dial(t.Context(), s.URL+"/ws", nil)
			}},
		{end: "PC", name: "a hook makes an invalid request", status: 500, source: "gateway", err: "X-Bad",
			opts: func(**endScene) *limpet.Options {
				return &limpet.Options{Rewrite: func(_, out *http.Request) { out.Header["X-Bad"] = []string{"\n"} }}
			},
			act: func(t *testing.T, s *endScene) { s.ask(t.Context(), "GET", "/", "") }},
		{end: "PH", name: "a hook refuses the answer", status: 502, source: "gateway", err: "not like this",
			opts: func(**endScene) *limpet.Options {
				return &limpet.Options{ModifyResponse: func(*http.Response) error { return errors.New("not like this") }}
			},
			act: func(t *testing.T, s *endScene) { s.ask(t.Context(), "GET", "/", "") }},
		{end: "I-", name: "a hook panics", status: 0, source: "none",
			opts: func(**endScene) *limpet.Options {
				return &limpet.Options{Rewrite: func(_, _ *http.Request) { panic(http.ErrAbortHandler) }}
			},
			act: func(t *testing.T, s *endScene) { s.ask(t.Context(), "GET", "/", "") }},
		{end: "LR", name: "the session's node is gone", status: 400, source: "affinity",
			opts: func(**endScene) *limpet.Options { return &limpet.Options{Affinity: engineIO()} },
			act: func(t *testing.T, s *endScene) {
				nodes, _ := engines(t, 1)
				b, _ := balancer.NewBackend("engine", nodes["a"].URL, 1)
				for _, id := range []string{"a", "b"} {
					_ = s.pool.Off(id)
				}
				if err := s.pool.Add(b); err != nil {
					t.Error(err)
				}
				sid, _ := open(t, s.Client(), s.URL)
				s.line(t)
				s.pool.Remove("engine")
				_ = s.pool.Undrain("a")
				poll(t, s.Client(), s.URL, sid)
			}},

		{end: "SC", name: "connections are refused", status: 503, source: "gateway", err: "refused",
			act: func(t *testing.T, s *endScene) {
				for b := range s.pool.All() {
					s.pool.Remove(b.ID())
				}
				b, _ := balancer.NewBackend("nobody", "http://127.0.0.1:1", 1)
				_ = s.pool.Add(b)
				s.ask(t.Context(), "GET", "/", "")
			}},
		{end: "SC", name: "no backend is up", status: 503, source: "gateway", err: "no backend",
			act: func(t *testing.T, s *endScene) {
				_, _ = s.pool.Off("a"), s.pool.Off("b")
				s.ask(t.Context(), "GET", "/", "")
			}},
		{end: "SC", name: "the home is gone, and the client may not move", status: 503, source: "gateway", err: "may not move",
			opts: func(**endScene) *limpet.Options { return &limpet.Options{Gone: limpet.GoneRefuse} },
			act: func(t *testing.T, s *endScene) {
				pinned(t, s)
				s.ask(t.Context(), "GET", "/", "")
			}},
		{end: "sC", name: "a connection takes too long", status: 504, source: "gateway", err: "timeout",
			opts: func(s **endScene) *limpet.Options {
				return &limpet.Options{Transport: dialer(s, os.ErrDeadlineExceeded), Retry: limpet.Retry{Attempts: 1}}
			},
			act: func(t *testing.T, s *endScene) { s.ask(t.Context(), "GET", "/", "") }},
		{end: "SH", name: "the backend dies before its answer", status: 502, source: "gateway", err: "backend",
			act: func(t *testing.T, s *endScene) { s.ask(t.Context(), "POST", "/die", "once") }},
		{end: "sH", name: "a time limit while the backend is silent", status: 504, source: "gateway", err: "deadline",
			around: func(s **endScene) func(http.Handler) http.Handler {
				return deadline(func(s *endScene) chan struct{} { return s.reached }, s)
			},
			act: func(t *testing.T, s *endScene) { s.ask(t.Context(), "GET", "/wait", "") }},
		{end: "DH", name: "the backend is lost while the request waits", status: 504, source: "gateway", err: "lost",
			act: func(t *testing.T, s *endScene) {
				go func() {
					<-s.reached
					_, _ = s.pool.Off("a"), s.pool.Off("b")
				}()
				s.ask(t.Context(), "POST", "/wait", "")
			}},
		{end: "SD", name: "the backend dies within its answer", status: 200, source: "backend", err: "reading the backend's answer",
			act: func(t *testing.T, s *endScene) { s.ask(t.Context(), "GET", "/break", "") }},
		{end: "sD", name: "a time limit within the answer", status: 200, source: "backend", err: "deadline",
			around: func(s **endScene) func(http.Handler) http.Handler {
				return deadline(func(s *endScene) chan struct{} { return s.answered }, s)
			},
			act: func(t *testing.T, s *endScene) { s.ask(t.Context(), "GET", "/begin", "") }},
		{end: "sQ", name: "a time limit while the request waits for its home", status: 504, source: "gateway", err: "deadline",
			opts: func(**endScene) *limpet.Options { return &limpet.Options{Gone: limpet.GoneWait, WaitFor: patience} },
			around: func(s **endScene) func(http.Handler) http.Handler {
				return deadline(func(s *endScene) chan struct{} { return s.affinity.found }, s)
			},
			act: func(t *testing.T, s *endScene) {
				pinned(t, s)
				s.ask(t.Context(), "GET", "/", "")
			}},

		{end: "CQ", name: "the client leaves while it waits for its home", status: 499, source: "none", err: "canceled",
			opts: func(**endScene) *limpet.Options { return &limpet.Options{Gone: limpet.GoneWait, WaitFor: patience} },
			act: func(t *testing.T, s *endScene) {
				pinned(t, s)
				s.leave(t, "/", s.affinity.found)
			}},
		{end: "CC", name: "the client leaves while a connection is made", status: 499, source: "none", err: "canceled",
			opts: func(s **endScene) *limpet.Options { return &limpet.Options{Transport: dialer(s, nil)} },
			act:  func(t *testing.T, s *endScene) { s.leave(t, "/", s.dialling) }},
		{end: "CH", name: "the client leaves before there is an answer", status: 499, source: "none", err: "canceled",
			act: func(t *testing.T, s *endScene) { s.leave(t, "/wait", s.reached) }},
		{end: "CD", name: "the client leaves within the answer", status: 200, source: "backend", err: "cancel",
			act: func(t *testing.T, s *endScene) { s.leave(t, "/begin", s.answered) }},
		{end: "CD", name: "the client leaves within its body",
			act: func(t *testing.T, s *endScene) {
				conn, _ := raw(t, s.Server, "POST /read HTTP/1.1\nHost: a\nContent-Length: 10\n\nhalf")
				within(t, s.reached)
				conn.Close()
			}},
		{end: "cD", name: "the client is too slow with its body", status: 408, source: "gateway", err: "reading the request's body",
			around: func(s **endScene) func(http.Handler) http.Handler {
				return func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						go func() {
							<-(*s).reached
							_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
						}()
						next.ServeHTTP(w, r)
					})
				}
			},
			act: func(t *testing.T, s *endScene) {
				_, r := raw(t, s.Server, "POST /read HTTP/1.1\nHost: a\nContent-Length: 10\n\nhalf")
				_, _ = http.ReadResponse(r, nil)
			}},

		{end: "--", name: "the client closes its tunnel", by: "client",
			act: func(t *testing.T, s *endScene) { _ = s.dial(t).Close(websocket.StatusNormalClosure, "") }},
		{end: "--", name: "the backend closes the tunnel", by: "backend",
			act: func(t *testing.T, s *endScene) { sendLast(t, s.dial(t), "close") }},
		{end: "CD", name: "the client's connection breaks", by: "client", err: "EOF",
			act: func(t *testing.T, s *endScene) { s.dial(t).CloseNow() }},
		{end: "SD", name: "the backend's connection breaks", by: "backend", err: "EOF",
			act: func(t *testing.T, s *endScene) { sendLast(t, s.dial(t), "die") }},
		{end: "DD", name: "the tunnel's backend is lost", by: "gateway",
			act: func(t *testing.T, s *endScene) {
				conn := s.dial(t)
				_, _ = s.pool.Off("a"), s.pool.Off("b")
				_, _, _ = conn.Read(t.Context())
			}},
		{end: "KD", name: "the backend is drained", by: "gateway",
			act: func(t *testing.T, s *endScene) {
				conn := s.dial(t)
				_, _ = s.pool.Drain("a", time.Second/4), s.pool.Drain("b", time.Second/4)
				_, _, _ = conn.Read(t.Context())
			}},
		{end: "KD", name: "the gateway's own end", by: "gateway",
			act: func(t *testing.T, s *endScene) {
				conn := s.dial(t)
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_ = s.gateway.Shutdown(ctx)
				_, _, _ = conn.Read(t.Context())
			}},
		{end: "KD", name: "somebody closes it", by: "gateway",
			act: func(t *testing.T, s *endScene) {
				conn := s.dial(t)
				for tunnel := range s.gateway.Tunnels() {
					tunnel.Close(4000, "idle")
				}
				_, _, _ = conn.Read(t.Context())
			}},
		{end: "KD", name: "it is too old", by: "gateway",
			opts: func(**endScene) *limpet.Options {
				return &limpet.Options{Upgrade: &upgrade.Proxy{MaxAge: time.Millisecond}}
			},
			act: func(t *testing.T, s *endScene) { _, _, _ = s.dial(t).Read(t.Context()) }},
		{end: "cD", name: "the tunnel is idle", by: "gateway",
			opts: func(**endScene) *limpet.Options {
				return &limpet.Options{Upgrade: &upgrade.Proxy{IdleTimeout: time.Millisecond}}
			},
			act: func(t *testing.T, s *endScene) { _, _, _ = s.dial(t).Read(t.Context()) }},
		{end: "PD", name: "a message is too big", by: "gateway",
			opts: func(**endScene) *limpet.Options {
				return &limpet.Options{Upgrade: &upgrade.Proxy{MessageLimit: 3}}
			},
			act: func(t *testing.T, s *endScene) { sendLast(t, s.dial(t), "long") }},
	} {
		t.Run(tt.end+" "+tt.name, func(t *testing.T) {
			t.Parallel()
			var s *endScene
			opts := &limpet.Options{}
			if tt.opts != nil {
				opts = tt.opts(&s)
			}
			var around func(http.Handler) http.Handler
			if tt.around != nil {
				around = func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/" && r.Header.Get("Cookie") == "" && tt.end == "sQ" {
							next.ServeHTTP(w, r) // the request that gives the client its home
							return
						}
						tt.around(&s)(next).ServeHTTP(w, r)
					})
				}
			}
			s = newEndScene(t, opts, around)
			tt.act(t, s)
			line := s.line(t)
			if line["end"] != tt.end {
				t.Errorf("it ended with %v, want %s", line["end"], tt.end)
			}
			if tt.by != "" {
				if line["msg"] != "tunnel" || line["by"] != tt.by {
					t.Errorf("%v by %v, want a tunnel that ended by the %s", line["msg"], line["by"], tt.by)
				}
			} else if line["msg"] != "request" || tt.source != "" && (line["status"] != tt.status || line["source"] != tt.source) {
				t.Errorf("%v with status %v of the %v, want %v of the %s", line["msg"], line["status"], line["source"], tt.status, tt.source)
			}
			if text, _ := line["err"].(string); !strings.Contains(text, tt.err) || (tt.err == "") != (text == "") && tt.source+tt.by != "" {
				t.Errorf("the error is %q, want one with %q", text, tt.err)
			}
			if t.Failed() {
				t.Logf("%v", line)
			}
		})
	}
}
