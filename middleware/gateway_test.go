package middleware_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

func TestClientsComeHome(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 3, nil)
	srv, _ := serve(t, pool, nil)
	homes := make(map[string]int)
	for range 9 {
		c := newClient(t)
		res, home := get(t, c, srv.URL)
		if len(res.Cookies()) != 1 {
			t.Fatalf("a new client got %d cookies", len(res.Cookies()))
		}
		homes[home]++
		for range 5 {
			if _, again := get(t, c, srv.URL); again != home {
				t.Fatalf("a client of %s came to %s", home, again)
			}
		}
	}
	for id, n := range homes {
		if n != 3 {
			t.Errorf("backend %s got %d of 9 new clients, want 3", id, n)
		}
	}
}

func TestRequestReachesBackendAsWritten(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 1)
	url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		line, _ := r.ReadString('\n')
		seen <- strings.TrimSpace(line)
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	})
	pool := balancer.Static("a=" + url)
	srv, gw := serve(t, pool, nil)
	stripped := httptest.NewServer(http.StripPrefix("/app", gw))
	t.Cleanup(stripped.Close)

	for _, tt := range []struct {
		name   string
		server *httptest.Server
		target string
		want   string
	}{
		{"plain", srv, "/a/b?c=d", ""},
		{"semicolon", srv, "/a?b=1;c=2&d", ""},
		{"unescaped", srv, `/a|b^c"d?e|f={g}`, ""},
		{"escaped slash", srv, "/a%2Fb%2fc", ""},
		{"odd escapes", srv, "/%7euser/%41?q=%zz", ""},
		{"not ASCII", srv, "/caf\xc3\xa9?\xff", ""},
		{"empty query", srv, "/a?", ""},
		{"dots", srv, "/a/../b/./c", ""},
		{"two slashes", srv, "//host/path", ""},
		{"absolute form", srv, "http://elsewhere/x?y", "/x?y"},
		{"prefix stripped", stripped, "/app/x|y?z|", "/x|y?z|"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, r := raw(t, tt.server, "GET "+tt.target+" HTTP/1.1\nHost: example.com\n\n")
			if _, err := http.ReadResponse(r, nil); err != nil {
				t.Fatal(err)
			}
			want := tt.want
			if want == "" {
				want = tt.target
			}
			if got := <-seen; got != "GET "+want+" HTTP/1.1" {
				t.Errorf("backend read %q, want target %q", got, want)
			}
		})
	}
}

func TestHopByHop(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Clone()
		w.Header().Set("Connection", "X-Backend-Hop")
		w.Header().Set("X-Backend-Hop", "1")
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.Header().Set("X-End", "1")
	}))
	srv, _ := serve(t, pool, nil)
	_, r := raw(t, srv, `GET / HTTP/1.1
Host: example.com
Connection: keep-alive, X-Hop
Connection: x-other
X-Hop: 1
X-Other: 1
Keep-Alive: timeout=5
Proxy-Authorization: Basic eA==
TE: gzip, trailers
Upgrade: h2c
X-End: 1

`)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := <-got
	for _, name := range []string{"X-Hop", "X-Other", "Keep-Alive", "Proxy-Authorization", "Upgrade", "Connection", "User-Agent"} {
		if v, ok := h[name]; ok {
			t.Errorf("backend got %s: %q", name, v)
		}
	}
	if h.Get("X-End") != "1" || h.Get("TE") != "trailers" {
		t.Errorf("backend got X-End %q and TE %q", h.Get("X-End"), h.Get("TE"))
	}
	if res.Header.Get("X-Backend-Hop") != "" || res.Header.Get("Proxy-Authenticate") != "" || res.Header.Get("X-End") != "1" {
		t.Errorf("client got %v", res.Header)
	}
}

