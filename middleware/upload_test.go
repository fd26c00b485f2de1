package middleware_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// secured starts a server that speaks HTTP/1.1, or HTTP/2 as well.
func secured(t *testing.T, h http.Handler, h2 bool) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = h2
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// tooLarge sends body to h in all ways, and wants it to be too large for it or not.
func tooLarge(t *testing.T, name string, h http.Handler, body string, want bool) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for _, length := range []int{len(body), -1} {
			t.Run(fmt.Sprintf("%s/%s/%d of %d bytes", name, proto, length, len(body)), func(t *testing.T) {
				srv := secured(t, h, proto == "HTTP/2.0")
				req, _ := http.NewRequestWithContext(t.Context(), "POST", srv.URL, io.NopCloser(strings.NewReader(body)))
				req.ContentLength = int64(length)
				res, err := srv.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				if want != (res.StatusCode == http.StatusRequestEntityTooLarge) || !want && string(got) != body || res.Proto != proto {
					t.Errorf("%s %s with %q, %v", res.Proto, res.Status, got, err)
				}
				if proto == "HTTP/1.1" && res.Close != want {
					t.Errorf("the connection is closed: %v", res.Close)
				}
			})
		}
	}
}

func TestMaxBody(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil {
			w.Write(body)
		}
	}))
	gw := newGateway(t, pool, &limpet.Options{MaxBody: 5})
	for _, body := range []string{"hello", "hello!", strings.Repeat("x", 1<<20)} {
		tooLarge(t, "gateway", gw, body, len(body) > 5)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(*httputil.ProxyRequest) {},
		Transport: &limpet.Sticky{
			Pool: pool, MaxBody: 5, Affinity: &affinity.Hash{Key: &affinity.ClientAddr{}}, Logger: slog.New(slog.DiscardHandler),
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			w.Header().Set("Connection", "close") // as it is for the gateway
			w.WriteHeader(limpet.StatusCode(err))
		},
	}
	for _, body := range []string{"hello", "hello!"} {
		tooLarge(t, "Sticky", proxy, body, len(body) > 5)
	}

	var asked atomic.Int64 // by nobody else: a request that was cut above may still be on its way to its backend
	unasked, _ := cluster(t, 1, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	srv, _ := serve(t, unasked, &limpet.Options{MaxBody: 5})
	_, r := raw(t, srv, "POST / HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 6\n\n")
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 413 || asked.Load() != 0 {
		t.Errorf("%v, %v; a backend was asked %d times", res, err, asked.Load())
	}
	var log notes
	chunked := httptest.NewRequest("POST", "/", io.NopCloser(strings.NewReader("hello!")))
	chunked.ContentLength = -1
	newGateway(t, pool, &limpet.Options{MaxBody: 5, Logger: log.logger()}).ServeHTTP(httptest.NewRecorder(), chunked)
	if lines := log.about("body too large"); len(lines) != 1 || strings.Contains(lines[0], "backend") {
		t.Errorf("the log says %q, want one line, and not that the backend failed", lines)
	}
	if _, err := limpet.NewGateway(pool, &limpet.Options{MaxBody: -1}); err == nil {
		t.Error("a negative MaxBody is accepted")
	}
}

// A backend dies while a client uploads what may be sent again: another one gets the
// whole body, from its start at once, while the client hasn't sent its rest.
func TestFailoverWithinAnUpload(t *testing.T) {
	t.Parallel()
	for _, h2 := range []bool{false, true} {
		for _, around := range []func(http.Handler) http.Handler{
			func(h http.Handler) http.Handler { return h },
			func(h http.Handler) http.Handler { return http.MaxBytesHandler(h, 1<<20) },
		} {
			t.Run(fmt.Sprint("HTTP/2 ", h2), func(t *testing.T) {
				t.Parallel()
				dies := rawBackend(t, func(_ net.Conn, r *bufio.Reader) {
					if req, err := http.ReadRequest(r); err == nil {
						_, _ = io.ReadFull(req.Body, make([]byte, 5))
					}
				})
				begun := make(chan struct{})
				lives := newNode(t, "b", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					first := make([]byte, 5)
					_, _ = io.ReadFull(r.Body, first)
					close(begun)
					rest, err := io.ReadAll(r.Body)
					fmt.Fprintf(w, "%s%s %v %s", first, rest, err, r.Trailer.Get("Sum"))
				}))
				bad, _ := balancer.NewBackend("a", dies, 1)
				good, _ := balancer.NewBackend("b", lives.URL, 1)
				pool, err := balancer.NewPool(&balancer.Options{Picker: first{}}, bad, good)
				if err != nil {
					t.Fatal(err)
				}
				srv := secured(t, around(newGateway(t, pool, nil)), h2)
				pr, pw := io.Pipe()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				req, _ := http.NewRequestWithContext(ctx, "PUT", srv.URL, pr)
				req.Trailer = http.Header{"Sum": nil}
				go func() {
					io.WriteString(pw, "first")
					select {
					case <-begun:
					case <-ctx.Done():
					}
					io.WriteString(pw, "second")
					req.Trailer.Set("Sum", "11")
					pw.Close()
				}()
				res, err := srv.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if got, _ := io.ReadAll(res.Body); res.StatusCode != 200 || string(got) != "firstsecond <nil> 11" {
					t.Errorf("%s %s %q", res.Proto, res.Status, got)
				}
			})
		}
	}
}