// What a backend calls its connection's own is removed from its answer, not from
// what the gateway adds.
func TestHopByHopSparesThePin(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"plain":             "GET / HTTP/1.1\nHost: x\n\n",
		"refused handshake": handshake,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "Set-Cookie")
				http.SetCookie(w, &http.Cookie{Name: "hop", Value: "1"})
			}))
			srv, _ := serve(t, pool, nil)
			_, r := raw(t, srv, request)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c := res.Cookies(); len(c) != 1 || c[0].Name != "limpet" {
				t.Errorf("cookies %v, want the pin alone", c)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		method  string
		backend func(w http.ResponseWriter, r *http.Request)
		check   func(t *testing.T, res *http.Response, body string)
	}{
		{"HEAD keeps the length", "HEAD", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1234")
		}, func(t *testing.T, res *http.Response, body string) {
			if res.ContentLength != 1234 || body != "" {
				t.Errorf("length %d, body %q", res.ContentLength, body)
			}
		}},
		{"204", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(204)
		}, func(t *testing.T, res *http.Response, body string) {
			if res.StatusCode != 204 || res.Header.Get("Content-Length") != "" {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
		}},
		{"304", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"x"`)
			w.WriteHeader(304)
		}, func(t *testing.T, res *http.Response, body string) {
			if res.StatusCode != 304 || res.Header.Get("ETag") != `"x"` {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
		}},
		{"no Content-Type is invented", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, "<html>")
		}, func(t *testing.T, res *http.Response, body string) {
			if v, ok := res.Header["Content-Type"]; ok {
				t.Errorf("Content-Type %q", v)
			}
		}},
		{"announced trailers", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			io.WriteString(w, "body")
			w.Header().Set("X-Sum", "42")
		}, func(t *testing.T, res *http.Response, body string) {
			if res.Trailer.Get("X-Sum") != "42" {
				t.Errorf("trailers %v", res.Trailer)
			}
		}},
		{"trailers that nobody announced", "GET", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "body")
			http.NewResponseController(w).Flush()
			w.Header().Set(http.TrailerPrefix+"X-Sum", "42")
		}, func(t *testing.T, res *http.Response, body string) {
			if res.Trailer.Get("X-Sum") != "42" {
				t.Errorf("trailers %v", res.Trailer)
			}
		}},
		{"compressed stays compressed", "GET", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "br" {
				t.Errorf("Accept-Encoding %q", r.Header.Get("Accept-Encoding"))
			}
			w.Header().Set("Content-Encoding", "br")
			io.WriteString(w, "not really brotli")
		}, func(t *testing.T, res *http.Response, body string) {
			if body != "not really brotli" || res.Header.Get("Content-Encoding") != "br" {
				t.Errorf("%q %v", body, res.Header)
			}
		}},
		{"the application's cookie comes first", "GET", func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "app", Value: "1"})
		}, func(t *testing.T, res *http.Response, body string) {
			if c := res.Cookies(); len(c) != 2 || c[0].Name != "app" {
				t.Errorf("cookies %v", c)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool, _ := cluster(t, 1, http.HandlerFunc(tt.backend))
			srv, _ := serve(t, pool, nil)
			req, _ := http.NewRequestWithContext(t.Context(), tt.method, srv.URL, nil)
			req.Header.Set("Accept-Encoding", "br")
			res, err := newClient(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			tt.check(t, res, string(body))
		})
	}
}

func TestNoForwardProxy(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, nil)
	srv, _ := serve(t, pool, nil)
	_, r := raw(t, srv, "CONNECT example.com:443 HTTP/1.1\nHost: example.com:443\n\n")
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 501 {
		t.Errorf("%v, %v; want 501", res, err)
	}
}

func TestMethodWithASpace(t *testing.T) {
	t.Parallel()
	var hits atomic.Int64
	pool, _ := cluster(t, 1, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	gw := newGateway(t, pool, nil)
	r := httptest.NewRequest("GET", "/", nil)
	r.Method = "G ET" // no HTTP/1.1 request and no client of this library has it
	w := httptest.NewRecorder()
	gw.ServeHTTP(w, r)
	if w.Code != 400 || hits.Load() != 0 {
		t.Errorf("status %d after %d attempts, want 400 and none", w.Code, hits.Load())
	}
}

func TestUnaskedSwitchOfProtocols(t *testing.T) {
	t.Parallel()
	url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
		}
	})
	srv, _ := serve(t, balancer.Static("a="+url), nil)
	if res, _ := get(t, newClient(t), srv.URL); res.StatusCode != 502 {
		t.Errorf("status %d, want 502", res.StatusCode)
	}
}

func TestRequestTrailers(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
		fmt.Fprint(w, r.Trailer.Get("X-Sum"))
	}))
	srv, _ := serve(t, pool, nil)
	_, r := raw(t, srv, "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nTrailer: X-Sum\n\n4\nbody\n0\nX-Sum: 42\n\n")
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); string(body) != "body42" {
		t.Errorf("backend saw %q", body)
	}
}

func TestEarlyHints(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		io.WriteString(w, "done")
	}))
	gw := newGateway(t, pool, nil)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Outer", "1") // as a middleware around the gateway does
		gw.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)

	var hints []string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		},
	})
	req, _ := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
	res, err := newClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if len(hints) != 1 || hints[0] != "103 </style.css>; rel=preload" {
		t.Errorf("hints %q", hints)
	}
	if res.StatusCode != 200 || res.Header.Get("Link") != "" || res.Header.Get("X-Outer") != "1" {
		t.Errorf("final answer %d %v", res.StatusCode, res.Header)
	}

	_, r := raw(t, srv, "GET / HTTP/1.0\n\n")
	if line, _ := r.ReadString('\n'); !strings.Contains(line, " 200 ") {
		t.Errorf("an HTTP/1.0 client got %q first", line)
	}
}

func TestEarlyHintsAreEndToEnd(t *testing.T) {
	t.Parallel()
	url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nConnection: X-Hop\r\nX-Hop: 1\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		}
	})
	srv, _ := serve(t, balancer.Static("a="+url), nil)
	_, r := raw(t, srv, "GET / HTTP/1.1\nHost: x\n\n")
	if line, err := r.ReadString('\n'); !strings.Contains(line, " 103 ") {
		t.Fatalf("%q, %v", line, err)
	}
	if h, err := textproto.NewReader(r).ReadMIMEHeader(); h.Get("Link") != "x" || len(h) != 1 {
		t.Errorf("hints %v, %v", h, err)
	}
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	asked, let := make(chan struct{}), make(chan struct{})
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		close(asked)
		<-let
		body, _ := io.ReadAll(r.Body) // sends the 100
		fmt.Fprintf(w, "%s", body)
	}))
	srv, _ := serve(t, pool, nil)

	conn, r := raw(t, srv, "POST / HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 4\n\n")
	<-asked
	first := make(chan string, 1)
	go func() {
		line, _ := r.ReadString('\n')
		first <- line
	}()
	select {
	case line := <-first:
		t.Fatalf("client was told %q before the backend asked for the body", line)
	default:
	}
	close(let)
	if line := <-first; !strings.Contains(line, " 100 ") {
		t.Fatalf("client was told %q", line)
	}
	r.ReadString('\n')
	io.WriteString(conn, "body")
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); string(body) != "body" {
		t.Errorf("backend got %q", body)
	}

	_, r = raw(t, srv, "POST /refuse HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 4\n\n")
	if res, err = http.ReadResponse(r, nil); err != nil || res.StatusCode != 403 {
		t.Errorf("refused upload: %v, %v; want 403 without a 100", res, err)
	}
}

// An event stream and a trickling answer of known length arrive piece by piece.
func TestStreaming(t *testing.T) {
	t.Parallel()
	for _, length := range []string{"", "15"} {
		t.Run("Content-Length "+length, func(t *testing.T) {
			t.Parallel()
			next := make(chan struct{})
			pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				rc := http.NewResponseController(w)
				for range 3 {
					rc.Flush()
					<-next
					io.WriteString(w, "event")
				}
			}))
			srv, _ := serve(t, pool, nil)
			var res *http.Response
			if length == "" { // then the header comes before any piece
				var err error
				if res, err = newClient(t).Get(srv.URL); err != nil {
					t.Fatal(err)
				}
				next <- struct{}{}
			} else {
				go func() { next <- struct{}{} }()
				var err error
				if res, err = newClient(t).Get(srv.URL); err != nil {
					t.Fatal(err)
				}
			}
			defer res.Body.Close()
			for i := range 3 {
				if i > 0 {
					next <- struct{}{}
				}
				buf := make([]byte, 5)
				if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != "event" {
					t.Fatalf("piece %d: %q, %v", i, buf, err)
				}
			}
		})
	}
}

func TestEarlyAnswerWhileBodyIsSent(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		io.WriteString(w, "early")
		rc.Flush()
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, " and %d more", len(body))
	}))
	plain, gw := serve(t, pool, nil)
	h2 := httptest.NewUnstartedServer(gw)
	h2.EnableHTTP2 = true
	h2.StartTLS()
	t.Cleanup(h2.Close)
	for _, tt := range []struct {
		proto  string
		url    string
		client *http.Client
	}{
		{"HTTP/1.1", plain.URL, newClient(t)},
		{"HTTP/2.0", h2.URL, h2.Client()}, // whose bodies must be known as the server's own
	} {
		t.Run(tt.proto, func(t *testing.T) {
			pr, pw := io.Pipe()
			req, _ := http.NewRequestWithContext(t.Context(), "POST", tt.url, pr)
			res, err := tt.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			buf := make([]byte, 5)
			if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != "early" || res.Proto != tt.proto {
				t.Fatalf("%s, %q, %v", res.Proto, buf, err)
			}
			pw.Write(make([]byte, 100_000))
			pw.Close()
			if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != " and 100000 more" {
				t.Errorf("%q, %v", rest, err)
			}
		})
	}
}

// A backend refuses an upload; the client stops in the middle and waits for the
// answer. The handler must not wait for the rest.
func TestEarlyRefusalOfAnUpload(t *testing.T) {
	t.Parallel()
	url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
		io.Copy(io.Discard, r)
	})
	srv, _ := serve(t, balancer.Static("a="+url), nil)
	_, r := raw(t, srv, "POST / HTTP/1.1\nHost: x\nContent-Length: 1000000\n\nbegin")
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 413 {
		t.Fatalf("%v, %v", res, err)
	}
	if body, err := io.ReadAll(res.Body); string(body) != "no" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
}

// What is left of a body behind an early answer is never taken for a request.
func TestEarlyAnswerEndsTheConnection(t *testing.T) {
	t.Parallel()
	const rest = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, tt := range []struct {
		name     string
		status   int
		atOnce   bool // the rest comes with the answer on its way
		backends bool
	}{
		{"answer of the backend", 200, false, true},
		{"answer of the backend, body follows at once", 200, true, true},
		{"answer of the gateway", 503, false, false},
		{"answer of the gateway, body follows at once", 503, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			requests := make(chan string, 10)
			pool, err := balancer.NewPool(nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.backends {
				pool = balancer.Static("a=" + rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					requests <- req.URL.Path
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly")
					_, _ = io.Copy(io.Discard, r)
				}))
			}
			var log lockedBuffer
			srv := httptest.NewUnstartedServer(newGateway(t, pool, nil))
			srv.Config.ErrorLog = stdlog.New(&log, "", 0)
			srv.Start()
			t.Cleanup(srv.Close)

			conn, r := raw(t, srv, fmt.Sprintf("POST / HTTP/1.1\nHost: x\nContent-Length: %d\n\nbegin", 5+len(rest)))
			if tt.atOnce {
				io.WriteString(conn, rest)
			}
			res, err := http.ReadResponse(r, nil)
			if err != nil || res.StatusCode != tt.status {
				t.Fatalf("%v, %v; want %d", res, err, tt.status)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			if tt.atOnce { // the body may be complete, and the connection kept
				conn.Close()
			} else {
				io.WriteString(conn, rest)
				if res, err := http.ReadResponse(r, nil); err == nil {
					t.Errorf("the rest of the body was answered with %d", res.StatusCode)
				}
			}
			srv.Close()
			close(requests)
			for path := range requests {
				if path != "/" {
					t.Errorf("the backend got a request for %s", path)
				}
			}
			if s := log.String(); strings.Contains(s, "panic") {
				t.Errorf("the server logged %s", s)
			}
		})
	}
}

// Nor does it reach the service's own routes beside the gateway.
func TestEarlyAnswerSparesOtherRoutes(t *testing.T) {
	t.Parallel()
	const rest = "DELETE /own HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, begin := range []string{"", "begin"} {
		t.Run("body begins with "+begin, func(t *testing.T) {
			t.Parallel()
			url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
				if _, err := http.ReadRequest(r); err == nil {
					io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
					_, _ = io.Copy(io.Discard, r)
				}
			})
			gw := newGateway(t, balancer.Static("a="+url), nil)
			var deleted atomic.Bool
			own := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { deleted.Store(true) })
			h := gw.Middleware(func(r *http.Request) bool { return r.URL.Path == "/" })(own)
			done := make(chan struct{}, 2)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(w, r)
				done <- struct{}{}
			}))
			t.Cleanup(srv.Close)

			conn, r := raw(t, srv, fmt.Sprintf("POST / HTTP/1.1\nHost: x\nContent-Length: %d\n\n%s", len(begin)+len(rest), begin))
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 413 {
				t.Fatalf("%v, %v; want 413", res, err)
			}
			<-done // the gateway reads no more of the body
			io.WriteString(conn, rest)
			if _, err := io.Copy(io.Discard, r); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is still open")
			}
			if deleted.Load() {
				t.Error("a body was served as a request")
			}
		})
	}
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestClientLeaves(t *testing.T) {
	t.Parallel()
	came, left := make(chan struct{}), make(chan struct{})
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(came)
		<-r.Context().Done()
		close(left)
	}))
	srv, _ := serve(t, pool, nil)
	conn, _ := raw(t, srv, "GET / HTTP/1.1\nHost: x\n\n")
	<-came
	conn.Close()
	select {
	case <-left:
	case <-time.After(patience):
		t.Error("the backend still works for a client that left")
	}
}

// A middleware may say why it cancels; the client is gone all the same.
func TestCancelledWithACause(t *testing.T) {
	t.Parallel()
	came := make(chan struct{})
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(came)
		<-r.Context().Done()
	}))
	gw := newGateway(t, pool, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-came
		cancel(errors.New("logged out"))
	}()
	w := httptest.NewRecorder()
	gw.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/", nil))
	if w.Code != 499 {
		t.Errorf("status %d, want 499", w.Code)
	}
}

// A panic of the user's code leaves nothing behind.
func TestPanics(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		opts    limpet.Options
		request string
	}{
		{"ModifyResponse", limpet.Options{ModifyResponse: abort}, "GET / HTTP/1.1\nHost: x\n\n"},
		{"ModifyResponse of a 101", limpet.Options{ModifyResponse: abort}, handshake},
		{"Bind", limpet.Options{Affinity: &panicky{}}, "GET / HTTP/1.1\nHost: x\n\n"},
		{"Bind to a 101", limpet.Options{Affinity: &panicky{}}, handshake},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool, _ := cluster(t, 1, app)
			tt.opts.Upgrade = &upgrade.Proxy{}
			srv, _ := serve(t, pool, &tt.opts)
			_, r := raw(t, srv, tt.request)
			if line, err := r.ReadString('\n'); err == nil {
				t.Errorf("the client got %q", line)
			}
			for range tt.opts.Upgrade.Tunnels() {
				t.Error("a tunnel is left")
			}
			if n := pool.Get("a").InFlight(); n != 0 {
				t.Errorf("%d in flight", n)
			}
		})
	}
}

// A panic of a hook beside a body that the client has not sent to its end: no Read of the
// body goes on when the handler has returned, and nothing stays in the backend's count.
func TestPanicsWithABody(t *testing.T) {
	t.Parallel()
	hook := func() { panic(http.ErrAbortHandler) }
	for _, tt := range []struct {
		name, path string
		opts       limpet.Options
	}{
		{"Rewrite", "/", limpet.Options{Rewrite: func(_, _ *http.Request) { hook() }}},
		{"ModifyResponse", "/", limpet.Options{ModifyResponse: abort}},
		{"ErrorHandler", "/die", limpet.Options{ErrorHandler: func(http.ResponseWriter, *http.Request, error) { hook() }}},
		{"Bind", "/", limpet.Options{Affinity: &panicky{affinity.Hash{Key: &affinity.ClientAddr{}}}}},
		{"Observer", "/", limpet.Options{}},
		{"Observer of a failure", "/die", limpet.Options{}},
	} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(tt.name+"/"+proto, func(t *testing.T) {
				url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					io.ReadFull(req.Body, make([]byte, 5))
					if req.URL.Path != "/die" {
						io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
						io.Copy(io.Discard, r)
					}
				})
				pool := balancer.Static("a=" + url)
				opts := tt.opts
				if opts.Affinity == nil {
					opts.Affinity = &affinity.Cookie{Secrets: testKeys}
				}
				gw := newGateway(t, pool, &opts)
				if strings.HasPrefix(tt.name, "Observer") {
					gw.Observe(limpet.Observer{Request: func(*limpet.Record) { hook() }})
				}
				reads := make(chan int32, 1)
				srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body := &observed{ReadCloser: r.Body}
					r.Body = body
					defer func() {
						body.over.Store(true)
						reads <- body.reading.Load()
					}()
					gw.ServeHTTP(w, r)
				}))
				srv.Config.Protocols = &http.Protocols{}
				srv.Config.Protocols.SetHTTP1(true)
				srv.Config.Protocols.SetUnencryptedHTTP2(true)
				srv.Start()
				t.Cleanup(srv.Close)
				ctx, leave := context.WithCancel(t.Context())
				client := &http.Transport{Protocols: &http.Protocols{}}
				client.Protocols.SetHTTP1(proto == "HTTP/1.1")
				client.Protocols.SetUnencryptedHTTP2(proto == "HTTP/2.0")
				t.Cleanup(client.CloseIdleConnections)
				body, pause := io.Pipe()
				defer body.Close()
				go pause.Write([]byte("begin"))
				req, _ := http.NewRequestWithContext(ctx, "POST", srv.URL+tt.path, body)
				answered := make(chan error, 1)
				go func() {
					res, err := client.RoundTrip(req)
					if err == nil {
						res.Body.Close()
					}
					answered <- err
				}()
				if n := <-reads; n != 0 {
					t.Errorf("%d reads of the body are under way when the handler has returned", n)
				}
				if n := pool.Get("a").InFlight(); n != 0 {
					t.Errorf("%d in flight", n)
				}
				leave() // what is left of the body net/http waits for
				body.Close()
				if err := <-answered; err == nil {
					t.Error("the client got an answer")
				}
			})
		}
	}
}

// observed is a body that counts the reads which are under way, and panics when one
// begins after the handler has returned.
type observed struct {
	io.ReadCloser
	reading atomic.Int32
	over    atomic.Bool
}

func (o *observed) Read(p []byte) (int, error) {
	o.reading.Add(1)
	defer o.reading.Add(-1)
	if o.over.Load() {
		panic("a read of the body after the handler has returned")
	}
	return o.ReadCloser.Read(p)
}

func abort(*http.Response) error { panic(http.ErrAbortHandler) }

type panicky struct{ affinity.Hash }

func (*panicky) Bind(a affinity.Answer) (string, error) {
	return "", abort(a.Response)
}

func TestHTTP2InFront(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", r.Proto, r.Header.Get("X-Forwarded-Proto"), body)
	}))
	srv := httptest.NewUnstartedServer(newGateway(t, pool, nil))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	res, err := srv.Client().Post(srv.URL, "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.ProtoMajor != 2 || string(body) != "HTTP/1.1 https hello" {
		t.Errorf("%s: %q", res.Proto, body)
	}
	if c := res.Cookies(); len(c) != 1 || !strings.HasPrefix(c[0].Name, "__Host-") || !c[0].Secure {
		t.Errorf("cookies over TLS: %v", c)
	}
}

func TestRewriteModifyAndHost(t *testing.T) {
	t.Parallel()
	pool, nodes := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", r.Host, r.RequestURI, r.Header.Get("X-Added"))
	}))
	srv, _ := serve(t, pool, &limpet.Options{
		BackendHost: true,
		Rewrite: func(in, out *http.Request) {
			out.URL.Path = "/base" + in.URL.Path
			out.Header.Set("X-Added", "1")
		},
		ModifyResponse: func(res *http.Response) error {
			if res.Request.URL.Path == "/base/bad" {
				return errors.New("not like this")
			}
			res.Header.Set("X-Backend", balancer.BackendFromContext(res.Request.Context()).ID())
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			w.WriteHeader(limpet.StatusCode(err))
			io.WriteString(w, "sorry: "+err.Error())
		},
	})
	res, body := get(t, newClient(t), srv.URL+"/x?y|")
	if want := nodes["a"].Listener.Addr().String() + " /base/x?y| 1"; body != want {
		t.Errorf("backend saw %q, want %q", body, want)
	}
	if res.Header.Get("X-Backend") != "a" {
		t.Errorf("X-Backend %q", res.Header.Get("X-Backend"))
	}
	if res, body := get(t, newClient(t), srv.URL+"/bad"); res.StatusCode != 502 || body != "sorry: not like this" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
}

func TestRewriteReplacesTheBody(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	srv, _ := serve(t, pool, &limpet.Options{Rewrite: func(_, out *http.Request) {
		const body = "changed"
		out.Body, out.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}})
	res, err := newClient(t).Post(srv.URL, "text/plain", strings.NewReader("the client's own"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); string(body) != "changed" || err != nil {
		t.Errorf("%d: the backend read %q, %v", res.StatusCode, body, err)
	}
}

func TestNewGatewayFindsMistakes(t *testing.T) {
	t.Parallel()
	pool := balancer.Static("a=http://127.0.0.1:1")
	for name, f := range map[string]func() (*limpet.Gateway, error){
		"no pool": func() (*limpet.Gateway, error) { return limpet.NewGateway(nil, nil) },
		"short key": func() (*limpet.Gateway, error) {
			return limpet.NewGateway(pool, &limpet.Options{Affinity: &affinity.Cookie{Secrets: [][]byte{{1}}}})
		},
		"wrong Gone": func() (*limpet.Gateway, error) { return limpet.NewGateway(pool, &limpet.Options{Gone: 7}) },
	} {
		if _, err := f(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLargeBodiesBothWays(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	srv, _ := serve(t, pool, nil)
	data := bytes.Repeat([]byte("limpet "), 3<<20/7)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "PUT", srv.URL, bytes.NewReader(data))
	res, err := newClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back of %d: %v", len(got), len(data), err)
	}
}