// The same with a backend that dies for all, and a client that pauses for ever.
func TestFailureWithinAPausedUpload(t *testing.T) {
	t.Parallel()
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("HTTP/2 ", h2), func(t *testing.T) {
			t.Parallel()
			dies := rawBackend(t, func(_ net.Conn, r *bufio.Reader) {
				if req, err := http.ReadRequest(r); err == nil {
					_, _ = io.ReadFull(req.Body, make([]byte, 5))
				}
			})
			srv := secured(t, newGateway(t, balancer.Static("a="+dies, "b="+dies), nil), h2)
			pr, pw := io.Pipe()
			defer pw.Close()
			go io.WriteString(pw, "first")
			req, _ := http.NewRequestWithContext(t.Context(), "PUT", srv.URL, pr)
			res, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != 502 {
				t.Errorf("%s %s", res.Proto, res.Status)
			}
		})
	}
}

// A client that pauses in its upload gets the backend's early answer at once from
// a ReverseProxy too: over HTTP/2, since net/http's HTTP/1 server has it read first.
func TestStickyAnswersAPausedUpload(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno", ""} {
		url := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
			if req, err := http.ReadRequest(r); err == nil {
				_, _ = io.ReadFull(req.Body, make([]byte, 5))
				io.WriteString(conn, answer)
			}
		})
		tr := &balancer.Transport{}
		t.Cleanup(tr.CloseIdleConnections)
		srv := secured(t, &httputil.ReverseProxy{
			Rewrite:   func(*httputil.ProxyRequest) {},
			ErrorLog:  log.New(io.Discard, "", 0),
			Transport: &limpet.Sticky{Pool: balancer.Static("a=" + url), Transport: tr, Affinity: &affinity.Hash{Key: &affinity.ClientAddr{}}, Logger: slog.New(slog.DiscardHandler)},
		}, true)
		pr, pw := io.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		go io.WriteString(pw, "first")
		req, _ := http.NewRequestWithContext(ctx, "POST", srv.URL, pr)
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatalf("%q: %v", answer, err)
		}
		if want := map[bool]int{true: 502, false: 413}[answer == ""]; res.StatusCode != want {
			t.Errorf("%s %s, want %d", res.Proto, res.Status, want)
		}
		pw.Close()
		res.Body.Close()
	}
}

// A client that is too slow for http.Server.ReadTimeout is told so.
func TestReadTimeoutWithinABody(t *testing.T) {
	t.Parallel()
	dies := rawBackend(t, func(_ net.Conn, r *bufio.Reader) {
		if req, err := http.ReadRequest(r); err == nil {
			_, _ = io.ReadFull(req.Body, make([]byte, 5))
		}
	})
	lives := rawBackend(t, func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	for _, tt := range []struct {
		name     string
		backends []string
		around   func(http.Handler) http.Handler
	}{
		{"no failure", []string{"a=" + lives}, func(h http.Handler) http.Handler { return h }},
		{"a failure before", []string{"a=" + dies, "b=" + lives}, func(h http.Handler) http.Handler { return h }},
		{"MaxBytesHandler", []string{"a=" + lives}, func(h http.Handler) http.Handler { return http.MaxBytesHandler(h, 1<<20) }},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, ", HTTP/2 ", h2), func(t *testing.T) {
				t.Parallel()
				srv := httptest.NewUnstartedServer(tt.around(newGateway(t, balancer.Static(tt.backends...), nil)))
				srv.Config.ReadTimeout = time.Second
				srv.EnableHTTP2 = h2
				srv.StartTLS()
				t.Cleanup(srv.Close)
				for range 2 { // one of them meets the failure first
					pr, pw := io.Pipe()
					go io.WriteString(pw, "first")
					req, _ := http.NewRequestWithContext(t.Context(), "PUT", srv.URL, pr)
					tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2}
					res, err := tr.RoundTrip(req)
					if err != nil {
						t.Fatal(err)
					}
					if res.StatusCode != http.StatusRequestTimeout {
						t.Errorf("%s %s", res.Proto, res.Status)
					}
					pw.Close()
					res.Body.Close()
					tr.CloseIdleConnections()
				}
			})
		}
	}
}
